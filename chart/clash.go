package chart

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/compose"
)

// made is something that a chart makes, and where it says so.
type made struct {
	chart, file string
	line        int
	// outside is what it is called where it is, when the chart but names it (external: true).
	outside string
}

// Clashes refuses what two charts make under one name, neither of which is a part of the
// other: merged, it would be one thing, two databases on one volume. A chart may change
// what those within it make. The error is *compose.Problems.
func (r *Rendered) Clashes() error {
	var list []compose.Problem
	all := map[string][]made{}
	for _, file := range r.Documents() {
		for _, d := range mappings([]byte(r.Files[file])) {
			things(d, func(path string, m made) {
				m.chart, m.file = chartOf(file), file
				before := all[path]
				if slices.ContainsFunc(before, func(b made) bool { return b.chart == m.chart }) {
					return
				}
				all[path] = append(before, m)
				if i := slices.IndexFunc(before, m.clashes); i >= 0 {
					list = append(list, clash(path, before[i], m))
				}
			})
		}
	}
	if list == nil {
		return nil
	}
	return &compose.Problems{List: list}
}

func (m made) clashes(b made) bool {
	same := m.outside != "" && m.outside == b.outside
	return !same && !within(m.chart, b.chart) && !within(b.chart, m.chart)
}

func clash(path string, a, b made) compose.Problem {
	return compose.Problem{
		File: b.file, Line: b.line, Path: path,
		Message: fmt.Sprintf("%s makes one too, at %s:%d, and the two would become one", a.chart, a.file, a.line),
		Advice:  "let each chart name it after itself where it is a part of another: {{ if .Chart.IsRoot }}NAME{{ else }}{{ .Chart.Name }}{{ end }} (where it has an alias, that is its name)",
	}
}

// things calls f with what a document makes, by its path, "services.web".
func things(document *yaml.Node, f func(path string, m made)) {
	entries(document, map[*yaml.Node]bool{}, func(section, body *yaml.Node) {
		switch section.Value {
		case "services", "volumes", "secrets", "configs", "networks":
		default:
			return
		}
		entries(body, map[*yaml.Node]bool{}, func(key, val *yaml.Node) {
			name := strings.Trim(fmt.Sprintf("%.100q", key.Value), `"`)
			f(section.Value+"."+name, made{line: key.Line, outside: outside(section.Value, key, val)})
		})
	})
}

// outside is the name of what a chart says to be there already, or "".
func outside(section string, key, val *yaml.Node) string {
	external, generated, name := false, false, key.Value
	entries(val, map[*yaml.Node]bool{}, func(k, v *yaml.Node) {
		switch k.Value {
		case "external":
			external = v.Kind == yaml.MappingNode || v.Value == "true"
			entries(v, map[*yaml.Node]bool{}, func(k, v *yaml.Node) { // an old way to write the name
				if k.Value == "name" {
					name = v.Value
				}
			})
		case "name":
			name = v.Value
		case "x-fairlead":
			generated = true // a secret that the chart lets be made up
		}
	})
	if !external || generated || section == "services" {
		return ""
	}
	return name
}

// entries calls f with the keys of a mapping and their values, those of merges too.
// What is in seen was.
func entries(n *yaml.Node, seen map[*yaml.Node]bool, f func(key, val *yaml.Node)) {
	n = aliased(n)
	if seen[n] {
		return
	}
	seen[n] = true
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := aliased(n.Content[i]), aliased(n.Content[i+1])
		switch {
		case key.ShortTag() != "!!merge":
			f(key, val)
		case val.Kind == yaml.SequenceNode:
			for _, m := range val.Content {
				entries(m, seen, f)
			}
		default:
			entries(val, seen, f)
		}
	}
}

func aliased(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// chartOf is the chart whose template makes a file: "shop/charts/db" of
// "shop/charts/db/templates/app.yaml".
func chartOf(file string) string {
	parts := strings.Split(file, "/")
	i := 1
	for i+1 < len(parts) && parts[i] == "charts" {
		i += 2
	}
	return strings.Join(parts[:min(i, len(parts))], "/")
}

// within reports whether a chart is another, or a part of it.
func within(part, whole string) bool { return part == whole || strings.HasPrefix(part, whole+"/") }
