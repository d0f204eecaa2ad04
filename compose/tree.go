package compose

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Bounds on one file, checked before anything interprets it.
const (
	maxFileSize = 2 << 20 // bytes
	maxNodes    = 200_000 // after anchors are expanded
	maxDepth    = 64
)

type nodeKind uint8

const (
	nullNode nodeKind = iota
	scalarNode
	mapNode
	listNode
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "a value", "a mapping", "a list"}[k]
}

// node is one value of a YAML document, anchors and merge keys expanded. It
// keeps the line on which it was written, which is the anchor's for what an
// anchor brought.
type node struct {
	kind    nodeKind
	line    int
	tag     string // of a scalar, "!!str"; or compose's own: "!reset", "!override"
	raw     string // scalar as written
	value   string // scalar after interpolation
	cast    string // tag that its key gives a text, "!!int" or "!!bool"; "": none
	entries []entry
	items   []*node
	// bad: refused already; left out when the rest is examined further.
	bad bool
}

type entry struct {
	key  string
	line int
	val  *node
}

// get returns the value of a key of a mapping, or nil.
func (n *node) get(key string) *node {
	if e := n.entry(key); e != nil {
		return e.val
	}
	return nil
}

func (n *node) entry(key string) *entry {
	if n == nil || n.kind != mapNode {
		return nil
	}
	for i := range n.entries {
		if n.entries[i].key == key {
			return &n.entries[i]
		}
	}
	return nil
}

// empty reports whether n says nothing: null, false, "", [] or {}.
func (n *node) empty() bool {
	switch n.kind {
	case nullNode:
		return true
	case scalarNode:
		return n.value == "" || n.value == "false" || (n.value == "0" && n.tag == "!!int")
	case mapNode:
		return len(n.entries) == 0
	case listNode:
		return len(n.items) == 0
	}
	return true
}

// plain converts n to what encoding/json would give, without what was refused.
// With raw, scalars are as written, else interpolated.
func (n *node) plain(raw bool) any {
	switch n.kind {
	case mapNode:
		m := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			if !e.val.bad && e.val.tag != "!reset" {
				m[e.key] = e.val.plain(raw)
			}
		}
		return m
	case listNode:
		l := make([]any, 0, len(n.items))
		for _, i := range n.items {
			if !i.bad {
				l = append(l, i.plain(raw))
			}
		}
		return l
	case scalarNode:
		return n.scalar(raw)
	case nullNode:
	}
	return nil
}

func (n *node) scalar(raw bool) any {
	if raw {
		return typed(n.raw, n.tag)
	}
	if n.cast != "" {
		return typed(n.value, n.cast)
	}
	if n.raw != n.value {
		return n.value // interpolated: a string, as for compose-go
	}
	return typed(n.value, n.tag)
}

// typed reads a scalar by its tag, as a YAML decoder does.
func typed(s, tag string) any {
	switch tag {
	case "!!bool":
		return s == "true" || s == "True" || s == "TRUE"
	case "!!int":
		if i, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 0, 64); err == nil {
			return i
		}
	case "!!float":
		if f, err := strconv.ParseFloat(s, 64); err == nil && f-f == 0 { // not Inf, not NaN
			return f
		}
	}
	return s
}

// syntaxError is a file that is not the YAML we read.
type syntaxError struct {
	line   int
	msg    string
	advice string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.msg) }

// parseYAML reads all documents of a file. Interpolation comes later.
func parseYAML(content []byte) ([]*node, error) {
	if len(content) > maxFileSize {
		return nil, tooLarge(int64(len(content)))
	}
	dec := yaml.NewDecoder(strings.NewReader(string(content)))
	var docs []*node
	b := builder{budget: maxNodes}
	for {
		var y yaml.Node
		err := decode(dec, &y)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, yamlError(err, content)
		}
		if len(y.Content) == 0 {
			continue
		}
		n, err := b.build(y.Content[0], 0)
		if err != nil {
			return nil, err
		}
		if n.kind != nullNode {
			docs = append(docs, n)
		}
	}
}

func tooLarge(size int64) error {
	return &syntaxError{
		msg:    fmt.Sprintf("the file has %d bytes; at most %d are read", size, maxFileSize),
		advice: "is this a Compose file? Large content belongs in files that configs: name, in a package in several templates",
	}
}

// decode keeps a panic of the YAML library from ending the program.
func decode(dec *yaml.Decoder, y *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return dec.Decode(y)
}

var yamlLineRE = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)

// anchorRE is what the library says without a line.
var anchorRE = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

// lineOfAlias is the first line that uses an anchor, else 1.
func lineOfAlias(content []byte, name string) int {
	alias := regexp.MustCompile(`(^|[\s,\[{:])\*` + regexp.QuoteMeta(name) + `([\s,\]}]|$)`)
	for i, line := range strings.Split(string(content), "\n") {
		if text, _, _ := strings.Cut(line, " #"); !strings.HasPrefix(strings.TrimSpace(line), "#") && alias.MatchString(text) {
			return i + 1
		}
	}
	return 1
}

func yamlError(err error, content []byte) error {
	msg, _, _ := strings.Cut(err.Error(), "\n")
	m := yamlLineRE.FindStringSubmatch(msg)
	if m == nil {
		return &syntaxError{line: 1, msg: "not valid YAML: " + msg}
	}
	line, aerr := strconv.Atoi(m[1])
	if aerr != nil {
		line = 1
	}
	advice := ""
	if a := anchorRE.FindStringSubmatch(m[2]); a != nil {
		line, advice = lineOfAlias(content, a[1]), "write &"+a[1]+" at what it stands for, above and in the same file"
	}
	switch {
	case strings.Contains(m[2], "cannot start any token"):
		advice = "indent with spaces, and quote values that start with @, ` or %"
	case strings.Contains(m[2], "mapping values are not allowed"):
		advice = "check the indentation, and quote values that hold \": \""
	case strings.Contains(m[2], "did not find expected"):
		advice = "check the indentation and brackets of this line and the ones before"
	}
	return &syntaxError{line: line, msg: "not valid YAML: " + m[2], advice: advice}
}

// builder expands anchors and merge keys within a budget of nodes.
type builder struct {
	budget int
	active []*yaml.Node // anchors being expanded
	use    int          // line of the outermost alias
}

// line is where an excess shows: at the alias that caused it.
func (b *builder) line(y *yaml.Node) int {
	if len(b.active) > 0 {
		return b.use
	}
	return y.Line
}

func (b *builder) build(y *yaml.Node, depth int) (*node, error) {
	if b.budget--; b.budget < 0 {
		return nil, &syntaxError{line: b.line(y), msg: fmt.Sprintf("more than %d values once anchors are expanded", maxNodes), advice: "use fewer anchors within anchors"}
	}
	if depth > maxDepth {
		return nil, &syntaxError{line: y.Line, msg: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	if y.Tag == "!reset" { // whatever is written behind it
		return &node{kind: nullNode, line: y.Line, tag: y.Tag}, nil
	}
	switch y.Kind {
	case yaml.AliasNode:
		return b.alias(y, depth)
	case yaml.MappingNode:
		return b.mapping(y, depth)
	case yaml.SequenceNode:
		n := &node{kind: listNode, line: y.Line, tag: y.Tag}
		for _, c := range y.Content {
			item, err := b.build(c, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.ScalarNode:
		n := &node{kind: scalarNode, line: y.Line, tag: y.ShortTag(), raw: y.Value, value: y.Value}
		if n.tag == "!!null" {
			n.kind = nullNode
		}
		return n, nil
	case yaml.DocumentNode:
	}
	return nil, &syntaxError{line: y.Line, msg: "not valid YAML: unexpected content"}
}

func (b *builder) alias(y *yaml.Node, depth int) (*node, error) {
	if slices.Contains(b.active, y.Alias) {
		return nil, &syntaxError{line: y.Line, msg: fmt.Sprintf("anchor *%s contains itself", y.Value)}
	}
	if y.Alias == nil {
		return nil, &syntaxError{line: y.Line, msg: fmt.Sprintf("anchor *%s is not defined", y.Value)}
	}
	if len(b.active) == 0 {
		b.use = y.Line
	}
	b.active = append(b.active, y.Alias)
	n, err := b.build(y.Alias, depth)
	b.active = b.active[:len(b.active)-1]
	if err != nil {
		return nil, err
	}
	if n.kind == scalarNode || n.kind == nullNode {
		n.line = y.Line
	}
	return n, nil
}

func (b *builder) mapping(y *yaml.Node, depth int) (*node, error) {
	n := &node{kind: mapNode, line: y.Line, tag: y.Tag}
	seen := map[string]int{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode && k.Alias != nil {
			k = &yaml.Node{Kind: k.Alias.Kind, Tag: k.Alias.Tag, Value: k.Alias.Value, Line: k.Line}
		}
		if k.Kind != yaml.ScalarNode {
			return nil, &syntaxError{line: k.Line, msg: "a key must be text, not a mapping or a list"}
		}
		if k.Value == "<<" && (k.Tag == "!!merge" || k.Tag == "") {
			merges = append(merges, v)
			continue
		}
		if first, dup := seen[k.Value]; dup {
			return nil, &syntaxError{line: k.Line, msg: fmt.Sprintf("key %s is there twice (first on line %d)", quote(k.Value), first), advice: "keep one"}
		}
		seen[k.Value] = k.Line
		val, err := b.build(v, depth+1)
		if err != nil {
			return nil, err
		}
		n.entries = append(n.entries, entry{key: k.Value, line: k.Line, val: val})
	}
	for _, m := range merges {
		if err := b.merge(n, m, depth); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// merge adds the entries of "<<: *a" or "<<: [*a, *b]" that n does not have.
func (b *builder) merge(n *node, y *yaml.Node, depth int) error {
	m, err := b.build(y, depth)
	if err != nil {
		return err
	}
	parts := []*node{m}
	if m.kind == listNode {
		parts = m.items
	}
	for _, p := range parts {
		if p.kind != mapNode {
			return &syntaxError{line: y.Line, msg: "<< merges mappings, this is " + p.kind.String()}
		}
		for _, e := range p.entries {
			if n.entry(e.key) == nil {
				n.entries = append(n.entries, e)
			}
		}
	}
	return nil
}
