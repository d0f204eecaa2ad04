package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

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
