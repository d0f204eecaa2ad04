package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxDepth bounds how deeply values are nested.
const maxDepth = 200

const metaKey = "sops"

// Open recognises a file; nil, nil: it is none of SOPS's. The name only tells a JSON
// file with the one key data from a binary one.
func Open(name string, content []byte) (*File, error) {
	ext := path.Ext(name)
	for _, f := range []struct {
		like  bool
		parse func([]byte) ([]branch, error)
		meta  func([]branch) branch
		emit  func([]branch, func(*Leaf) any) ([]byte, error)
	}{
		{bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")), parseJSON, takeNested, emitJSON},
		{hasLine(content, metaKey+":"), parseYAML, takeNested, emitYAML},
		{hasLine(content, "["+metaKey+"]"), parseINI, takeINI, emitINI},
		{hasLine(content, metaKey+"_"), parseDotenv, takeFlat, emitDotenv},
	} {
		if !f.like {
			continue
		}
		docs, err := f.parse(content)
		if err != nil || len(docs) == 0 {
			continue
		}
		meta := f.meta(docs)
		if !found(meta) {
			continue
		}
		out := &File{docs: docs, emit: f.emit}
		d := docs[0]
		if len(docs) == 1 && len(d) == 1 && d[0].key == "data" && ext != ".json" && ext != ".yaml" && ext != ".yml" && bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
			out.emit = emitBinary
		}
		out.meta, err = read(meta)
		return out, err
	}
	if bytes.Contains(content, []byte("ENC[AES256_GCM,data:")) {
		return nil, errors.New("it has values that SOPS encrypted, but is not a whole file of SOPS's: was it merged, or edited by hand?")
	}
	return nil, nil //nolint:nilnil // as said
}

// Guess reads a file in clear, all of whose values count as if they had been encrypted;
// nil: it has no values of their own.
func Guess(content []byte) *File {
	for _, f := range []struct {
		parse func([]byte) ([]branch, error)
		emit  func([]branch, func(*Leaf) any) ([]byte, error)
	}{{parseJSON, emitJSON}, {parseYAML, emitYAML}, {parseDotenv, emitDotenv}} {
		docs, err := f.parse(content)
		if err != nil || len(docs) == 0 || len(docs[0]) == 0 {
			continue
		}
		for _, doc := range docs {
			mark(doc, nil)
		}
		return &File{docs: docs, emit: f.emit}
	}
	return nil
}

func mark(v any, path []string) {
	switch v := v.(type) {
	case branch:
		for _, e := range v {
			mark(e.value, append(slices.Clone(path), e.key))
		}
	case []any:
		for _, e := range v {
			mark(e, path)
		}
	case *Leaf:
		v.Path, v.secret = path, v.Value != ""
	}
}

func hasLine(content []byte, start string) bool {
	return bytes.HasPrefix(content, []byte(start)) || bytes.Contains(content, []byte("\n"+start))
}

func takeNested(docs []branch) branch {
	m, _ := docs[0].get(metaKey).(branch)
	if found(m) {
		for i := range docs {
			docs[i] = slices.DeleteFunc(docs[i], func(e entry) bool { return e.key == metaKey })
		}
	}
	return m
}

func takeINI(docs []branch) branch {
	m := takeNested(docs)
	unescape(m)
	return m
}

func unescape(m branch) {
	for _, e := range m {
		if l, ok := e.value.(*Leaf); ok {
			if s, ok := l.Value.(string); ok {
				l.Value = strings.ReplaceAll(s, `\n`, "\n")
			}
		}
	}
}

func takeFlat(docs []branch) branch {
	var m, rest branch
	for _, e := range docs[0] {
		if key, ours := strings.CutPrefix(e.key, metaKey+"_"); ours {
			m = append(m, entry{key, e.value})
		} else {
			rest = append(rest, e)
		}
	}
	docs[0] = rest
	return m
}

var errDeep = errors.New("nested too deeply")

func parseYAML(content []byte) ([]branch, error) {
	var docs []branch
	for dec := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if len(n.Content) == 0 || n.Content[0].ShortTag() == "!!null" {
			docs = append(docs, branch{})
			continue
		}
		v, err := fromYAML(n.Content[0], 0)
		if err != nil {
			return nil, err
		}
		b, ok := v.(branch)
		if !ok {
			return nil, errors.New("no mapping")
		}
		docs = append(docs, b)
	}
}

func fromYAML(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	switch n.Kind {
	case yaml.MappingNode:
		b := branch{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if t := k.ShortTag(); k.Kind != yaml.ScalarNode || (t != "!!str" && t != "!!merge") {
				return nil, fmt.Errorf("line %d: a key that is no text", k.Line)
			}
			v, err := fromYAML(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			b = append(b, entry{k.Value, v})
		}
		return b, b.once()
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := fromYAML(c, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, fmt.Errorf("line %d: no value", n.Line)
		}
		if v == nil {
			return nil, nil //nolint:nilnil // null
		}
		return &Leaf{Value: v}, nil
	}
	return nil, fmt.Errorf("line %d: an alias, of which SOPS writes none", n.Line)
}

// once refuses a key that is there twice.
func (b branch) once() error {
	seen := make(map[string]bool, len(b))
	for _, e := range b {
		if seen[e.key] {
			return fmt.Errorf("the key %.100q is there twice", e.key)
		}
		seen[e.key] = true
	}
	return nil
}

func emitYAML(docs []branch, value func(*Leaf) any) ([]byte, error) {
	const indent = 4 // as SOPS does
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(indent)
	for _, d := range docs {
		n, err := toYAML(d, value)
		if err != nil {
			return nil, err
		}
		if err := enc.Encode(n); err != nil {
			return nil, err
		}
	}
	err := enc.Close()
	return out.Bytes(), err
}

func toYAML(v any, value func(*Leaf) any) (*yaml.Node, error) {
	n := &yaml.Node{}
	switch v := v.(type) {
	case branch:
		n.Kind = yaml.MappingNode
		for _, e := range v {
			k := &yaml.Node{}
			if err := k.Encode(e.key); err != nil {
				return nil, err
			}
			c, err := toYAML(e.value, value)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, k, c)
		}
	case []any:
		n.Kind = yaml.SequenceNode
		for _, e := range v {
			c, err := toYAML(e, value)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
	case *Leaf:
		return n, n.Encode(value(v))
	default:
		return n, n.Encode(nil)
	}
	return n, nil
}

func parseJSON(content []byte) ([]branch, error) {
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	v, err := fromJSON(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	b, ok := v.(branch)
	if !ok {
		return nil, errors.New("no object")
	}
	return []branch{b}, nil
}

func fromJSON(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		b := branch{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := fromJSON(dec, depth+1)
			if err != nil {
				return nil, err
			}
			b = append(b, entry{k.(string), v}) //nolint:forcetypeassert // the decoder gives no other key
		}
		_, err := dec.Token()
		return b, errors.Join(err, b.once())
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := fromJSON(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	case nil:
		return nil, nil //nolint:nilnil // null
	}
	if n, ok := t.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return &Leaf{Value: int(i)}, nil
		}
		f, err := n.Float64()
		return &Leaf{Value: f}, err
	}
	return &Leaf{Value: t}, nil
}

func emitJSON(docs []branch, value func(*Leaf) any) ([]byte, error) {
	var b, out bytes.Buffer
	if err := toJSON(&b, docs[0], value); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, b.Bytes(), "", "\t"); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}

func toJSON(b *bytes.Buffer, v any, value func(*Leaf) any) error {
	scalar := func(v any) error {
		s, err := json.Marshal(v)
		b.Write(s)
		return err
	}
	switch v := v.(type) {
	case branch:
		b.WriteByte('{')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := scalar(e.key); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := toJSON(b, e.value, value); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := toJSON(b, e, value); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case *Leaf:
		return scalar(value(v))
	default:
		b.WriteString("null")
	}
	return nil
}

func emitBinary(docs []branch, value func(*Leaf) any) ([]byte, error) {
	l, ok := docs[0][0].value.(*Leaf)
	if !ok {
		return nil, errors.New("a binary file without data")
	}
	return []byte(text(value(l))), nil
}

// text is a value as dotenv and INI files have it.
func text(v any) string {
	switch v := v.(type) {
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case time.Time:
		return v.Format(time.RFC3339)
	}
	return fmt.Sprint(v)
}

func parseDotenv(content []byte) ([]branch, error) {
	b := branch{}
	for line := range strings.SplitSeq(string(content), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok || k == "" {
			return nil, errors.New("a line that is not NAME=VALUE")
		}
		b = append(b, entry{k, &Leaf{Value: strings.ReplaceAll(v, `\n`, "\n")}})
	}
	return []branch{b}, b.once()
}

func emitDotenv(docs []branch, value func(*Leaf) any) ([]byte, error) {
	var out bytes.Buffer
	for _, e := range docs[0] {
		if l, ok := e.value.(*Leaf); ok {
			fmt.Fprintf(&out, "%s=%s\n", e.key, strings.ReplaceAll(text(value(l)), "\n", `\n`))
		}
	}
	return out.Bytes(), nil
}

// noSection is where keys before the first section are.
const noSection = "DEFAULT"

func parseINI(content []byte) ([]branch, error) {
	top, section := branch{{noSection, branch{}}}, 0
	for line := range strings.SplitSeq(string(content), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			name := strings.TrimSpace(strings.Trim(line, "[]"))
			if section = slices.IndexFunc(top, func(e entry) bool { return e.key == name }); section < 0 {
				top, section = append(top, entry{name, branch{}}), len(top)
			}
			continue
		}
		i := strings.IndexAny(line, "=:")
		b, _ := top[section].value.(branch)
		if i < 1 || strings.ContainsAny(line[:1], "\"`") {
			return nil, errors.New("a line that is not NAME = VALUE")
		}
		k := strings.TrimSpace(line[:i])
		v, err := iniValue(strings.TrimSpace(line[i+1:]))
		if err != nil {
			return nil, errors.New("a value over several lines")
		}
		top[section].value = append(b, entry{k, &Leaf{Value: v}})
	}
	for _, s := range top {
		if err := s.value.(branch).once(); err != nil { //nolint:forcetypeassert // as they were made above
			return nil, err
		}
	}
	return []branch{top}, nil
}

func iniValue(v string) (string, error) {
	for _, q := range []string{`"""`, "`", `"`, "'"} {
		if rest, quoted := strings.CutPrefix(v, q); quoted {
			inner, closed := strings.CutSuffix(rest, q)
			if !closed {
				return "", errors.New("not closed")
			}
			return inner, nil
		}
	}
	if i := strings.IndexAny(v, "#;"); i >= 0 {
		v = strings.TrimSpace(v[:i])
	}
	return v, nil
}

func emitINI(docs []branch, value func(*Leaf) any) ([]byte, error) {
	var out bytes.Buffer
	for _, s := range docs[0] {
		keys, _ := s.value.(branch)
		if len(keys) == 0 && s.key == noSection {
			continue
		}
		fmt.Fprintf(&out, "[%s]\n", s.key)
		for _, e := range keys {
			l, ok := e.value.(*Leaf)
			if !ok {
				continue
			}
			v := text(value(l))
			switch {
			case strings.ContainsAny(v, "\n`"):
				v = `"""` + v + `"""`
			case strings.ContainsAny(v, "#;"):
				v = "`" + v + "`"
			case strings.TrimSpace(v) != v:
				v = `"` + v + `"`
			}
			fmt.Fprintf(&out, "%s = %s\n", e.key, v)
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}
