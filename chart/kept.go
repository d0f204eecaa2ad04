package chart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	yamlv3 "gopkg.in/yaml.v3"
	"sigs.k8s.io/yaml"
)

// keep writes values as they are kept with a release. A number that --set made is an int64 to
// a template, one of a file a float64, and prints otherwise: of the latter, one that is whole
// is written 2.0.
func keep(values map[string]any) (string, error) {
	b, err := yaml.Marshal(values)
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(b), "\n")
	var floats []*yamlv3.Node
	err = beside(b, values, func(n *yamlv3.Node, v any) any {
		if _, is := v.(float64); is && n.ShortTag() == "!!int" {
			floats = append(floats, n)
		}
		return v
	})
	for _, n := range floats { // each on a line of its own, as this library writes them
		line := []rune(lines[n.Line-1])
		lines[n.Line-1] = string(slices.Insert(line, n.Column-1+len(n.Value), '.', '0'))
	}
	return strings.Join(lines, "\n"), err
}

// readKept reads what keep wrote. Helm's own reader makes a float of each number.
func readKept(b []byte) (map[string]any, error) {
	m, err := wholeNumbers(b)
	if err != nil {
		return nil, err
	}
	return m, beside(b, m, func(n *yamlv3.Node, v any) any {
		if i, is := v.(int64); is && n.ShortTag() == "!!float" {
			return float64(i)
		}
		return v
	})
}

// PlainValues are the values that are kept with a release, as people write them.
func PlainValues(kept string) (string, error) {
	if !strings.Contains(kept, ".0") {
		return kept, nil
	}
	m, err := wholeNumbers([]byte(kept))
	if err != nil {
		return "", fmt.Errorf("the values: %w", err)
	}
	b, err := yaml.Marshal(m)
	return string(b), err
}

func wholeNumbers(b []byte) (map[string]any, error) {
	m := map[string]any{}
	if err := yaml.Unmarshal(b, &m, func(d *json.Decoder) *json.Decoder { d.UseNumber(); return d }); err != nil {
		return nil, err
	}
	for k, v := range m {
		var err error
		if m[k], err = number(v); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func number(v any) (_ any, err error) {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		return v.Float64()
	case []any:
		for i := range v {
			if v[i], err = number(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = number(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// beside replaces each value by what f makes of it and of the node that it was written as.
func beside(b []byte, values map[string]any, f func(*yamlv3.Node, any) any) error {
	var root yamlv3.Node
	if err := decode(yamlv3.NewDecoder(bytes.NewReader(b)), &root); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(root.Content) == 0 {
		return nil
	}
	walkBeside(root.Content[0], values, f)
	return nil
}

func walkBeside(n *yamlv3.Node, v any, f func(*yamlv3.Node, any) any) any {
	switch v := v.(type) {
	case map[string]any:
		for i := 0; n.Kind == yamlv3.MappingNode && i+1 < len(n.Content); i += 2 {
			if k := n.Content[i].Value; v[k] != nil {
				v[k] = walkBeside(n.Content[i+1], v[k], f)
			}
		}
	case []any:
		for i := 0; n.Kind == yamlv3.SequenceNode && i < min(len(n.Content), len(v)); i++ {
			v[i] = walkBeside(n.Content[i], v[i], f)
		}
	default:
		return f(n, v)
	}
	return v
}

// wholeAnswer reports whether a file is what `get all -o yaml` prints, and no values.
func wholeAnswer(b []byte) bool {
	var m map[string]any
	if yaml.Unmarshal(b, &m) != nil {
		return false // that is said where it is read
	}
	for _, key := range []string{"app", "release", "manifest"} {
		if _, is := m[key]; !is {
			return false
		}
	}
	return true
}
