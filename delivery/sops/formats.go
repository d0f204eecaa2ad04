package sops

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"
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
