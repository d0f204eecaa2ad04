package sops

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
