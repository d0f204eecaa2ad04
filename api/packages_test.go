package api_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// fromPackage is a bundle of one service that a package made.
func fromPackage(image, version, values string) v1.Bundle {
	b := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(image)})
	b.Package = &v1.Package{Chart: "shop", Version: version, From: "./shop", Values: values, Notes: "visit " + version}
	b.Rendered = "services: {web: {image: " + image + "}}\n"
	return b
}

func TestReleasesCarryTheirPackage(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	holds := func(release int, version, values, image string) {
		t.Helper()
		p, err := b.Package(ctx, "shop", release)
		if err != nil {
			t.Fatal(err)
		}
		if p.Version != version || p.Values != values || p.Notes != "visit "+version || !strings.Contains(p.Manifest, image) {
			t.Errorf("release %d is of %+v", release, p)
		}
	}
	if res := deployed(t, b, fromPackage("web:1", "1.0.0", "a: 1\n")); res.Plan.Changes[0].Object != v1.ObjectPackage || res.Plan.Changes[0].Action != v1.ActionCreate {
		t.Errorf("the plan begins with %+v", res.Plan.Changes[0])
	}
	deployed(t, b, fromPackage("web:2", "1.1.0", "a: 2\n"))
	holds(0, "1.1.0", "a: 2\n", "web:2")
	holds(1, "1.0.0", "a: 1\n", "web:1")

	// Other values that change no service are a release; the same again is none.
	res := deployed(t, b, fromPackage("web:2", "1.1.0", "a: 3\n"))
	if !res.Changed || res.Release != 3 || len(res.Plan.Changes) != 1 || res.Plan.Changes[0].Reason != "other values, notes or documents" {
		t.Errorf("other values make %+v", res)
	}
	if res := deployed(t, b, fromPackage("web:2", "1.1.0", "a: 3\n")); res.Changed {
		t.Errorf("the same again makes %+v", res)
	}

	// What keeps the app's services keeps its package; a rollback brings the other back.
	if _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); err != nil {
		t.Fatal(err)
	}
	holds(4, "1.1.0", "a: 3\n", "web:2")
	if _, err := b.Rollback(ctx, "shop", 1); err != nil {
		t.Fatal(err)
	}
	holds(5, "1.0.0", "a: 1\n", "web:1")
	if d, err := b.Release(ctx, "shop", 5); err != nil || d.Chart != "shop-1.0.0" || !strings.Contains(d.Source, "web:1") {
		t.Errorf("release 5 is %+v, %v", d, err)
	}
	if a, err := b.App(ctx, "shop"); err != nil || a.Chart != "shop-1.0.0" {
		t.Errorf("the app is of %q, %v", a.Chart, err)
	}
	// The text of releases 1 and 5 is stored once.
	if n := len(b.keys(store.AppPrefix("shop") + "package/")); n != 3 {
		t.Errorf("%d texts are stored", n)
	}

	// A Compose file takes its place.
	plain := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")})
	if res := deployed(t, b, plain); res.Plan.Changes[0].Action != v1.ActionRemove {
		t.Errorf("the plan begins with %+v", res.Plan.Changes[0])
	}
	if _, err := b.Package(ctx, "shop", 0); cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), "Compose file") {
		t.Errorf("its package is %v", err)
	}
	if _, err := b.Package(ctx, "shop", 99); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("of no release: %v", err)
	}
}

// TestPackagesOfAnySize: values, notes and documents larger than what the store takes at once.
func TestPackagesOfAnySize(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(1, 2))
	var values strings.Builder
	for values.Len() < 2<<20 { // hardly compresses
		fmt.Fprintf(&values, "k%x: %x%x%x\n", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())
	}
	bun := fromPackage("web:1", "1.0.0", values.String())
	if _, err := b.Plan(t.Context(), "shop", bun); err != nil {
		t.Fatal(err)
	}
	deployed(t, b, bun)
	p, err := b.Package(t.Context(), "shop", 1)
	if err != nil || p.Values != values.String() {
		t.Errorf("other values come back: %d bytes, %v", len(p.Values), err)
	}
	if n := len(b.keys(store.AppPrefix("shop") + "package/")); n < 2 {
		t.Errorf("%d parts", n)
	}
	if _, err := b.Remove(t.Context(), "shop", v1.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := b.keys(store.AppPrefix("shop")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPackagesThatNobodyCanGoBackToAreDeleted(t *testing.T) {
	b := newBench(t)
	for n := 1; n <= cluster.KeptReleases+3; n++ {
		deployed(t, b, fromPackage("web:1", "1.0.0", fmt.Sprintf("n: %d\n", n)))
	}
	if n := len(b.keys(store.AppPrefix("shop") + "package/")); n != cluster.KeptReleases {
		t.Errorf("%d texts of %d releases", n, cluster.KeptReleases)
	}
	for n := 4; n <= cluster.KeptReleases+3; n++ {
		if p, err := b.Package(t.Context(), "shop", n); err != nil || p.Values != fmt.Sprintf("n: %d\n", n) {
			t.Fatalf("release %d: %v", n, err)
		}
	}
}

func TestUninstalledAppsComeBack(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	deployed(t, b, fromPackage("web:1", "1.0.0", "a: 1\n"))
	if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{KeepHistory: true}); err != nil {
		t.Fatal(err)
	}
	if a, err := b.App(ctx, "shop"); err != nil || a.State != "uninstalled" || a.Services != 0 {
		t.Errorf("the app is %+v, %v", a, err)
	}
	if _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("restarted: %v", err)
	}
	if _, err := b.Rollback(ctx, "shop", 0); err != nil {
		t.Fatal(err)
	}
	if a, err := b.App(ctx, "shop"); err != nil || a.State == "uninstalled" || a.Services != 1 || a.Release != 2 {
		t.Errorf("the app is %+v, %v", a, err)
	}
	if p, err := b.Package(ctx, "shop", 0); err != nil || p.Values != "a: 1\n" {
		t.Errorf("its package is %+v, %v", p, err)
	}
	if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{KeepHistory: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := b.keys(store.AppPrefix("shop")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
