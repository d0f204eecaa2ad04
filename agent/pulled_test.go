package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func names(p *pulledImages) []string {
	var out []string
	for _, i := range p.all() {
		out = append(out, i.Ref+"="+i.ID)
	}
	return out
}

func TestOnlyWhatAPullBroughtIsOurs(t *testing.T) {
	p := newPulledImages(t.TempDir())
	add := func(ref, id string, before ...string) {
		m := map[string]bool{}
		for _, x := range before {
			m[x] = true
		}
		p.add(pulledImage{Ref: ref, ID: id, Used: noon}, m, noon)
	}
	add("app:1", "1")
	add("mine:1", "0", "0", "1")     // it was there before
	add("app:2", "2", "0", "1")      // it was not
	add("app:latest", "1", "1", "2") // a second name of one of ours
	add("app:2", "3", "1", "2")      // the name has moved on
	if d := cmp.Diff([]string{"app:1=1", "app:2=2", "app:latest=1", "app:2=3"}, names(p)); d != "" {
		t.Error(d)
	}
	p.add(pulledImage{Ref: "app:4", ID: "4", Used: noon}, map[string]bool{"2": true}, noon.Add(time.Minute))
	if d := cmp.Diff([]string{"app:2=2", "app:4=4"}, names(p)); d != "" {
		t.Error("what somebody removed stays: ", d)
	}
	for i := range maxPulled {
		p.add(pulledImage{Ref: fmt.Sprint("x:", i), ID: fmt.Sprint("x", i), Used: noon}, nil, noon)
	}
	if got := p.all(); len(got) != maxPulled || got[0].Ref != "x:0" {
		t.Errorf("%d, the first %v", len(got), got[0])
	}
}

func TestUseIsOfWhatANameMeansNow(t *testing.T) {
	p := newPulledImages(t.TempDir())
	old := noon.Add(-time.Hour)
	p.list = []pulledImage{
		{Ref: "app:latest", ID: "1", Used: old},
		{Ref: "app:latest", ID: "2", Used: old},
		{Ref: "b:1", ID: "3", Digest: "b@sha256:3", Used: old},
		{Ref: "c:1", ID: "4", Used: old},
		{Ref: "d:1", ID: "5", Used: noon.Add(time.Hour)},
	}
	p.touch(map[string]bool{"app:latest": true, "b@sha256:3": true}, noon)
	for i, used := range []time.Time{old, noon, noon, old, noon} {
		if got := p.list[i].Used; !got.Equal(used) {
			t.Errorf("%s: used at %s", p.list[i].ID, got)
		}
	}
}

func TestTheRecordOnDisk(t *testing.T) {
	dir := t.TempDir()
	p := newPulledImages(dir)
	save := func(p *pulledImages, now time.Time, atOnce bool) {
		t.Helper()
		if err := p.save(now, atOnce); err != nil {
			t.Fatal(err)
		}
	}
	p.add(pulledImage{Ref: "old:1", ID: "1", Used: noon.Add(-time.Hour)}, map[string]bool{}, noon.Add(-time.Hour))
	p.add(pulledImage{Ref: "app:1", ID: "2", Used: noon}, map[string]bool{"1": true}, noon)
	save(p, noon, false)
	file := filepath.Join(dir, "images.json")
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := read()
	p.touch(map[string]bool{"app:1": true}, noon.Add(time.Minute))
	save(p, noon.Add(time.Minute), false)
	if read() != first {
		t.Error("use alone was written at once")
	}
	again := newPulledImages(dir)
	if err := again.load(noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	// What was in use when it was written may have been so until it would have been written next.
	if l := again.all(); len(l) != 2 || !l[0].Used.Equal(noon.Add(-time.Hour)) || !l[1].Used.Equal(noon.Add(usedGap)) {
		t.Errorf("%+v", l)
	}
	save(p, noon.Add(usedGap), false)
	if read() == first {
		t.Error("use was not written after its time")
	}
	p.touch(map[string]bool{"app:1": true}, noon.Add(usedGap+time.Minute))
	second := read()
	save(p, noon.Add(usedGap+time.Minute), true)
	if read() == second {
		t.Error("use was not written at the end")
	}
	for _, bad := range []string{"", "{", `{"version":2,"images":[{"ref":"a:1","id":"1"}]}`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		again := newPulledImages(dir)
		if err := again.load(noon); err == nil || len(again.all()) > 0 {
			t.Errorf("%q: %v, %v", bad, err, again.all())
		}
	}
	if err := newPulledImages(t.TempDir()).load(noon); err != nil {
		t.Errorf("no file: %v", err)
	}
	away := newPulledImages(filepath.Join(dir, "none"))
	away.add(pulledImage{Ref: "app:1", ID: "2"}, map[string]bool{}, noon)
	if err := away.save(noon, false); err == nil || !away.changed {
		t.Errorf("a record that cannot be written: %v, to be written again %v", err, away.changed)
	}
}
