package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// TestWhatNobodyCanGoBackToIsDeleted: each release brings a config of its own.
func TestWhatNobodyCanGoBackToIsDeleted(t *testing.T) {
	b := newBench(t)
	deploy := func(n int) {
		spec := service("web:1")
		spec.Task.Configs = []cluster.FileRef{{Name: "conf", Target: "/conf"}}
		bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
		bun.Configs = map[string][]byte{"conf": fmt.Appendf(nil, "%d", n)}
		deployed(t, b, bun)
	}
	configOf := func(n int) string {
		f := get[cluster.Release](b, store.ReleaseKey("shop", n)).Services["web"].Task.Configs[0]
		return store.ConfigKey("shop", f.Name, f.Version)
	}
	own := store.AppPrefix("shop")
	var held []string // by a task, a rollout's way back, nobody
	for n := 1; n <= cluster.KeptReleases; n++ {
		deploy(n)
		if n <= 3 {
			held = append(held, configOf(n))
		}
		switch n {
		case 1:
			svc := get[cluster.Service](b, store.ServiceKey(webID))
			id := cluster.NewTaskID(webID, 1, 1, 1, "")
			b.put(store.TaskKey("shop", id), cluster.Task{ID: id, ServiceID: webID, Slot: 1, Spec: svc.Spec.Task, Desire: cluster.DesireRun})
		case 2:
			svc := get[cluster.Service](b, store.ServiceKey(webID))
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Stable: &svc.Spec.Task})
		}
	}
	if r, c := len(b.keys(own+"releases/")), len(b.keys(own+"config/")); r != cluster.KeptReleases || c != cluster.KeptReleases {
		t.Fatalf("%d releases and %d configs, all can be gone back to", r, c)
	}
	for n := 1; n <= 3; n++ {
		deploy(cluster.KeptReleases + n)
	}
	releases, configs := b.keys(own+"releases/"), b.keys(own+"config/")
	if len(releases) != cluster.KeptReleases || !strings.HasSuffix(releases[0], "00000004") {
		t.Errorf("%d releases from %s", len(releases), releases[0])
	}
	// The third release's config went with it; a task and a rollout still need the first two.
	if len(configs) != cluster.KeptReleases+2 || !slices.Contains(configs, held[0]) || !slices.Contains(configs, held[1]) || slices.Contains(configs, held[2]) {
		t.Errorf("%d configs: %v; held %v", len(configs), configs, held)
	}
	for n := 4; n <= cluster.KeptReleases+3; n++ {
		if !slices.Contains(configs, configOf(n)) {
			t.Errorf("release %d lost its config", n)
		}
	}
}

// TestReleasesToGoBackToAreKept: a delivery that tries a commit for ever makes a release each
// time, and those that worked stay.
func TestReleasesToGoBackToAreKept(t *testing.T) {
	b := newBench(t)
	deploy := func(n int) {
		spec := service("web:1")
		spec.Task.Configs = []cluster.FileRef{{Name: "conf", Target: "/conf"}}
		bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
		bun.Configs = map[string][]byte{"conf": fmt.Appendf(nil, "%d", n)}
		deployed(t, b, bun)
	}
	deploy(1)
	app, err := b.store.Get(t.Context(), store.AppKey("shop"))
	if err != nil {
		t.Fatal(err)
	}
	became := func(n int, state string, created int64) {
		b.put(store.OutcomeKey("shop", n), cluster.ReleaseOutcome{App: "shop", Number: n, State: state, Created: cluster.StoreRev(created)})
	}
	const worked = "complete"
	for n, state := range []string{1: worked, 2: "failed", 3: worked, 4: worked, 5: worked, 6: "failed", 7: "failed"} {
		if n > 1 {
			deploy(n)
		}
		if n > 0 {
			became(n, state, app.Created)
		}
	}
	became(6, worked, app.Created-1) // of an app of the same name that is gone
	d, err := b.SetDelivery(t.Context(), "shop", fromGit("shop"))
	if err != nil {
		t.Fatal(err)
	}
	d.Rev = b.rev(store.DeliveryKey("shop"))
	b.put(store.DeliveryStateKey("shop"), cluster.DeliveryState{Name: "shop", Good: &cluster.Applied{Release: 2}})
	for n := 8; n <= cluster.KeptReleases+20; n++ {
		deploy(n)
	}
	var early []string
	releases := b.keys(store.AppPrefix("shop") + "releases/")
	for _, k := range releases[:len(releases)-cluster.KeptReleases] {
		early = append(early, strings.TrimLeft(k[strings.LastIndex(k, "/")+1:], "0"))
	}
	if fmt.Sprint(early) != "[2 3 4 5]" {
		t.Errorf("kept beside the newest %d: %v", cluster.KeptReleases, early)
	}
	if n := len(b.keys(store.AppPrefix("shop") + "config/")); n != cluster.KeptReleases+4 {
		t.Errorf("%d configs", n)
	}
	for _, n := range []int{2, 3} {
		r, err := b.srv.TakeBack(t.Context(), d.Delivery, goodAt(n))
		conf := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task.Configs[0]
		if content := get[cluster.Config](b, store.ConfigKey("shop", "conf", conf.Version)).Content; err != nil || !r.Changed || string(content) != fmt.Sprint(n) {
			t.Errorf("back at %d: changed %v, %q, %v", n, r.Changed, content, err)
		}
	}
}

// What is old goes from behind one that is kept, also where no config is looked for.
func TestOldReleasesGoFromBehindOneThatIsKept(t *testing.T) {
	b := newBench(t)
	for n := 1; n <= cluster.KeptReleases+5; n++ {
		deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(fmt.Sprintf("web:%d", n))}))
		if n == 1 {
			app, err := b.store.Get(t.Context(), store.AppKey("shop"))
			if err != nil {
				t.Fatal(err)
			}
			b.put(store.OutcomeKey("shop", 1), cluster.ReleaseOutcome{App: "shop", Number: 1, State: "complete", Created: cluster.StoreRev(app.Created)})
		}
	}
	releases := b.keys(store.AppPrefix("shop") + "releases/")
	if len(releases) != cluster.KeptReleases+1 || !strings.HasSuffix(releases[0], "00000001") || !strings.HasSuffix(releases[1], "00000006") {
		t.Errorf("%d releases: %v", len(releases), releases[:3])
	}
}
