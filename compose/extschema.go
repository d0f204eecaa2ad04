package compose

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// extensionTypes are the roots of the x-fairlead schema.
func extensionTypes() map[string]reflect.Type {
	return map[string]reflect.Type{
		"app":     reflect.TypeFor[appExtension](),
		"service": reflect.TypeFor[serviceExtension](),
		"secret":  reflect.TypeFor[secretExtension](),
	}
}

// PublishedSchema is the JSON Schema of x-fairlead as it is written, with variables where
// a value may be; docs/schema/x-fairlead.json is a copy.
func PublishedSchema() ([]byte, error) {
	s, err := valueSchema()
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(withVariables(s), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("x-fairlead schema: %w", err)
	}
	return append(b, '\n'), nil
}

// withVariables also takes a text with a variable where a schema wants a number, a
// boolean, or a text of some form.
func withVariables(s map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range s {
		m, isMap := v.(map[string]any)
		switch {
		case k == "properties" || k == "$defs":
			each := map[string]any{}
			for name, x := range m {
				each[name] = withVariables(x.(map[string]any)) //nolint:forcetypeassert // as schemaOf makes them
			}
			v = each
		case isMap:
			v = withVariables(m)
		}
		out[k] = v
	}
	_, formed := out["pattern"]
	_, listed := out["enum"]
	switch kind, _ := out["type"].(string); {
	case out["type"] == nil, out["properties"] != nil, kind == "object", kind == "array", kind == "string" && !formed && !listed:
		return out
	}
	either := map[string]any{"anyOf": []any{out, map[string]any{"type": "string", "pattern": `\$`}}}
	if about, ok := out["description"]; ok {
		either["description"] = about
		delete(out, "description")
	}
	return either
}

// valueSchema is the JSON Schema of x-fairlead once variables have their values, made
// from the Go types that read it.
func valueSchema() (map[string]any, error) {
	defs := map[string]any{}
	for name, t := range extensionTypes() {
		d, err := schemaOf(t)
		if err != nil {
			return nil, err
		}
		d["title"] = "x-fairlead of the " + name
		defs[name] = d
	}
	return map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         "https://fairlead.dev/schema/x-fairlead.json",
		"title":       "x-fairlead",
		"description": "What Fairlead reads in Compose files beyond the Compose specification. Each place has a definition of its own.",
		"$defs":       defs,
		"type":        "object",
		"properties": map[string]any{
			"x-fairlead": map[string]any{"$ref": "#/$defs/app"},
			"services":   placed("service"),
			"secrets":    placed("secret"),
		},
	}, nil
}

func placed(part string) map[string]any {
	return map[string]any{"type": "object", "additionalProperties": map[string]any{
		"type": []string{"object", "null"}, "properties": map[string]any{"x-fairlead": map[string]any{"$ref": "#/$defs/" + part}},
	}}
}

// schemaOf describes one Go type.
func schemaOf(t reflect.Type) (map[string]any, error) {
	switch t {
	case reflect.TypeFor[percent]():
		return map[string]any{"type": []string{"integer", "string"}, "pattern": "^[0-9]+%?$", "minimum": 1, "maximum": 1000}, nil
	case reflect.TypeFor[words]():
		return map[string]any{"type": []string{"array", "string"}, "items": map[string]any{"type": "string"}}, nil
	case reflect.TypeFor[seconds]():
		return map[string]any{"type": "string", "pattern": "^([0-9.]+(ns|us|ms|s|m|h))+$"}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.String:
		return map[string]any{"type": "string"}, nil
	case reflect.Int:
		return map[string]any{"type": "integer"}, nil
	case reflect.Bool:
		return map[string]any{"type": "boolean"}, nil
	case reflect.Slice:
		items, err := schemaOf(t.Elem())
		return map[string]any{"type": "array", "items": items}, err
	case reflect.Map:
		values, err := schemaOf(t.Elem())
		return map[string]any{"type": "object", "additionalProperties": values}, err
	case reflect.Struct:
		return schemaOfStruct(t)
	default:
		return nil, fmt.Errorf("x-fairlead schema: no description of %s", t)
	}
}

func schemaOfStruct(t reflect.Type) (map[string]any, error) {
	props := map[string]any{}
	var required []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		p, err := schemaOf(f.Type)
		if err != nil {
			return nil, err
		}
		p["description"] = f.Tag.Get("doc")
		for rule := range strings.SplitSeq(f.Tag.Get("schema"), ",") {
			k, v, _ := strings.Cut(rule, "=")
			if k == "" {
				continue
			}
			if k == "required" {
				required = append(required, name)
			} else if n, err := strconv.Atoi(v); err == nil {
				p[k] = n
			} else {
				p[k] = v
			}
		}
		props[name] = p
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if required != nil {
		out["required"] = required
	}
	return out, nil
}

// extensionKeys reports unknown keys of an x-fairlead, with what was meant.
func (l *load) extensionKeys(d *doc, n *node, part string, path []string) {
	l.structKeys(d, n, extensionTypes()[part], path)
}

func (l *load) structKeys(d *doc, n *node, t reflect.Type, path []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice && n.kind == listNode:
		for i, it := range n.items {
			l.structKeys(d, it, t.Elem(), append(slices.Clip(path), "["+strconv.Itoa(i)+"]"))
		}
	case t.Kind() == reflect.Struct && n.kind == mapNode:
		fields := map[string]reflect.Type{}
		var names []string
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields[name] = f.Type
			names = append(names, name)
		}
		for _, e := range n.entries {
			p := append(slices.Clip(path), e.key)
			ft, known := fields[e.key]
			if !known {
				l.refuse(cluster.Source{File: d.file, Line: e.line}, dotted(p...), "unknown key", didYouMean(e.key, names))
				e.val.bad = true
				continue
			}
			l.structKeys(d, e.val, ft, p)
		}
	case n.kind == scalarNode && (n.tag == "!!str" || n.raw != n.value):
		switch v := castText(n.value, t).(type) {
		case int:
			n.value, n.cast = strconv.Itoa(v), "!!int"
		case bool:
			n.value, n.cast = strconv.FormatBool(v), "!!bool"
		}
	}
}

// castText makes numbers and booleans of the texts in x where t has them, as
// compose-go does for the keys it knows: what a variable brought is a text.
// Another text stays, for the schema to refuse.
func castText(x any, t reflect.Type) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := x.(type) {
	case string:
		n, notNumber := strconv.Atoi(v)
		switch {
		case t == reflect.TypeFor[int]() && notNumber == nil:
			return n
		case t == reflect.TypeFor[bool]() && (strings.EqualFold(v, "true") || strings.EqualFold(v, "false")):
			return strings.EqualFold(v, "true")
		}
	case []any:
		for i := range v {
			if t.Kind() == reflect.Slice {
				v[i] = castText(v[i], t.Elem())
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return x
		}
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if item, there := v[name]; there {
				v[name] = castText(item, f.Type)
			}
		}
	}
	return x
}
