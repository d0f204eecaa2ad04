package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/fairlead/fairlead/api/plan"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// counted is a release with how often it was made: a delivery tries one that fails for ever,
// and would push all others out of history.
func (s *Server) counted(c current, next cluster.Release) cluster.Release {
	if next.Origin == nil || c.App == nil {
		return next
	}
	last, ok := s.release(c.app, next.Number-1)
	if !ok || !sameTry(last, next) {
		return next
	}
	failed := false
	s.Mirror.Read(func(v store.View) {
		a, _, err := store.One[cluster.App](v, store.AppKey(c.app))
		o, is, err2 := store.One[cluster.ReleaseOutcome](v, store.OutcomeKey(c.app, last.Number))
		failed = is && err == nil && err2 == nil && o.V.State == "failed" && o.V.Created == cluster.StoreRev(a.Created)
	})
	if failed {
		next.Tries, next.First = max(last.Tries, 1)+1, last.First
		if next.First.IsZero() {
			next.First = last.Created
		}
	}
	return next
}

// sameTry reports whether a delivery makes the same once more. What is counted up to make
// tasks anew is none of it.
func sameTry(a, b cluster.Release) bool {
	if a.Origin == nil || b.Origin == nil || a.Origin.Delivery != b.Origin.Delivery {
		return false
	}
	if by := (cluster.Delivery{Name: b.Origin.Delivery}).Actor(); a.By != by || b.By != by {
		return false // what a person restarts comes from there too
	}
	content := func(r cluster.Release) []byte {
		r.Number, r.Tries, r.Created, r.First = 0, 0, time.Time{}, time.Time{}
		r.Services = maps.Clone(r.Services)
		for n, spec := range r.Services {
			spec.Task.Generation = 0
			r.Services[n] = spec
		}
		b, _ := json.Marshal(r) // as it was written
		return b
	}
	return bytes.Equal(content(a), content(b))
}

// superseded takes the try before a release out of history, unless services that stay as they
// are came with it: theirs is the commit that they are traced to.
func (s *Server) superseded(c current, r plan.Result, next cluster.Release) []step {
	before := next.Number - 1
	if next.Tries < 2 {
		return nil
	}
	for _, n := range slices.Sorted(maps.Keys(c.Services)) {
		written := slices.ContainsFunc(r.Services, func(svc cluster.Service) bool { return svc.Name == n })
		if c.Services[n].Release == before && !written && !slices.Contains(r.Removed, n) {
			return nil
		}
	}
	var out []step
	s.Mirror.Read(func(v store.View) {
		if e, ok := v.Entry(store.ReleaseKey(c.app, before)); ok {
			out = append(out, remove(e.Key, e.Rev))
		}
	})
	return out
}
