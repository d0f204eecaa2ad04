package api_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

var webID = cluster.ServiceID{App: "shop", Name: "web"}

func deployed(t *testing.T, b *bench, bun v1.Bundle) v1.DeployResult {
	t.Helper()
	r, err := b.Deploy(t.Context(), "shop", bun)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The file of a config may be empty, as many a placeholder is; no base64 it may not be.
func TestDeployTakesEmptyFiles(t *testing.T) {
	b := newBench(t)
	spec := service("web:1")
	spec.Task.Configs = []cluster.FileRef{{Name: "conf", Target: "/conf"}}
	bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
	bun.Configs = map[string][]byte{"conf": {}}
	deployed(t, b, bun)
	ref := get[cluster.Release](b, store.ReleaseKey("shop", 1)).Services["web"].Task.Configs[0]
	if c := get[cluster.Config](b, store.ConfigKey("shop", ref.Name, ref.Version)); ref.Version == "" || len(c.Content) != 0 {
		t.Errorf("%+v: %+v", ref, c)
	}
}

func TestDeployIsStoredOnceAndIdempotent(t *testing.T) {
	b := newBench(t)
	spec := service("web:1")
	spec.Task.Configs = []cluster.FileRef{{Name: "conf", Target: "/conf"}}
	spec.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/run/secrets/pw"}}
	spec.Routes = []cluster.Route{{Host: "shop.test", Port: 80}}
	bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
	bun.Configs = map[string][]byte{"conf": []byte("x")}
	bun.Secrets = map[string]v1.SecretDecl{"pw": {External: true, Generate: 32}}

	p, err := b.Plan(t.Context(), "shop", bun)
	if err != nil || p.Next != 1 || len(p.Changes) != 3 || len(b.keys(store.PrefixApps)) != 0 {
		t.Fatalf("plan %+v, %v; stored %v", p, err, b.keys(store.PrefixApps))
	}
	r := deployed(t, b, bun)
	if !r.Changed || r.Release != 1 {
		t.Fatalf("%+v", r)
	}
	if diff := cmp.Diff(p.Changes, r.Plan.Changes); diff != "" {
		t.Errorf("deploy did something else than plan said: %s", diff)
	}
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	if svc.Version != svc.Spec.Task.Hash() || svc.Release != 1 || svc.Spec.Task.Secrets[0].Version != "1" {
		t.Errorf("%+v", svc)
	}
	if sc := get[cluster.Scale](b, store.ScaleKey(webID)); sc.Replicas != 2 || sc.Owner != "release" {
		t.Errorf("%+v", sc)
	}
	rel := get[cluster.Release](b, store.ReleaseKey("shop", 1))
	if rel.By != "ann" || rel.Note != "deploy" || rel.Source != "services: …" || rel.Services["web"].Task.Image != "web:1" {
		t.Errorf("%+v", rel)
	}
	rec := get[cluster.SecretRecord](b, store.SecretKey(cluster.SecretRef{App: "shop", Name: "pw"}))
	value, err := b.key.Resolve(t.Context(), rec)
	if err != nil || len(value.Reveal()) != 32 || !rec.Generated {
		t.Errorf("%+v %v", rec, err)
	}
	if strings.Contains(b.log.String(), string(value.Reveal())) {
		t.Error("the log holds the secret")
	}

	before := b.keys(store.Root)
	r = deployed(t, b, bun)
	if r.Changed || r.Release != 1 || !r.Plan.Empty() {
		t.Errorf("the same bundle again: %+v", r)
	}
	if diff := cmp.Diff(before, b.keys(store.Root)); diff != "" {
		t.Error(diff)
	}
	if p, err := b.Plan(t.Context(), "shop", bun); err != nil || !p.Empty() {
		t.Errorf("%+v %v", p, err)
	}
}

func TestDeployChangesAndPrunes(t *testing.T) {
	b := newBench(t)
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1"), "api": service("api:1")}))
	r := deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2")}))
	if r.Release != 2 || len(r.Plan.Changes) != 2 {
		t.Fatalf("%+v", r)
	}
	keys := b.keys(store.AppPrefix("shop"))
	want := []string{"app", "releases/00000001", "releases/00000002", "scale/web", "services/web"}
	for i := range want {
		want[i] = store.AppPrefix("shop") + want[i]
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}

	r, err := b.Rollback(t.Context(), "shop", 0)
	if err != nil || r.Release != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	if img := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task.Image; img != "web:1" {
		t.Error(img)
	}
	get[cluster.Service](b, store.ServiceKey(cluster.ServiceID{App: "shop", Name: "api"}))
	if _, err := b.Rollback(t.Context(), "shop", 9); cluster.KindOf(err) != cluster.KindNotFound {
		t.Error(err)
	}
	h, err := b.History(t.Context(), "shop")
	if err != nil || len(h) != 3 || !h[0].Current || h[0].Note != "rollback to 1" || h[2].Number != 1 {
		t.Errorf("%+v %v", h, err)
	}
	d, err := b.Release(t.Context(), "shop", 2)
	if err != nil || d.Rendered["web"].Task.Image != "web:2" || d.Source == "" {
		t.Errorf("%+v %v", d, err)
	}
}

func TestUpdateRestartScale(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	v1st := get[cluster.Service](b, store.ServiceKey(webID)).Version
	r, err := b.Restart(ctx, "shop", v1.RestartRequest{})
	if err != nil || !r.Changed {
		t.Fatalf("%+v %v", r, err)
	}
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	if svc.Version == v1st || svc.Spec.Task.Generation != 1 {
		t.Errorf("restart: %+v", svc)
	}
	if r := deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")})); r.Changed {
		t.Errorf("a deploy after a restart restarts again: %+v", r.Plan.Changes)
	}
	r, err = b.Update(ctx, "shop", v1.UpdateRequest{Images: map[cluster.ServiceName]v1.ImageRef{"web": {Ref: "web:3", ID: "sha256:1"}}})
	if err != nil || !r.Changed {
		t.Fatalf("%+v %v", r, err)
	}
	if svc := get[cluster.Service](b, store.ServiceKey(webID)); svc.Spec.Task.Image != "web:3" || svc.Spec.Task.ImageID != "sha256:1" || svc.Spec.Task.Generation != 1 {
		t.Errorf("update: %+v", svc)
	}
	// An image that was built here is in no registry; the one after it may be.
	built := service("fairlead/shop-web:1")
	built.Task.ImageID, built.Task.PullPolicy = "sha256:2", "never"
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": built}))
	if _, err := b.Update(ctx, "shop", v1.UpdateRequest{Images: map[cluster.ServiceName]v1.ImageRef{"web": {Ref: "registry.test/web:4"}}}); err != nil {
		t.Fatal(err)
	}
	if task := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Task; task.PullPolicy != "" || task.ImageID != "" || task.Image != "registry.test/web:4" {
		t.Errorf("update of what was built: %+v", task)
	}
	if _, err := b.Update(ctx, "shop", v1.UpdateRequest{Images: map[cluster.ServiceName]v1.ImageRef{"nope": {Ref: "x"}}}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Error(err)
	}

	to := func(n int) v1.ScaleRequest {
		return v1.ScaleRequest{Services: map[cluster.ServiceName]v1.ScaleTo{"web": {Replicas: n}}}
	}
	if _, err := b.Scale(ctx, "shop", to(5)); err != nil {
		t.Fatal(err)
	}
	if sc := get[cluster.Scale](b, store.ScaleKey(webID)); sc.Replicas != 5 || sc.Owner != "person" || sc.Reason != "set by ann" {
		t.Errorf("%+v", sc)
	}
	r = deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:4")}))
	if sc := get[cluster.Scale](b, store.ScaleKey(webID)); sc.Replicas != 5 || len(r.Plan.Warnings) != 1 {
		t.Errorf("a deploy took a person's count away: %+v, %v", sc, r.Plan.Warnings)
	}
	if _, err := b.Scale(ctx, "shop", v1.ScaleRequest{Services: map[cluster.ServiceName]v1.ScaleTo{"web": {Auto: true}}}); err != nil {
		t.Fatal(err)
	}
	if sc := get[cluster.Scale](b, store.ScaleKey(webID)); sc.Replicas != 2 || sc.Owner != "release" {
		t.Errorf("%+v", sc)
	}
	auto := service("web:4")
	auto.Autoscale = &cluster.Autoscale{Min: 2, Max: 4, CPUPercent: 50}
	auto.Task.Resources.ReserveCPU = 100
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": auto}))
	if _, err := b.Scale(ctx, "shop", to(9)); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("beyond the autoscaler's bounds: %v", err)
	}
}

func TestRemoveKeepsSecretsUnlessPurged(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	spec := service("db:1")
	spec.Task.Mounts = []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}
	spec.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/pw"}}
	bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"db": spec})
	bun.Secrets = map[string]v1.SecretDecl{"pw": {Generate: 8}}
	deployed(t, b, bun)
	r, err := b.Remove(ctx, "shop", v1.RemoveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := v1.RemoveResult{App: "shop", Services: []cluster.ServiceName{"db"}, KeptSecrets: []string{"pw"}, KeptVolumes: []string{"shop_data"}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{store.AppPrefix("shop") + "secrets/pw"}, b.keys(store.AppPrefix("shop"))); diff != "" {
		t.Error(diff)
	}
	if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Error(err)
	}
	if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{PurgeSecrets: true}); err != nil || len(b.keys(store.AppPrefix("shop"))) != 0 {
		t.Errorf("%v, left %v", err, b.keys(store.AppPrefix("shop")))
	}
}

func TestLargeAppIsWrittenInSeveralTransactions(t *testing.T) {
	b := newBench(t)
	many := map[cluster.ServiceName]cluster.ServiceSpec{}
	for i := range 150 {
		s := service("web:1")
		s.Routes = []cluster.Route{{Host: fmt.Sprintf("h%d.test", i), Port: 80}}
		many[cluster.ServiceName(fmt.Sprintf("s%d", i))] = s
	}
	for i, name := range []string{"a", "b"} {
		s := many[cluster.ServiceName(fmt.Sprintf("s%d", i))]
		s.Task.Configs = []cluster.FileRef{{Name: name, Target: "/" + name}}
		many[cluster.ServiceName(fmt.Sprintf("s%d", i))] = s
	}
	bun := bundle(many)
	bun.Configs = map[string][]byte{"a": make([]byte, 900_000), "b": append(make([]byte, 900_000), 1)}
	r := deployed(t, b, bun)
	b.goesOn("shop")
	if !r.Changed || len(b.keys(store.AppPrefix("shop")+"services/")) != 150 {
		t.Fatalf("%d services", len(b.keys(store.AppPrefix("shop")+"services/")))
	}
	if r := deployed(t, b, bun); r.Changed {
		t.Errorf("again: %+v", r.Plan.Changes[:min(3, len(r.Plan.Changes))])
	}
	res, err := b.Remove(t.Context(), "shop", v1.RemoveOptions{})
	b.goesOn("shop")
	if err != nil || !res.Pending || len(b.keys(store.AppPrefix("shop"))) != 0 {
		t.Errorf("%v, pending %v, left %d", err, res.Pending, len(b.keys(store.AppPrefix("shop"))))
	}
}

// A release is of any size: hundreds of services are more than the store takes at once.
func TestReleasesOfAnySize(t *testing.T) {
	b := newBench(t)
	many := map[cluster.ServiceName]cluster.ServiceSpec{}
	for i := range 500 {
		s := service("web:1")
		s.Task.Env = map[string]string{"OWN": strings.Repeat(fmt.Sprint(i), 100), "MOTTO": strings.Repeat("all alike ", 500)}
		many[cluster.ServiceName(fmt.Sprint("s", i))] = s
	}
	for n, tag := range []string{"web:1", "web:2"} {
		for name, s := range many {
			s.Task.Image = tag
			many[name] = s
		}
		if p, err := b.Plan(t.Context(), "shop", bundle(many)); err != nil || len(p.Changes) != len(many) {
			t.Fatalf("%d changes, %v", len(p.Changes), err)
		}
		deployed(t, b, bundle(many))
		b.goesOn("shop")
		if r := get[cluster.Release](b, store.ReleaseKey("shop", n+1)); len(r.Services) != len(many) || r.Services["s7"].Task.Image != tag {
			t.Fatalf("release %d has %d services", n+1, len(r.Services))
		}
	}
	if _, err := b.Rollback(t.Context(), "shop", 1); err != nil {
		t.Fatal(err)
	}
	b.goesOn("shop")
	if got := get[cluster.Service](b, store.ServiceKey(cluster.ServiceID{App: "shop", Name: "s7"})); got.Spec.Task.Image != "web:1" || len(got.Spec.Task.Env["MOTTO"]) != 5000 {
		t.Errorf("gone back to %s", got.Spec.Task.Image)
	}
}

// goesOn has the server go on with an app's pending change, as the loops of hooks and
// of changes do.
func (b *bench) goesOn(app cluster.AppName) {
	b.t.Helper()
	ch := get[cluster.PendingChange](b, store.ChangeKey(app))
	stages := []cluster.HookStage{cluster.StageApply}
	if ch.Action == cluster.HookDelete {
		stages = append(stages, cluster.StageFinish)
	}
	for _, st := range append(stages, cluster.StageDone) {
		b.put(store.ChangeRecordKey(app), cluster.ChangeRecord{App: app, Change: ch.ID, Action: ch.Action, Release: ch.Release, Stage: st})
		if err := b.srv.Continue(b.t.Context(), app); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestCutShort: the server dies between two transactions of a deploy. The app
// still stands at the release before, and the same deploy completes it.
func TestCutShort(t *testing.T) {
	b := newBench(t)
	many := map[cluster.ServiceName]cluster.ServiceSpec{}
	for i := range 120 {
		many[cluster.ServiceName(fmt.Sprintf("s%03d", i))] = service("web:1")
	}
	deployed(t, b, bundle(many))
	b.goesOn("shop")
	for n, s := range many {
		s.Task.Image = "web:2"
		many[n] = s
	}
	// What an earlier server had written of release 2 when it died.
	half := get[cluster.Service](b, store.ServiceKey(cluster.ServiceID{App: "shop", Name: "s000"}))
	half.Spec.Task.Image, half.Release = "web:2", 2
	half.Version = half.Spec.Task.Hash()
	b.put(store.ReleaseKey("shop", 2), cluster.Release{App: "shop", Number: 2})
	b.put(store.ServiceKey(half.ServiceID), half)
	r := deployed(t, b, bundle(many))
	b.goesOn("shop")
	if r.Release != 3 || len(r.Plan.Changes) != 119 {
		t.Errorf("release %d with %d changes", r.Release, len(r.Plan.Changes))
	}
	if app := get[cluster.App](b, store.AppKey("shop")); app.Release != 3 {
		t.Errorf("%+v", app)
	}
}

// TestTwoAppsCannotTakeOneRoute: while an app's deploy is between its decision
// and its write, another app takes the route. The first is decided anew, and
// refused: also when it is written in several transactions.
func TestTwoAppsCannotTakeOneRoute(t *testing.T) {
	for name, more := range map[string]int{"one transaction": 0, "several": 150} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			taking := service("web:1")
			taking.Routes = []cluster.Route{{Host: "one.test", Port: 80}}
			b.hook.once = func() {
				if _, err := b.Deploy(t.Context(), "quick", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": taking})); err != nil {
					t.Error(err)
				}
			}
			slow := map[cluster.ServiceName]cluster.ServiceSpec{"zz": taking}
			for i := range more {
				slow[cluster.ServiceName(fmt.Sprintf("s%d", i))] = service("web:1")
			}
			_, err := b.Deploy(t.Context(), "slow", bundle(slow))
			if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "slow/zz wants the route one.test/, which quick/web already has") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRouteTakenBetweenTransactions: the other app comes when a large deploy is written
// down, and before its services are.
func TestRouteTakenBetweenTransactions(t *testing.T) {
	b := newBench(t)
	taking := service("web:1")
	taking.Routes = []cluster.Route{{Host: "one.test", Port: 80}}
	slow := map[cluster.ServiceName]cluster.ServiceSpec{"zz": taking}
	for i := range 150 {
		slow[cluster.ServiceName(fmt.Sprintf("s%d", i))] = service("web:1")
	}
	if _, err := b.Deploy(t.Context(), "slow", bundle(slow)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Deploy(t.Context(), "quick", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": taking})); err != nil {
		t.Fatal(err)
	}
	b.goesOn("slow")
	if ch := get[cluster.PendingChange](b, store.ChangeKey("slow")); !strings.Contains(ch.Refused, "already has") {
		t.Errorf("%+v", ch)
	}
	if n := len(b.keys(store.AppPrefix("slow") + "services/")); n != 0 {
		t.Errorf("%d services are written", n)
	}
	// A deploy without the route takes its place.
	delete(slow, "zz")
	r, err := b.Deploy(t.Context(), "slow", bundle(slow))
	b.goesOn("slow")
	if err != nil || !r.Changed || len(b.keys(store.AppPrefix("slow")+"services/")) != 150 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestConcurrentDeploys: all succeed one after the other, each with a number of its own.
func TestConcurrentDeploys(t *testing.T) {
	b := newBench(t)
	const n = 5
	releases := make([]int, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r, err := b.Deploy(t.Context(), "shop", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(fmt.Sprintf("web:%d", i+1))}))
			if err != nil {
				t.Error(err)
			}
			releases[i] = r.Release
		})
	}
	wg.Wait()
	slices.Sort(releases)
	if diff := cmp.Diff([]int{1, 2, 3, 4, 5}, releases); diff != "" {
		t.Error(diff)
	}
}

func TestStoreAwayIsTransient(t *testing.T) {
	b := newBench(t)
	b.store.Down(true)
	_, err := b.Deploy(t.Context(), "shop", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	if cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("%v", err)
	}
}

func TestSecrets(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	ref := cluster.SecretRef{App: "shop", Name: "pw"}
	spec := service("web:1")
	spec.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/run/secrets/pw"}}
	bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec, "other": service("o:1")})
	bun.Secrets = map[string]v1.SecretDecl{"pw": {External: true}}
	r := deployed(t, b, bun)
	if len(r.Plan.Warnings) != 1 {
		t.Errorf("a missing secret is a warning: %v", r.Plan.Warnings)
	}
	if list, err := b.Secrets(ctx, "shop"); err != nil || len(list) != 1 || !list[0].Missing || list[0].Services[0] != "web" {
		t.Errorf("%+v %v", list, err)
	}
	waiting := get[cluster.Service](b, store.ServiceKey(webID)).Version

	set, err := b.SetSecret(ctx, ref, v1.SecretSet{Value: v1.Plain("hunter2")})
	if err != nil || set.Version != 1 || set.Release != 0 {
		t.Fatalf("%+v %v", set, err)
	}
	if get[cluster.Service](b, store.ServiceKey(webID)).Version != waiting {
		t.Error("the waiting tasks are replaced though they are right as they are")
	}
	set, err = b.SetSecret(ctx, ref, v1.SecretSet{Value: v1.Plain("hunter3")})
	if err != nil || set.Version != 2 || set.Release != 2 {
		t.Fatalf("%+v %v", set, err)
	}
	if svc := get[cluster.Service](b, store.ServiceKey(webID)); svc.Spec.Task.Secrets[0].Version != "2" || svc.Version == waiting {
		t.Errorf("%+v", svc)
	}
	if svc := get[cluster.Service](b, store.ServiceKey(cluster.ServiceID{App: "shop", Name: "other"})); svc.Release != 1 {
		t.Error("a service that does not use it was written")
	}
	if set, err := b.SetSecret(ctx, ref, v1.SecretSet{Value: v1.Plain("hunter3")}); err != nil || set.Version != 2 || set.Release != 0 {
		t.Errorf("the same value again: %+v %v", set, err)
	}
	if r := deployed(t, b, bun); r.Changed {
		t.Errorf("%+v", r.Plan.Changes)
	}
	if err := b.RemoveSecret(ctx, ref, false); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "web") {
		t.Errorf("in use: %v", err)
	}
	if err := b.RemoveSecret(ctx, ref, true); err != nil {
		t.Fatal(err)
	}
	set, err = b.SetSecret(ctx, ref, v1.SecretSet{Generate: 12})
	if err != nil || set.Version != 3 || set.Release == 0 {
		t.Errorf("set again after removal: %+v %v", set, err)
	}
	entries, _, err := b.store.List(ctx, store.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(string(e.Value), "hunter") {
			t.Errorf("%s holds a value in clear", e.Key)
		}
	}
	if strings.Contains(b.log.String(), "hunter") {
		t.Error("the log holds a value")
	}
	if _, err := b.SetSecret(ctx, cluster.SecretRef{App: "new", Name: "early"}, v1.SecretSet{Value: v1.Plain("x")}); err != nil {
		t.Errorf("before the app exists: %v", err)
	}
	for _, bad := range []v1.SecretSet{{}, {Value: v1.Plain("x"), Generate: 3}, {Value: v1.Plain("x"), Vault: "kv/a#b"}, {Vault: "kv/a"}, {Vault: "kv/a#b", Generate: 3}} {
		if _, err := b.SetSecret(ctx, ref, bad); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A secret in Vault is a place in the store: a new one is read once before it is
// accepted, and makes a new version.
func TestSecretsInVault(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	ref := cluster.SecretRef{App: "shop", Name: "pw"}
	spec := service("web:1")
	spec.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/run/secrets/pw"}}
	at := func(place string) v1.Bundle {
		bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
		bun.Secrets = map[string]v1.SecretDecl{"pw": {External: true, Vault: place, Source: cluster.Source{File: "compose.yaml", Line: 7}}}
		return bun
	}
	b.vault["kv/shop#pw"], b.vault["kv/shop#old"], b.vault["kv/away#pw"] = "hunter2", "hunter1", "sealed"
	for place, kind := range map[string]cluster.Kind{"kv/shop#nothing": cluster.KindInvalid, "kv/shop": cluster.KindInvalid, "kv/away#pw": cluster.KindTransient} {
		if _, err := b.Deploy(ctx, "shop", at(place)); cluster.KindOf(err) != kind {
			t.Errorf("%s: %v (%v)", place, err, cluster.KindOf(err))
		}
	}
	if keys := b.keys(store.AppPrefix("shop")); len(keys) != 0 {
		t.Fatalf("a refused deploy wrote %v", keys)
	}

	r := deployed(t, b, at("kv/shop#old"))
	if len(r.Plan.Warnings) != 0 || r.Plan.Changes[0].Reason != "from Vault, kv/shop#old" {
		t.Errorf("%+v", r.Plan)
	}
	if r := deployed(t, b, at("kv/shop#old")); r.Changed {
		t.Errorf("the same place again: %+v", r.Plan.Changes)
	}
	if r := deployed(t, b, at("kv/shop#pw")); !r.Changed {
		t.Error("another place is no change")
	}
	b.vault["kv/shop#pw"] = "sealed"
	if r := deployed(t, b, at("kv/shop#pw")); r.Changed {
		t.Error("what is there already needs no Vault")
	}
	b.vault["kv/shop#pw"] = "hunter3"
	set, err := b.SetSecret(ctx, ref, v1.SecretSet{Vault: "kv/shop#pw"})
	if err != nil || set.Version != 3 || set.Release != 3 || set.Ref != "kv/shop#pw" || set.Provider != "vault" {
		t.Fatalf("%+v %v", set, err)
	}
	if svc := get[cluster.Service](b, store.ServiceKey(webID)); svc.Spec.Task.Secrets[0].Version != "3" {
		t.Errorf("%+v", svc.Spec.Task.Secrets)
	}
	if set, err = b.SetSecret(ctx, ref, v1.SecretSet{Value: v1.Plain("sealed-here")}); err != nil || set.Version != 4 || set.Provider != "sealed" || set.Ref != "" {
		t.Errorf("back into the store: %+v %v", set, err)
	}
	entries, _, err := b.store.List(ctx, store.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(string(e.Value), "hunter") {
			t.Errorf("%s holds a value in clear", e.Key)
		}
	}
}

// TestNodePortBetweenTransactions: another app that takes the port of the only node
// meanwhile is seen; one that is scaled to nothing is not in the way.
func TestNodePortBetweenTransactions(t *testing.T) {
	b := newBench(t)
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", CPU: 1000, Memory: 1 << 30})
	taking := service("web:1")
	taking.Replicas = 1
	taking.Task.NodePorts = []cluster.PublishedPort{{Published: 5432, Target: 5432, Protocol: "tcp", Mode: "node"}}
	app := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": taking})
	b.hook.once = func() {
		if _, err := b.Deploy(t.Context(), "quick", app); err != nil {
			t.Error(err)
		}
	}
	_, err := b.Deploy(t.Context(), "slow", app)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "slow/web wants port 5432/tcp of node n1, which quick/web already has") {
		t.Fatalf("%v", err)
	}
	if _, err := b.Scale(t.Context(), "quick", v1.ScaleRequest{Services: map[cluster.ServiceName]v1.ScaleTo{"web": {}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Deploy(t.Context(), "slow", app); err != nil {
		t.Error(err)
	}
}
