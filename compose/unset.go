package compose

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"

	"github.com/fairlead/fairlead/cluster"
)

// warnUnset warns of the variables of a text that are read as empty.
func (l *load) warnUnset(at cluster.Source, path, raw string, lookup template.Mapping) {
	names := unset(raw, lookup)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		l.warn(at, path, fmt.Sprintf("the variable %s is not set: it is read as empty", name), fmt.Sprintf("set it, or write ${%s:-default}; a dollar sign itself is written $$", name))
	}
}

var (
	nameRE  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
	assigns = regexp.MustCompile(`^\s*(?:export\s+)?([^\s=:#'"]+)\s*[=:]\s*(.*)$`)
)

// unset lists the variables that a text asks for without a default, and that
// have no value: those of a default only where it is used.
func unset(raw string, lookup template.Mapping) (names []string) {
	for {
		_, after, found := strings.Cut(raw, "$")
		if !found {
			return names
		}
		raw = after
		inner, braced := strings.CutPrefix(after, "{")
		name := nameRE.FindString(inner)
		switch {
		case strings.HasPrefix(after, "$"):
			raw = after[1:]
			continue
		case name == "":
			continue // refused, if it is not text
		}
		value, set := lookup(name)
		op := inner[len(name):]
		if !braced || strings.HasPrefix(op, "}") {
			raw = op
			if !set {
				names = append(names, name)
			}
			continue
		}
		end := closing(op)
		op, raw = op[:end], op[end:]
		kind := strings.TrimPrefix(op, ":")
		full := set && (kind == op || value != "") // with the colon, empty is as good as unset
		if (strings.HasPrefix(kind, "-") && !full) || (strings.HasPrefix(kind, "+") && full) {
			names = append(names, unset(kind[1:], lookup)...)
		}
	}
}

// closing is the index of the brace that ends what was opened before s.
func closing(s string) int {
	depth := 1
	for i, r := range s {
		switch r {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

// warnUnsetIn does so for the values of an env file, which are interpolated with
// what is known outside and what stands above. One that cannot be read is refused elsewhere.
func (l *load) warnUnsetIn(file, path string, known map[string]string) {
	b, err := readLimited(file, maxFileSize)
	if err != nil {
		return
	}
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	above := map[string]bool{}
	lookup := func(name string) (string, bool) {
		v, set := known[name]
		return v, set || above[name]
	}
	open := byte(0) // the quote of a value that goes on
	for i, line := range strings.Split(string(b), "\n") {
		name, value := "", line
		if open == 0 {
			m := assigns.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			name, value = m[1], m[2]
			if value != "" && (value[0] == '\'' || value[0] == '"') {
				open, value = value[0], value[1:]
			} else {
				value, _, _ = strings.Cut(value, " #")
			}
		}
		literal := open == '\''
		if open != 0 {
			if j := quoteEnd(value, open); j >= 0 {
				value, open = value[:j], 0
			}
		}
		if !literal {
			l.warnUnset(cluster.Source{File: l.show(file), Line: i + 1}, path, strings.ReplaceAll(value, `\$`, ""), lookup)
		}
		above[name] = true
	}
}

// quoteEnd is the index of the first quote that no backslash escapes, or -1.
func quoteEnd(s string, quote byte) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case quote:
			return i
		}
	}
	return -1
}
