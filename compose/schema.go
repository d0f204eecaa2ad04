package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	composeschema "github.com/compose-spec/compose-go/v2/schema"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/fairlead/fairlead/cluster"
)

// composeSchema is the Compose specification's own schema. It never changes
// while the program runs, and takes longer to compile than to use.
var composeSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	return compileSchema("compose-spec.json", composeschema.Schema)
})

func compileSchema(name, text string) (*jsonschema.Schema, error) {
	s, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, s); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	return c.Compile(name)
}

// checkSchema reports every value of a wrong type, each where it stands.
func (l *load) checkSchema(d *doc) {
	s, err := composeSchema()
	if err != nil {
		l.refuse(cluster.Source{File: d.file}, "", err.Error(), "")
		return
	}
	l.validate(s, d, d.root, nil)
}

// validate checks n, which stands at path of d, against a schema.
func (l *load) validate(s *jsonschema.Schema, d *doc, n *node, path []string) {
	text, err := json.Marshal(n.plain(false))
	if err != nil {
		l.refuse(cluster.Source{File: d.file, Line: n.line}, dotted(path...), "cannot be read: "+err.Error(), "")
		return
	}
	inst, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		l.refuse(cluster.Source{File: d.file, Line: n.line}, dotted(path...), "cannot be read: "+err.Error(), "")
		return
	}
	var ve *jsonschema.ValidationError
	if err := s.Validate(inst); !errors.As(err, &ve) {
		return
	}
	for _, c := range complaints(ve) {
		l.schemaProblem(d, n, path, c)
	}
}

// complaint is one leaf of a validation error.
type complaint struct {
	where []string
	text  string
	keys  []string // of where, when it is them that are wrong
}

// complaints are the leaves of a validation error that matter: of alternatives,
// those of the one whose type fits.
func complaints(e *jsonschema.ValidationError) []complaint {
	switch k := e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
		if len(e.Causes) > 0 {
			return alternatives(e)
		}
	case *kind.AdditionalProperties:
		return []complaint{{where: e.InstanceLocation, text: "unknown key", keys: k.Properties}}
	case *kind.FalseSchema:
		// Keys of a service that failed for another reason count as unknown too;
		// the table of keys knows better.
		return nil
	case *kind.Required:
		// Another file, or the service that this one extends, may have it: what
		// is missing in the end is found in the merged model.
		return nil
	case *kind.Type:
		return []complaint{{where: e.InstanceLocation, text: "must be " + wanted(k.Want)}}
	}
	if len(e.Causes) == 0 {
		p := message.NewPrinter(language.English)
		return []complaint{{where: e.InstanceLocation, text: e.ErrorKind.LocalizedString(p)}}
	}
	var out []complaint
	for _, c := range e.Causes {
		out = append(out, complaints(c)...)
	}
	return out
}

func alternatives(e *jsonschema.ValidationError) []complaint {
	var wants []string
	var fit []complaint
	for _, c := range e.Causes {
		list := complaints(c)
		if len(list) == 1 && slices.Equal(list[0].where, e.InstanceLocation) && strings.HasPrefix(list[0].text, "must be ") {
			wants = append(wants, strings.TrimPrefix(list[0].text, "must be "))
			continue
		}
		if fit == nil {
			fit = list
		}
	}
	if fit != nil || len(wants) == 0 {
		return fit
	}
	return []complaint{{where: e.InstanceLocation, text: "must be " + strings.Join(slices.Compact(wants), " or ")}}
}

func wanted(types []string) string {
	names := map[string]string{
		"object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number",
		"number": "a number", "boolean": "true or false", "null": "empty",
	}
	var out []string
	for _, t := range types {
		out = append(out, names[t])
	}
	if len(out) == 2 && out[1] == "text" {
		out = out[:1] // numbers and booleans may be quoted; nobody needs to hear that
	}
	return strings.Join(out, " or ")
}

func (l *load) schemaProblem(d *doc, root *node, path []string, c complaint) {
	n, line, steps := root, root.line, slices.Clone(path)
	if n == d.root {
		line = 1
	}
	for _, s := range c.where {
		step := s
		if n.kind == listNode {
			step = "[" + s + "]"
		}
		if next, at := n.step(s); next != nil {
			n, line = next, at
		}
		steps = append(steps, step)
	}
	if len(c.keys) == 0 {
		text, advice := c.text, ""
		if rest, is := strings.CutPrefix(text, "must be "); is {
			if n.kind == nullNode && l.unsaid(d, steps) {
				return
			}
			text = "must be " + rest + ", this is " + n.describe()
			if n.kind == nullNode && l.packaged() {
				advice = "where a range or with of the template may leave nothing below it, put the key within that too, or write {} or [] in its {{ else }}"
			}
		}
		l.refuse(cluster.Source{File: d.file, Line: line}, dotted(steps...), text, advice)
		n.bad = true
		return
	}
	for _, key := range c.keys {
		at := cluster.Source{File: d.file, Line: line}
		if e := n.entry(key); e != nil {
			at.Line = e.line
			e.val.bad = true
		}
		l.refuse(at, dotted(append(slices.Clone(steps), key)...), c.text, "")
	}
}

// unsaid reports whether a key with nothing below it changes nothing, as a weaker file says it
// too: merged, it stays what it is there. The list of services is always to be one.
func (l *load) unsaid(d *doc, path []string) bool {
	docs := l.idx.docs
	for _, weaker := range docs[slices.Index(docs, d)+1:] {
		n := weaker.root
		for _, step := range path {
			n = n.get(step)
		}
		if n != nil && n.kind != nullNode && n.tag != "!reset" && len(path) > 0 && !slices.Equal(path, []string{"services"}) && slices.Contains(l.files, weaker.abs) {
			return true
		}
	}
	return false
}

// step goes one step of a schema's path: list items count without the refused ones.
func (n *node) step(s string) (*node, int) {
	if e := n.entry(s); e != nil {
		return e.val, e.line
	}
	if n.kind == listNode {
		i, err := strconv.Atoi(s)
		for _, it := range n.items {
			if it.bad || err != nil {
				continue
			}
			if i == 0 {
				return it, it.line
			}
			i--
		}
	}
	return nil, 0
}

// describe names a value in a message about its type.
func (n *node) describe() string {
	if n.kind != scalarNode {
		return n.kind.String()
	}
	switch n.tag {
	case "!!int", "!!float":
		return "the number " + n.value
	case "!!bool":
		return n.value
	}
	return "the text " + quote(n.value)
}
