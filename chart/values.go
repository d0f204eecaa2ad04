package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"

	"github.com/fairlead/fairlead/cluster"
)

// Values are what the user gives beside the chart's own values, weakest first. They
// travel as they were written: a number that --set made is another type to a template
// than one that JSON made.
type Values struct {
	Kept    []File   `json:"kept,omitempty"`    // of a release before, as Rendered has them
	Files   []File   `json:"files,omitempty"`   // -f; YAML
	JSON    []string `json:"json,omitempty"`    // --set-json
	Set     []string `json:"set,omitempty"`     // --set
	String  []string `json:"string,omitempty"`  // --set-string
	File    []string `json:"file,omitempty"`    // --set-file
	Literal []string `json:"literal,omitempty"` // --set-literal
	Above   []File   `json:"above,omitempty"`   // as Kept, and stronger than all others
	// Contents of the files that File names, by path.
	Contents map[string][]byte `json:"contents,omitempty"`
}

// maxValues bounds one file of values.
const maxValues = 16 << 20

// ReadValues reads the files that names (-f) and v.File (--set-file) name; "-" is in.
func (v *Values) ReadValues(names []string, in io.Reader) error {
	for _, n := range names {
		b, err := readValue(n, in)
		if err != nil {
			return cluster.Invalidf("values %s: %w", n, err)
		}
		if wholeAnswer(b) {
			return cluster.Invalidf("values %s: this is all that is known of a release, with its values as one text in it: `fairlead get values NAME -o yaml` prints them alone", n)
		}
		v.Files = append(v.Files, File{Name: n, Data: b})
	}
	for _, expr := range v.File {
		var failed error
		err := strvals.ParseIntoFile(expr, map[string]any{}, func(name []rune) (any, error) {
			b, err := readValue(string(name), in)
			if err != nil {
				failed = err
				return nil, err
			}
			if v.Contents == nil {
				v.Contents = map[string][]byte{}
			}
			v.Contents[string(name)] = b
			return "", nil
		})
		if failed != nil {
			return cluster.Invalidf("--set-file %s: %w", expr, failed)
		}
		if err != nil {
			return cluster.Invalidf("--set-file %s: %w", expr, err)
		}
	}
	return nil
}

func readValue(name string, in io.Reader) ([]byte, error) {
	r := in
	if strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://") {
		return nil, fmt.Errorf("values are files here, nothing is fetched: `curl -fsSL %s` gets it, and -f - reads standard input", name)
	}
	if strings.TrimSpace(name) != "-" {
		f, err := os.Open(name) //nolint:gosec // the user's own file
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // read only
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxValues+1))
	if err == nil && len(b) > maxValues {
		err = fmt.Errorf("more than %d MiB", maxValues>>20)
	}
	return b, err
}

// Merge makes one mapping of them, in Helm's order.
func (v *Values) Merge() (map[string]any, error) {
	base := map[string]any{}
	over := func(files []File, read func([]byte) (map[string]any, error)) error {
		for _, f := range files {
			m, err := read(f.Data)
			if err != nil {
				return fmt.Errorf("failed to parse %s: %w", f.Name, err)
			}
			base = loader.MergeMaps(base, m)
		}
		return nil
	}
	if err := over(v.Kept, readKept); err != nil {
		return nil, err
	}
	if err := over(v.Files, func(b []byte) (map[string]any, error) { return loader.LoadValues(bytes.NewReader(b)) }); err != nil {
		return nil, err
	}
	for _, s := range v.JSON {
		if t := strings.TrimSpace(s); strings.HasPrefix(t, "{") {
			var m map[string]any
			if err := json.Unmarshal([]byte(t), &m); err != nil {
				return nil, fmt.Errorf("failed parsing --set-json data JSON: %s", s)
			}
			base = loader.MergeMaps(base, m)
		} else if err := strvals.ParseJSON(s, base); err != nil {
			return nil, fmt.Errorf("failed parsing --set-json data %s", s)
		}
	}
	content := func(name []rune) (any, error) {
		b, there := v.Contents[string(name)]
		if !there {
			return nil, fmt.Errorf("the file %s was not read", string(name))
		}
		return string(b), nil
	}
	for _, layer := range []struct {
		flag  string
		exprs []string
		into  func(string, map[string]any) error
	}{
		{"--set", v.Set, strvals.ParseInto},
		{"--set-string", v.String, strvals.ParseIntoString},
		{"--set-file", v.File, func(s string, m map[string]any) error { return strvals.ParseIntoFile(s, m, content) }},
		{"--set-literal", v.Literal, strvals.ParseLiteralInto},
	} {
		for _, s := range layer.exprs {
			if err := layer.into(s, base); err != nil {
				return nil, fmt.Errorf("failed parsing %s data: %w", layer.flag, err)
			}
		}
	}
	return base, over(v.Above, readKept)
}

// Text is what they are merged, as Kept and Above take it.
func (v *Values) Text() (string, error) {
	m, err := v.Merge()
	if err != nil {
		return "", err
	}
	return keep(m)
}

// element finds a list's element in the name of a value.
var element = regexp.MustCompile(`(?:^|,)([^,=\[{]+)\[\d+\](?:[.\[][^,={]*)?=`)

// Elements are the lists of which single elements are set and that no file of values has: such
// a list is made of these elements alone, whatever the values below have there.
func (v *Values) Elements() ([]string, error) {
	files := Values{Kept: v.Kept, Files: v.Files}
	base, err := files.Merge()
	if err != nil {
		return nil, err
	}
	var out []string
	var names []string // with what is written behind them, where more may follow
	for _, expr := range slices.Concat(v.Set, v.String, v.File) {
		names = append(names, strings.ReplaceAll(expr, `\,`, `\;`))
	}
	for _, expr := range slices.Concat(v.Literal, v.JSON) {
		name, _, _ := strings.Cut(expr, "=")
		names = append(names, name+"=")
	}
	for _, expr := range names {
		for _, m := range element.FindAllStringSubmatch(expr, -1) {
			if !slices.Contains(out, m[1]) && !hasList(base, strings.Split(m[1], ".")) {
				out = append(out, m[1])
			}
		}
	}
	return out, nil
}

func hasList(values map[string]any, path []string) bool {
	v := values[path[0]]
	if len(path) == 1 {
		_, is := v.([]any)
		return is
	}
	m, _ := v.(map[string]any)
	return hasList(m, path[1:])
}

// Empty reports whether the user gave nothing.
func (v *Values) Empty() bool {
	return len(v.Kept)+len(v.Files)+len(v.JSON)+len(v.Set)+len(v.String)+len(v.File)+len(v.Literal)+len(v.Above) == 0
}

// Beside returns v with the values of a release before below its own.
func (v *Values) Beside(kept ...File) Values {
	out := *v
	out.Kept, out.Contents = slices.Concat(kept, v.Kept), maps.Clone(v.Contents)
	return out
}
