package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// hidden are the paths whose values a plan does not show: people keep passwords there.
var hidden = regexp.MustCompile(`(?i)^task\.env\.|passw|secret|token|credential|auth|apikey|api_key|/users`)

// Diff lists the fields that differ, sorted by path. Where things stand in the
// user's file does not count.
func Diff(old, now cluster.ServiceSpec) []v1.FieldChange {
	a, b := flatten(old), flatten(now)
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []v1.FieldChange
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if a[path] == b[path] {
			continue
		}
		c := v1.FieldChange{Path: path, Old: a[path], New: b[path]}
		if hidden.MatchString(path) {
			c.Old, c.New = hide(c.Old), hide(c.New)
		}
		out = append(out, c)
	}
	return out
}

// Alike reports whether going from one release to the other would change
// anything: how often tasks were replaced by a restart is no part of that, nor
// are versions of secrets, of which a release always gets the present ones.
func Alike(a, b map[cluster.ServiceName]cluster.ServiceSpec) bool {
	return maps.EqualFunc(a, b, AlikeService)
}

// AlikeService is Alike of one service.
func AlikeService(a, b cluster.ServiceSpec) bool { return len(Diff(timeless(a), timeless(b))) == 0 }

func timeless(s cluster.ServiceSpec) cluster.ServiceSpec {
	s.Task.Generation = 0
	s.Task.Secrets = slices.Clone(s.Task.Secrets)
	for i := range s.Task.Secrets {
		s.Task.Secrets[i].Version = ""
	}
	return s
}

func hide(v string) string {
	if v == "" {
		return ""
	}
	return "(hidden)"
}

// flatten makes a spec into path → value; what is empty is left out.
func flatten(s cluster.ServiceSpec) map[string]string {
	out := map[string]string{}
	b, err := json.Marshal(s)
	if err != nil {
		return out // only plain data: cannot happen
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return out
	}
	walk("", tree, out)
	return out
}

func walk(path string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			p := k
			if path != "" {
				p = path + "." + k
			}
			if isSource(p, e) {
				continue
			}
			walk(p, e, out)
		}
		if len(v) == 0 {
			out[path] = "{}"
		}
	case []any:
		for i, e := range v {
			walk(fmt.Sprintf("%s[%d]", path, i), e, out)
		}
		if len(v) == 0 {
			out[path] = "[]"
		}
	case string:
		out[path] = quoteEmpty(v)
	case nil:
	default:
		out[path] = fmt.Sprint(v)
	}
}

// quoteEmpty keeps "set to nothing" apart from "not set".
func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

var sourcePath = regexp.MustCompile(`^(source|routes\[\d+\]\.source|ports\[\d+\]\.source|task\.node_ports\[\d+\]\.source)$`)

func isSource(path string, v any) bool {
	_, object := v.(map[string]any)
	return object && sourcePath.MatchString(path)
}

func sameSources(a, b cluster.ServiceSpec) bool {
	return slices.Equal(sources(a), sources(b))
}

func sources(s cluster.ServiceSpec) []cluster.Source {
	out := []cluster.Source{s.Source}
	for _, r := range s.Routes {
		out = append(out, r.Source)
	}
	for _, p := range s.Ports {
		out = append(out, p.Source)
	}
	return out
}
