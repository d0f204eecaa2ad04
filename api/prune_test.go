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
			id := cluster.NewTaskID(webID, 1, 1, 1)
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
