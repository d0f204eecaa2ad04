package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// secrets decides which values are made and returns the version each name will have.
func (r *Result) secrets(s State, in Input) map[string]int {
	versions, was := map[string]int{}, named(in)
	for _, name := range slices.Sorted(maps.Keys(in.Bundle.Secrets)) {
		decl := in.Bundle.Secrets[name]
		rec, known := s.Secrets[name]
		next := rec.Version + 1
		if !known && s.App != nil {
			next = s.App.SecretVersions[name] + 1
		}
		src := decl.Source
		switch {
		case len(decl.Value) > 0 && (!known || !s.Same[name]):
			versions[name] = next
			r.Secrets = append(r.Secrets, NewSecret{Name: name, Version: next, Value: decl.Value})
			r.change(v1.Change{Action: v1.ActionSet, Object: v1.ObjectSecret, Name: name, Source: src})
		case decl.Vault != "" && decl.Vault != rec.Ref:
			versions[name] = next
			r.Secrets = append(r.Secrets, NewSecret{Name: name, Version: next, Vault: decl.Vault})
			r.change(v1.Change{Action: v1.ActionSet, Object: v1.ObjectSecret, Name: name, Source: src, Reason: "from Vault, " + decl.Vault})
		case known && rec.Release > 0 && was[name] > 0 && was[name] != rec.Version && was[name] != rec.Of:
			// A later release brought the value: it goes back with it.
			versions[name] = rec.Version
			if _, kept := rec.At(was[name]); !kept {
				r.warn(src, "secrets."+name, "the value that secret %s/%s had then (version %d) is no longer kept: it stays as it is", in.App, name, was[name])
				break
			}
			versions[name] = next
			r.Secrets = append(r.Secrets, NewSecret{Name: name, Version: next, Of: was[name]})
			r.change(v1.Change{Action: v1.ActionSet, Object: v1.ObjectSecret, Name: name, Source: src, Reason: fmt.Sprintf("as in version %d", was[name])})
		case known:
			versions[name] = rec.Version
		case decl.Generate > 0:
			versions[name] = next
			r.Secrets = append(r.Secrets, NewSecret{Name: name, Version: next, Generate: decl.Generate})
			r.change(v1.Change{
				Action: v1.ActionGenerate, Object: v1.ObjectSecret, Name: name, Source: src,
				Reason: fmt.Sprintf("%d characters", decl.Generate),
			})
		default:
			// The version that setting it will make: the waiting tasks are then right as they are.
			versions[name] = next
			r.warn(src, "secrets."+name, "secret %s/%s is not set: tasks that use it wait; set it with `fairlead secret set %s/%s`",
				in.App, name, in.App, name)
		}
	}
	return versions
}

// named returns the versions of secrets that a release of the past was made with.
func named(in Input) map[string]int {
	out := map[string]int{}
	if !in.Exact {
		return out
	}
	note := func(refs []cluster.FileRef) {
		for _, f := range refs {
			if n, err := strconv.Atoi(f.Version); err == nil {
				out[f.Name] = max(out[f.Name], n)
			}
		}
	}
	for _, s := range in.Bundle.Services {
		note(s.Task.Secrets)
	}
	for _, h := range in.Bundle.Hooks {
		note(h.Spec.Task.Secrets)
	}
	return out
}
