package agent

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

const gib = 1 << 30

func TestCollectingBeginsAboveHighAndEndsBelowLow(t *testing.T) {
	gc := ImageGC{High: 85, Low: 80}
	for _, c := range []struct {
		gc   ImageGC
		was  bool
		free int64
		want bool
	}{
		{gc, false, 20, false},
		{gc, false, 15, false},
		{gc, false, 14, true},
		{gc, true, 15, true},
		{gc, true, 20, true},
		{gc, true, 21, false},
		{ImageGC{}, true, 0, false},
		{ImageGC{Low: 80}, false, 0, false},
	} {
		if got := c.gc.collecting(c.was, DiskUse{Total: 100, Free: c.free}); got != c.want {
			t.Errorf("%+v, was %v, %d %% free: %v", c.gc, c.was, c.free, got)
		}
	}
	if gc.collecting(true, DiskUse{}) {
		t.Error("a disk of which nothing is known")
	}
}

func TestWhichImagesAreRemoved(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	old := now.Add(-48 * time.Hour)
	ours := []pulledImage{{Ref: "app:1", ID: "sha256:1", Digest: "app@sha256:d1", Used: old}}
	here := []cluster.Image{{ID: "sha256:1", Tags: []string{"app:1"}, Size: gib}}
	names := func(n ...string) map[string]bool {
		out := map[string]bool{}
		for _, x := range n {
			out[x] = true
		}
		return out
	}
	for name, c := range map[string]struct {
		change func(*unusedState)
		refs   []string // of the image that is removed; none: it is not
	}{
		"unused":                         {func(*unusedState) {}, []string{"app:1"}},
		"not ours":                       {func(s *unusedState) { s.Pulled = nil }, nil},
		"its name means another image":   {func(s *unusedState) { s.Images[0].ID = "sha256:2" }, nil},
		"a container's, by its ID":       {func(s *unusedState) { s.Busy = names("sha256:1") }, nil},
		"a container's, by its name":     {func(s *unusedState) { s.Busy = names("app:1") }, nil},
		"a placement's":                  {func(s *unusedState) { s.Named = names("app:1") }, nil},
		"a placement's, by its digest":   {func(s *unusedState) { s.Named = names("app@sha256:d1") }, nil},
		"a placement's that is pinned":   {func(s *unusedState) { s.Named = names("sha256:1") }, nil},
		"pinned to a digest":             {func(s *unusedState) { s.Named = names("sha256:d1") }, nil},
		"of another name":                {func(s *unusedState) { s.Named = names("app:2", "sha256:2") }, []string{"app:1"}},
		"a person's too":                 {func(s *unusedState) { s.Images[0].Tags = []string{"app:1", "mine:1"} }, nil},
		"used 59 minutes ago":            {func(s *unusedState) { s.Pulled[0].Used = now.Add(-59 * time.Minute) }, nil},
		"used an hour ago":               {func(s *unusedState) { s.Pulled[0].Used = now.Add(-time.Hour) }, []string{"app:1"}},
		"used in time to come":           {func(s *unusedState) { s.Pulled[0].Used = now.Add(time.Hour) }, nil},
		"refused just now":               {func(s *unusedState) { s.Refused = map[string]time.Time{"sha256:1": now.Add(-time.Minute)} }, nil},
		"refused long ago":               {func(s *unusedState) { s.Refused = map[string]time.Time{"sha256:1": old} }, []string{"app:1"}},
		"its tag has moved on":           {func(s *unusedState) { s.Images[0].Tags = nil; s.Named = names("app:1") }, []string{"app@sha256:d1"}},
		"no name and no digest":          {func(s *unusedState) { s.Images[0].Tags = nil; s.Pulled[0].Digest = "" }, nil},
		"enough room":                    {func(s *unusedState) { s.Disk.Free = 21 * gib }, nil},
		"by two names, both ours":        {func(s *unusedState) { s.also("app:latest", old) }, []string{"app:1", "app:latest"}},
		"by two names, one used":         {func(s *unusedState) { s.also("app:latest", old); s.Named = names("app:latest") }, nil},
		"by two names, one used of late": {func(s *unusedState) { s.also("app:latest", now) }, nil},
	} {
		s := unusedState{
			Now: now, GC: ImageGC{High: 85, Low: 80}, Disk: DiskUse{Total: 100 * gib, Free: 10 * gib}, Pulled: slices.Clone(ours), Images: slices.Clone(here),
		}
		c.change(&s)
		var got []string
		for _, u := range toRemove(s) {
			got = append(got, u.Refs...)
		}
		if d := cmp.Diff(c.refs, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// also gives the first image a further name that it was pulled by.
func (s *unusedState) also(ref string, used time.Time) {
	s.Pulled = append(s.Pulled, pulledImage{Ref: ref, ID: s.Images[0].ID, Used: used})
	s.Images[0].Tags = []string{ref, "app:1"}
}

// fullNode is an arbitrary node with images of all kinds.
func fullNode(t *rapid.T) unusedState {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	s := unusedState{
		Now: now, GC: ImageGC{High: 85, Low: 80}, Disk: DiskUse{Total: 100, Free: rapid.Int64Range(0, 25).Draw(t, "free")},
		Busy: map[string]bool{}, Named: map[string]bool{}, Refused: map[string]time.Time{},
	}
	for n := range rapid.IntRange(0, 12).Draw(t, "images") {
		i := cluster.Image{ID: fmt.Sprintf("sha256:%02d", n), Size: rapid.Int64Range(0, 6).Draw(t, "size")}
		p := pulledImage{
			Ref: fmt.Sprintf("app:%d", n), ID: i.ID, Digest: fmt.Sprintf("app@sha256:d%d", n),
			Used: now.Add(-time.Duration(rapid.IntRange(-30, 300).Draw(t, "minutes ago")) * time.Minute),
		}
		if rapid.Bool().Draw(t, "tagged") {
			i.Tags = append(i.Tags, p.Ref)
		}
		if rapid.IntRange(0, 4).Draw(t, "foreign") == 0 {
			i.Tags = append(i.Tags, fmt.Sprintf("mine:%d", n))
		}
		s.Images = append(s.Images, i)
		if rapid.IntRange(0, 4).Draw(t, "ours") > 0 {
			s.Pulled = append(s.Pulled, p)
		}
		all := append([]string{p.Ref}, p.names()...)
		for _, m := range []map[string]bool{s.Busy, s.Named} {
			if rapid.IntRange(0, 4).Draw(t, "used") == 0 {
				m[rapid.SampledFrom(all).Draw(t, "by")] = true
			}
		}
		if rapid.IntRange(0, 6).Draw(t, "refused") == 0 {
			s.Refused[i.ID] = now.Add(-time.Duration(rapid.IntRange(0, 120).Draw(t, "refused ago")) * time.Minute)
		}
	}
	return s
}

func TestOnlyUnusedImagesOfOursAreRemovedOldestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := fullNode(t)
		out := toRemove(s)
		free := s.Disk.Free
		removed := map[string]bool{}
		for n, u := range out {
			if s.Disk.Total-free < 80 {
				t.Fatalf("%s is removed although %d %% are free", u.ID, free)
			}
			free += u.Size
			removed[u.ID] = true
			i := s.Images[slices.IndexFunc(s.Images, func(x cluster.Image) bool { return x.ID == u.ID })]
			at := slices.IndexFunc(s.Pulled, func(p pulledImage) bool { return p.ID == u.ID })
			if at < 0 {
				t.Fatalf("%s is not ours", u.ID)
			}
			p := s.Pulled[at]
			if s.Now.Sub(p.Used) < time.Hour {
				t.Fatalf("%s was used at %s, now is %s", u.ID, p.Used, s.Now)
			}
			if n > 0 && out[n-1].Used.After(u.Used) {
				t.Fatalf("%s before %s, which was used earlier", out[n-1].ID, u.ID)
			}
			if slices.ContainsFunc(i.Tags, func(x string) bool { return x != p.Ref }) {
				t.Fatalf("%s has a name of somebody's: %v", u.ID, i.Tags)
			}
			for _, m := range []map[string]bool{s.Busy, s.Named} {
				if slices.ContainsFunc(p.names(), func(x string) bool { return m[x] }) || len(i.Tags) > 0 && m[p.Ref] {
					t.Fatalf("%s is in use", u.ID)
				}
			}
		}
		if s.Disk.Total-free < 80 {
			return
		}
		// Else everything that may go does, so that an image that stays has a reason.
		for _, p := range s.Pulled {
			i := s.Images[slices.IndexFunc(s.Images, func(x cluster.Image) bool { return x.ID == p.ID })]
			names := p.names()
			if len(i.Tags) > 0 {
				names = append(names, p.Ref)
			}
			used := slices.ContainsFunc(names, func(x string) bool { return s.Busy[x] || s.Named[x] })
			foreign := slices.ContainsFunc(i.Tags, func(x string) bool { return x != p.Ref })
			at, refused := s.Refused[p.ID]
			if !removed[p.ID] && !used && !foreign && s.Now.Sub(p.Used) >= time.Hour && (!refused || s.Now.Sub(at) >= time.Hour) {
				t.Fatalf("%s stays, though %d %% are free only", p.ID, free)
			}
		}
	})
}

// Neither the order of what is given matters, nor is any of it changed.
func TestToRemoveIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := fullNode(t)
		want := toRemove(s)
		was := fmt.Sprint(s)
		o := s
		o.Images = rapid.Permutation(s.Images).Draw(t, "images in another order")
		o.Named = maps.Clone(s.Named)
		if d := cmp.Diff(want, toRemove(o), cmp.AllowUnexported(unusedImage{})); d != "" {
			t.Fatal(d)
		}
		if fmt.Sprint(s) != was {
			t.Fatal("its input was changed")
		}
	})
}
