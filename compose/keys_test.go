package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	composeschema "github.com/compose-spec/compose-go/v2/schema"
	"github.com/google/go-cmp/cmp"
)

// TestTableCoversTheSpecification walks compose-go's own schema: every key of
// the Compose specification is in the table of keys, and every key of the table
// is in the specification.
func TestTableCoversTheSpecification(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal([]byte(composeschema.Schema), &schema); err != nil {
		t.Fatal(err)
	}
	w := schemaWalk{t: t, defs: schema["$defs"].(map[string]any), seen: map[string]bool{}}
	w.walk(schema, keyTree(), "")
	for _, r := range rules() {
		if !strings.Contains(r.path, "x-fairlead") && !strings.HasSuffix(r.path, ".*") && !strings.Contains(r.path, ".external.name") && !w.seen[r.path] {
			t.Errorf("%s is in the table and not in the specification", r.path)
		}
	}
	if len(w.seen) < 200 {
		t.Errorf("only %d keys were seen", len(w.seen))
	}
}

type schemaWalk struct {
	t    *testing.T
	defs map[string]any
	seen map[string]bool
}

func (w schemaWalk) walk(s map[string]any, k *keyNode, path string) {
	if ref, is := s["$ref"].(string); is {
		w.walk(w.defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), k, path)
	}
	for _, combine := range []string{"oneOf", "anyOf", "allOf"} {
		list, _ := s[combine].([]any)
		for _, x := range list {
			w.walk(x.(map[string]any), k, path)
		}
	}
	if items, is := s["items"].(map[string]any); is {
		if c := k.children["[]"]; c != nil {
			w.walk(items, c, path+"[]")
		}
	}
	if patterns, is := s["patternProperties"].(map[string]any); is {
		for p, x := range patterns {
			if c := k.children["*"]; c != nil && p != "^x-" {
				w.walk(x.(map[string]any), c, path+".*")
			}
		}
	}
	props, _ := s["properties"].(map[string]any)
	for name, x := range props {
		p := strings.TrimPrefix(path+"."+name, ".")
		w.seen[p] = true
		c := k.child(name)
		if c == nil {
			w.t.Errorf("%s is in the specification and not in the table", p)
			continue
		}
		if !c.rule.free && c.rule.use == honoured {
			w.walk(x.(map[string]any), c, p)
		}
	}
}

// TestEveryRefusedAndWarnedKey puts each key that is not honoured into a file,
// and expects its own complaint, at its own line.
func TestEveryRefusedAndWarnedKey(t *testing.T) {
	for _, r := range rules() {
		if r.use == honoured || strings.Contains(r.path, "[]") || r.path == "version" {
			continue
		}
		file, line, path := minimal(r.path)
		d := &doc{file: "compose.yaml"}
		roots, err := parseYAML([]byte(file))
		if err != nil {
			t.Fatalf("%s: %v\n%s", r.path, err, file)
		}
		d.root = roots[0]
		l := &load{}
		l.checkKeys(d, d.root, keyTree(), nil)
		want, list := "ignored", l.warned
		if r.use == refused {
			want, list = "not supported", l.refused
		}
		p := Problem{File: "compose.yaml", Line: line, Path: path, Message: want, Advice: r.note}
		if !slices.Contains(list, p) {
			t.Errorf("%s: want %s, have %v %v", r.path, p, l.refused, l.warned)
		}
		if r.note == "" {
			t.Errorf("%s: no advice", r.path)
		}
	}
}

// minimal is a document that holds one key of the table.
func minimal(path string) (file string, line int, full string) {
	steps := strings.Split(path, ".")
	var b strings.Builder
	for i, s := range steps {
		if s == "*" {
			s = "web"
			steps[i] = s
		}
		b.WriteString(strings.Repeat("  ", i) + s + ":")
		if i == len(steps)-1 {
			b.WriteString(" {a: b}")
		}
		b.WriteString("\n")
	}
	return b.String(), len(steps), strings.Join(steps, ".")
}

// TestDocumentedKeys holds the table of docs/compose.md in step with rules;
// FAIRLEAD_UPDATE=1 writes it.
func TestDocumentedKeys(t *testing.T) {
	const (
		file  = "../docs/compose.md"
		start = "<!-- keys: written by go test ./compose -->\n"
		end   = "<!-- end of keys -->\n"
	)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), start)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table of keys", file)
	}
	want := keyTable()
	if os.Getenv("FAIRLEAD_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(before+start+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s is out of step; run FAIRLEAD_UPDATE=1 go test ./compose -run DocumentedKeys\n%s", file, d)
	}
}

func keyTable() string {
	byPath := map[string]rule{}
	for _, r := range rules() {
		byPath[r.path] = r
	}
	var b strings.Builder
	b.WriteString("\n| key | | |\n|---|---|---|\n")
	for _, p := range slices.Sorted(maps.Keys(byPath)) {
		r := byPath[p]
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p, r.use, r.note)
	}
	b.WriteString("\n")
	return b.String()
}
