package api_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func fromGit(app cluster.AppName, needs ...cluster.DeliveryName) v1.DeliverySet {
	return v1.DeliverySet{Delivery: cluster.Delivery{
		App: app, Source: cluster.SourceSpec{Kind: cluster.SourceGit, URL: "https://git.example.com/shop.git"}, DependsOn: needs,
	}}
}

func TestDeliveriesAreKept(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	got, err := b.SetDelivery(ctx, "shop", fromGit("shop"))
	if err != nil || got.Name != "shop" || got.By == "" || got.Created.IsZero() {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := b.SetDelivery(ctx, "db", fromGit("db", "shop")); err != nil {
		t.Fatal(err)
	}
	replace := fromGit("shop", "db")
	replace.Replace = true
	moved := fromGit("elsewhere")
	moved.Replace = true
	named := fromGit("x")
	named.Name = "y"
	imaged := func(p cluster.ImagePolicy) v1.DeliverySet {
		set := fromGit("x")
		p.Name, p.Repository = "web", "r.io/web"
		set.Images = []cluster.ImagePolicy{p}
		return set
	}
	for what, refused := range map[string]struct {
		name cluster.DeliveryName
		set  v1.DeliverySet
		says string
	}{
		"one that is there":     {"shop", fromGit("shop"), "--replace"},
		"an app of another one": {"other", fromGit("shop"), "follows the delivery shop already"},
		"a cycle":               {"shop", replace, "depend on itself"},
		"another app":           {"shop", moved, "is of the app shop: to deliver elsewhere, `fairlead delivery rm shop` first"},
		"another name":          {"x", named, "in the path"},
		"no range":              {"x", imaged(cluster.ImagePolicy{Semver: "one"}), "no range of versions"},
		"no expression":         {"x", imaged(cluster.ImagePolicy{Newest: "numeric", Filter: "("}), "filter"},
		"no policy":             {"x", imaged(cluster.ImagePolicy{}), "one of them"},
		"no source":             {"x", v1.DeliverySet{Delivery: cluster.Delivery{App: "x", Source: cluster.SourceSpec{Kind: "git", URL: "nowhere"}}}, "no Git repository"},
	} {
		_, err := b.SetDelivery(ctx, refused.name, refused.set)
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), refused.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for want := range int64(2) {
		if asked, err := b.Reconcile(ctx, "shop", false); err != nil || asked.Number != want+1 {
			t.Errorf("%+v, %v", asked, err)
		}
	}
	// That what failed is to be tried again is asked for until somebody has looked.
	for _, ask := range []struct{ again, want bool }{{false, false}, {true, true}, {false, true}} {
		if _, err := b.Reconcile(ctx, "shop", ask.again); err != nil {
			t.Fatal(err)
		}
		if got := get[cluster.DeliveryAsk](b, store.DeliveryAskKey("shop")); got.Again != ask.want {
			t.Errorf("%+v: %+v", ask, got)
		}
	}
	b.put(store.DeliveryStateKey("shop"), cluster.DeliveryState{Name: "shop", Asked: 5})
	if _, err := b.Reconcile(ctx, "shop", false); err != nil || get[cluster.DeliveryAsk](b, store.DeliveryAskKey("shop")).Again {
		t.Errorf("%v, asked for for ever", err)
	}
	b.remove(store.DeliveryStateKey("shop"))
	if d, err := b.Suspend(ctx, "shop"); err != nil || d.Phase() != "suspended" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := b.Reconcile(ctx, "shop", false); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("a suspended one: %v", err)
	}
	if d, err := b.Resume(ctx, "shop"); err != nil || d.Phase() != "new" {
		t.Errorf("%+v, %v", d, err)
	}
	if list, err := b.Deliveries(ctx); err != nil || len(list) != 2 || list[0].Name != "db" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := b.RemoveDelivery(ctx, "shop", false); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "other deliveries depend on shop and would wait for it for ever: db;") {
		t.Errorf("one that another depends on: %v", err)
	}
	if err := b.RemoveDelivery(ctx, "shop", true); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveDelivery(ctx, "shop", true); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("one that is not there: %v", err)
	}
	if left := b.keys(store.PrefixDeliveries + "shop/"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := b.Delivery(ctx, "shop"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("a removed one: %v", err)
	}
}

// TestADeliveryThatIsNoMoreDeploysNothing: it is removed or suspended after it was looked
// at, the last moment before the deploy is written being one of them.
func TestADeliveryThatIsNoMoreDeploysNothing(t *testing.T) {
	ends := map[string]func(*bench) error{
		"removed": func(b *bench) error { return b.RemoveDelivery(t.Context(), "shop", false) },
		"suspended": func(b *bench) error {
			_, err := b.Suspend(t.Context(), "shop")
			return err
		},
	}
	web := func(image string) v1.Bundle {
		return bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(image)})
	}
	changes := map[string]func(*bench, cluster.Delivery) error{
		"deploy": func(b *bench, d cluster.Delivery) error {
			_, err := b.srv.Deliver(t.Context(), d, api.Fetched{Origin: cluster.Origin{Revision: "two"}, Bundle: web("web:3")}, 2)
			return err
		},
		"way back": func(b *bench, d cluster.Delivery) error {
			_, err := b.srv.TakeBack(t.Context(), d, goodAt(1))
			return err
		},
	}
	for end, does := range ends {
		for change, try := range changes {
			for _, when := range []string{"before", "within", "not at all"} {
				t.Run(end+"/"+change+"/"+when, func(t *testing.T) {
					b := newBench(t)
					deployed(t, b, web("web:1"))
					deployed(t, b, web("web:2"))
					d, err := b.SetDelivery(t.Context(), "shop", fromGit("shop"))
					if err != nil {
						t.Fatal(err)
					}
					d.Rev = b.rev(store.DeliveryKey("shop"))
					now := func() {
						if err := does(b); err != nil {
							t.Error(err)
						}
					}
					switch when {
					case "before":
						now()
					case "within":
						b.hook.once = now
					}
					err = try(b, d.Delivery)
					release := get[cluster.App](b, store.AppKey("shop")).Release
					if when == "not at all" {
						if err != nil || release != 3 {
							t.Errorf("release %d, %v", release, err)
						}
						return
					}
					if cluster.KindOf(err) != cluster.KindConflict || !strings.Contains(err.Error(), "the delivery shop was changed or removed meanwhile") || release != 2 {
						t.Errorf("release %d, %v", release, err)
					}
				})
			}
		}
	}
}

// webhook sends one as a stranger does, without a token.
func (b *bench) webhook(name, body string, header ...string) int {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+"/v1/hooks/"+name, bytes.NewBufferString(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestWebhooksNeedTheirSecret(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if _, err := b.SetSecret(ctx, cluster.SecretRef{App: "shop", Name: "hook"}, v1.SecretSet{Value: []byte("signed")}); err != nil {
		t.Fatal(err)
	}
	set := fromGit("shop")
	set.Webhook = "hook"
	for name, s := range map[cluster.DeliveryName]v1.DeliverySet{"shop": set, "quiet": fromGit("quiet")} {
		if _, err := b.SetDelivery(ctx, name, s); err != nil {
			t.Fatal(err)
		}
	}
	const body = `{"ref":"refs/heads/main"}`
	sum := func(key, body string) string {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(body))
		return hex.EncodeToString(mac.Sum(nil))
	}
	asked := int64(0)
	for _, tc := range []struct {
		name, what string
		header     []string
		ok         bool
	}{
		{"shop", "GitHub", []string{"X-Hub-Signature-256", "sha256=" + sum("signed", body)}, true},
		{"shop", "Gitea", []string{"X-Gitea-Signature", sum("signed", body)}, true},
		{"shop", "GitLab", []string{"X-Gitlab-Token", "signed"}, true},
		{"shop", "any", []string{"X-Signature-256", "sha256=" + sum("signed", body)}, true},
		{"shop", "any, as Flux takes it", []string{"X-Signature", "sha256=" + sum("signed", body)}, true},
		{"shop", "Bitbucket", []string{"X-Hub-Signature", "sha256=" + sum("signed", body)}, true},
		{"shop", "a weaker one beside", []string{"X-Hub-Signature", "sha1=00", "X-Hub-Signature-256", "sha256=" + sum("signed", body)}, true},
		{"shop", "a weaker one alone", []string{"X-Hub-Signature", "sha1=" + sum("signed", body)}, false},
		{"shop", "no signature", nil, false},
		{"shop", "another key", []string{"X-Hub-Signature-256", "sha256=" + sum("other", body)}, false},
		{"shop", "another body", []string{"X-Hub-Signature-256", "sha256=" + sum("signed", body+" ")}, false},
		{"shop", "no hexadecimal", []string{"X-Hub-Signature-256", "sha256=signed"}, false},
		{"shop", "another token", []string{"X-Gitlab-Token", "signe"}, false},
		{"shop", "a wrong one beside a right one", []string{"X-Hub-Signature-256", "sha256=00", "X-Signature-256", "sha256=" + sum("signed", body)}, false},
		{"quiet", "one that takes none", []string{"X-Gitlab-Token", ""}, false},
		{"none", "one that is not there", []string{"X-Gitlab-Token", "signed"}, false},
	} {
		want := http.StatusForbidden
		if tc.ok {
			want = http.StatusOK
			asked++
		}
		if got := b.webhook(tc.name, body, tc.header...); got != want {
			t.Errorf("%s: %d, want %d", tc.what, got, want)
		}
	}
	for header, want := range map[[2]string]int{
		{"X-Signature-256", "sha256=" + sum("signed", "")}:  http.StatusOK,
		{"X-Gitlab-Token", "signed"}:                        http.StatusOK,
		{"X-Signature-256", "sha256=" + sum("another", "")}: http.StatusForbidden,
		{"X-Gitlab-Token", "another"}:                       http.StatusForbidden,
	} {
		if got := b.webhook("shop", "", header[0], header[1]); got != want {
			t.Errorf("without a body, %v: %d, want %d", header, got, want)
		}
		if want == http.StatusOK {
			asked++
		}
	}
	if a, err := b.Reconcile(ctx, "shop", false); err != nil || a.Number != asked+1 {
		t.Errorf("%+v, %v: want %d webhooks before it", a, err, asked)
	}
}

// TestADeliveryMadeAgainHasNoState: what is left of one of the same name is not shown as its own.
func TestADeliveryMadeAgainHasNoState(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if _, err := b.SetDelivery(ctx, "shop", fromGit("shop")); err != nil {
		t.Fatal(err)
	}
	b.put(store.DeliveryStateKey("shop"), cluster.DeliveryState{Name: "shop", Phase: cluster.PhaseFailed, Asked: 3})
	if d, err := b.Delivery(ctx, "shop"); err != nil || d.State.Asked != 3 {
		t.Fatalf("%+v, %v", d.State, err)
	}
	if err := b.RemoveDelivery(ctx, "shop", false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetDelivery(ctx, "shop", fromGit("shop")); err != nil {
		t.Fatal(err)
	}
	if d, err := b.Delivery(ctx, "shop"); err != nil || d.State.Asked != 0 || d.State.Phase != "" {
		t.Errorf("%+v, %v", d.State, err)
	}
}

// TestAFollowedAppIsNotRemoved: its delivery would bring it back, with new generated secrets beside the volumes that were kept.
func TestAFollowedAppIsNotRemoved(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	if _, err := b.SetSecret(ctx, cluster.SecretRef{App: "shop", Name: "db"}, v1.SecretSet{Value: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetDelivery(ctx, "other", fromGit("other")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetDelivery(ctx, "live", fromGit("shop")); err != nil {
		t.Fatal(err)
	}
	before := b.keys(store.AppPrefix("shop"))
	for _, o := range []v1.RemoveOptions{{}, {PurgeSecrets: true}, {KeepHistory: true}} {
		_, err := b.Remove(ctx, "shop", o)
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "`fairlead delivery suspend live` or `fairlead delivery rm live` first") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if after := b.keys(store.AppPrefix("shop")); !slices.Equal(after, before) {
		t.Errorf("left %v of %v", after, before)
	}
	if _, err := b.Suspend(ctx, "live"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{PurgeSecrets: true}); err != nil || len(b.keys(store.AppPrefix("shop"))) != 0 {
		t.Errorf("of a suspended delivery: %v", err)
	}
}

// TestWhereARestartComesFrom: what was restarted is what the commit says, with newer secrets too;
// another image is nobody's.
func TestWhereARestartComesFrom(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if _, err := b.SetDelivery(ctx, "shop", fromGit("shop")); err != nil {
		t.Fatal(err)
	}
	pw := cluster.SecretRef{App: "shop", Name: "pw"}
	set := func(value string) error {
		_, err := b.SetSecret(ctx, pw, v1.SecretSet{Value: []byte(value)})
		return err
	}
	if err := set("1"); err != nil {
		t.Fatal(err)
	}
	spec := service("web:1")
	spec.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/pw"}}
	bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
	bun.Secrets = map[string]v1.SecretDecl{"pw": {External: true}}
	d := fromGit("shop").Delivery
	d.Name, d.Rev = "shop", b.rev(store.DeliveryKey("shop"))
	origin := cluster.Origin{Delivery: "shop", URL: d.Source.URL, Ref: "main", Revision: strings.Repeat("a", 40), Author: "Ann"}
	if r, err := b.srv.Deliver(ctx, d, api.Fetched{Origin: origin, Bundle: bun}, 0); err != nil || !r.Changed {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, tc := range []struct {
		what string
		do   func() error
		from *cluster.Origin
	}{
		{"a restart", func() error { _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); return err }, &origin},
		{"another secret", func() error { return set("2") }, &origin},
		{"another image", func() error {
			_, err := b.Update(ctx, "shop", v1.UpdateRequest{Images: map[cluster.ServiceName]v1.ImageRef{"web": {Ref: "web:2"}}})
			return err
		}, nil},
		{"a restart of that", func() error { _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); return err }, nil},
	} {
		before := get[cluster.App](b, store.AppKey("shop")).Release
		if err := tc.do(); err != nil {
			t.Fatalf("%s: %v", tc.what, err)
		}
		tr, err := b.Trace(ctx, webID)
		if err != nil || tr.Release.Number != before+1 || tr.Release.By == d.Actor() {
			t.Errorf("%s: %+v, %v", tc.what, tr.Release, err)
		}
		if diff := cmp.Diff(tc.from, tr.Origin); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tc.what, diff)
		}
	}
}

// TestOneDeliveryOfAnApp: also where two are made, or the app is removed, at the same moment.
func TestOneDeliveryOfAnApp(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	set := func(name cluster.DeliveryName, app cluster.AppName, needs ...cluster.DeliveryName) error {
		_, err := b.SetDelivery(ctx, name, fromGit(app, needs...))
		return err
	}
	meanwhile := func(do func() error) {
		b.hook.mu.Lock()
		defer b.hook.mu.Unlock()
		b.hook.once = func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		}
	}
	meanwhile(func() error { return set("second", "shop") })
	if err := set("first", "shop"); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "follows the delivery second already") {
		t.Errorf("two of one app: %v", err)
	}
	meanwhile(func() error { return set("other", "other", "db") })
	if err := set("db", "db", "other"); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "depend on itself") {
		t.Errorf("a cycle of two: %v", err)
	}
	// Those that are in nobody's way are both made.
	meanwhile(func() error { return set("x", "x") })
	if err := set("y", "y"); err != nil {
		t.Error(err)
	}
	meanwhile(func() error { return set("needy", "needy", "x") })
	if err := b.RemoveDelivery(ctx, "x", false); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), ": needy;") {
		t.Errorf("one that another depends on since a moment: %v", err)
	}

	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	for what, do := range map[string]func() error{
		"is resumed": func() error { _, err := b.Resume(ctx, "second"); return err },
		"is made": func() error {
			if err := b.RemoveDelivery(ctx, "second", false); err != nil {
				return err
			}
			return set("second", "shop")
		},
	} {
		if _, err := b.Suspend(ctx, "second"); err != nil {
			t.Fatal(err)
		}
		meanwhile(do)
		if _, err := b.Remove(ctx, "shop", v1.RemoveOptions{}); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "the delivery second follows shop") {
			t.Errorf("while its delivery %s: %v", what, err)
		}
	}
}

// TestServicesThatLeftTheirSource: they are removed, or with prune: false kept, with the
// secrets that they use.
func TestServicesThatLeftTheirSource(t *testing.T) {
	for _, tc := range []struct {
		keep bool
		pkg  string // what it is rendered from, where it is a package
		want string
	}{{want: "remove service old"}, {keep: true}, {keep: true, pkg: "same"}} {
		keep, want := tc.keep, tc.want
		b := newBench(t)
		old := service("old:1")
		old.Task.Secrets = []cluster.FileRef{{Name: "pw", Target: "/run/secrets/pw"}}
		first := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1"), "old": old})
		first.Secrets = map[string]v1.SecretDecl{"pw": {External: true, Generate: 8}}
		set := fromGit("shop")
		set.KeepGone = keep
		d, err := b.SetDelivery(t.Context(), "shop", set)
		if err != nil {
			t.Fatal(err)
		}
		d.Rev = b.rev(store.DeliveryKey("shop"))
		if _, err := b.srv.Deliver(t.Context(), d.Delivery, api.Fetched{Bundle: first}, 0); err != nil {
			t.Fatal(err)
		}
		next := api.Fetched{Bundle: bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2")})}
		if tc.pkg != "" {
			next.Bundle.Package = &v1.Package{Chart: "shop", Version: "1.0.0", Input: tc.pkg}
		}
		p, err := b.srv.PlanDelivery(t.Context(), d.Delivery, next)
		if err != nil {
			t.Fatal(err)
		}
		removed := ""
		for _, c := range p.Changes {
			if c.Action == v1.ActionRemove {
				removed += fmt.Sprintf("%s %s %s", c.Action, c.Object, c.Name)
			}
		}
		if removed != want {
			t.Errorf("kept %v: the plan removes %q, not %q", keep, removed, want)
		}
		if _, err := b.srv.Deliver(t.Context(), d.Delivery, next, 1); err != nil {
			t.Fatal(err)
		}
		if left := len(b.keys(store.ServiceKey(cluster.ServiceID{App: "shop", Name: "old"}))); (left == 1) != keep {
			t.Errorf("kept %v: %d left", keep, left)
		}
		// Nothing is left to do at the next look.
		if p, err := b.srv.PlanDelivery(t.Context(), d.Delivery, next); err != nil || !p.Empty() {
			t.Errorf("kept %v: %+v, %v", keep, p.Changes, err)
		}
		// No longer kept, it goes, though what the package is rendered from is the same.
		d.KeepGone = false
		removed = ""
		if p, err = b.srv.PlanDelivery(t.Context(), d.Delivery, next); err != nil {
			t.Fatal(err)
		}
		for _, c := range p.Changes {
			removed += fmt.Sprintf("%s %s %s", c.Action, c.Object, c.Name)
		}
		if keep && removed != "remove service old" || !keep && removed != "" {
			t.Errorf("kept %v of %q, and no longer: %q", keep, tc.pkg, removed)
		}
	}
}

// TestAnAppIsNotTakenOverUnasked: what its source does not have is not removed from an app that
// somebody else made.
func TestAnAppIsNotTakenOverUnasked(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	two := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1"), "extra": service("extra:1")})
	deployed(t, b, two)
	follow := func(change func(*cluster.Delivery)) cluster.Delivery {
		set := fromGit("shop")
		set.Replace = true
		change(&set.Delivery)
		d, err := b.SetDelivery(ctx, "shop", set)
		if err != nil {
			t.Fatal(err)
		}
		d.Rev = b.rev(store.DeliveryKey("shop"))
		return d.Delivery
	}
	one := api.Fetched{Bundle: bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2")})}
	d := follow(func(*cluster.Delivery) {})
	if p, err := b.srv.PlanDelivery(ctx, d, one); err != nil || !slices.ContainsFunc(p.Changes, func(c v1.Change) bool { return c.Action == v1.ActionRemove && c.Name == "extra" }) {
		t.Errorf("its diff: %+v, %v", p.Changes, err)
	}
	_, err := b.srv.Deliver(ctx, d, one, 1)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "does not have its extra: `fairlead delivery create shop … --replace` with --adopt") {
		t.Fatalf("it was taken over: %v", err)
	}
	// All of it is there, or it is kept, or that was asked for.
	same := two
	same.Services = map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2"), "extra": service("extra:1")}
	for n, try := range []struct {
		change func(*cluster.Delivery)
		bundle v1.Bundle
	}{
		{func(d *cluster.Delivery) { d.KeepGone = true }, one.Bundle},
		{func(*cluster.Delivery) {}, same},
		{func(d *cluster.Delivery) { d.Adopt = true }, one.Bundle},
	} {
		release := deployed(t, b, two).Release
		if r, err := b.srv.Deliver(ctx, follow(try.change), api.Fetched{Bundle: try.bundle}, release); err != nil || !r.Changed {
			t.Errorf("%d: %+v, %v", n, r, err)
		}
	}
	// Once it has made the app, what comes by hand is drift.
	release := deployed(t, b, two).Release
	b.put(store.DeliveryStateKey("shop"), cluster.DeliveryState{Name: "shop", Applied: &cluster.Applied{Release: 1}})
	if r, err := b.srv.Deliver(ctx, follow(func(*cluster.Delivery) {}), one, release); err != nil || !r.Changed {
		t.Errorf("drift: %+v, %v", r, err)
	}
}

// TestChangesByHandOfAFollowedApp: whoever makes one is told that it does not last.
func TestChangesByHandOfAFollowedApp(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	web := func(image string) v1.Bundle {
		return bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(image)})
	}
	if r := deployed(t, b, web("web:1")); len(r.Plan.Warnings) > 0 {
		t.Errorf("nothing follows it: %v", r.Plan.Warnings)
	}
	if _, err := b.SetDelivery(ctx, "live", fromGit("shop")); err != nil {
		t.Fatal(err)
	}
	warned := func() map[string]bool {
		out := map[string]bool{}
		note := func(what string, p v1.Plan, err error) {
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			out[what] = slices.ContainsFunc(p.Warnings, func(d v1.Detail) bool { return strings.Contains(d.Message, "the delivery live follows shop") })
		}
		p, err := b.Plan(ctx, "shop", web("web:2"))
		note("plan", p, err)
		r, err := b.Deploy(ctx, "shop", web("web:2"))
		note("deploy", r.Plan, err)
		r, err = b.Deploy(ctx, "shop", web("web:2"))
		note("nothing", r.Plan, err)
		r, err = b.Update(ctx, "shop", v1.UpdateRequest{Images: map[cluster.ServiceName]v1.ImageRef{"web": {Ref: "web:3"}}})
		note("update", r.Plan, err)
		r, err = b.Rollback(ctx, "shop", 1)
		note("rollback", r.Plan, err)
		r, err = b.Restart(ctx, "shop", v1.RestartRequest{})
		note("restart", r.Plan, err)
		return out
	}
	if diff := cmp.Diff(map[string]bool{"plan": true, "deploy": true, "nothing": false, "update": true, "rollback": true, "restart": false}, warned()); diff != "" {
		t.Error(diff)
	}
	if _, err := b.Suspend(ctx, "live"); err != nil {
		t.Fatal(err)
	}
	for what, is := range warned() {
		if is {
			t.Errorf("suspended, %s warns", what)
		}
	}
}

// TestAPackageThatDrawsAtRandom: rendered again from the same it is no change, what is changed by
// hand is, and goes back to what was drawn first.
func TestAPackageThatDrawsAtRandom(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	set, err := b.SetDelivery(ctx, "shop", fromGit("shop"))
	if err != nil {
		t.Fatal(err)
	}
	d := set.Delivery
	d.Rev = b.rev(store.DeliveryKey("shop"))
	rendered := func(input, drawn string) api.Fetched {
		spec := service("web:1")
		spec.Task.Env = map[string]string{"DRAWN": drawn}
		spec.Task.Configs = []cluster.FileRef{{Name: "conf", Target: "/conf"}}
		spec.Task.Secrets = []cluster.FileRef{{Name: "key", Target: "/run/secrets/key"}}
		bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
		bun.Configs = map[string][]byte{"conf": []byte(drawn)}
		bun.Secrets = map[string]v1.SecretDecl{"key": {Value: []byte(drawn)}}
		bun.Rendered = "services: " + drawn
		bun.Package = &v1.Package{Chart: "shop", Version: "1.0.0", Notes: drawn, Input: input}
		return api.Fetched{Bundle: bun, Origin: cluster.Origin{Delivery: "shop", Revision: drawn}}
	}
	first, err := b.srv.Deliver(ctx, d, rendered("i1", "one"), 0)
	if err != nil || !first.Changed {
		t.Fatalf("%+v, %v", first, err)
	}
	has := func(what, drawn string) {
		t.Helper()
		svc := get[cluster.Service](b, store.ServiceKey(cluster.ServiceID{App: "shop", Name: "web"}))
		if got := svc.Spec.Task.Env["DRAWN"]; got != drawn || svc.Spec.Task.Image != "web:1" {
			t.Errorf("%s: %s with %q, not %q", what, svc.Spec.Task.Image, got, drawn)
		}
		p, err := b.Package(ctx, "shop", 0)
		if err != nil || p.Notes != drawn || p.Manifest != "services: "+drawn {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	same := func(what string, f api.Fetched, release int) {
		t.Helper()
		if p, err := b.srv.PlanDelivery(ctx, d, f); err != nil || !p.Empty() {
			t.Errorf("%s: %+v, %v", what, p.Changes, err)
		}
		if r, err := b.srv.Deliver(ctx, d, f, release); err != nil || r.Changed {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	same("rendered again", rendered("i1", "two"), 1)
	if _, err := b.Restart(ctx, "shop", v1.RestartRequest{}); err != nil {
		t.Fatal(err)
	}
	same("restarted", rendered("i1", "three"), 2)
	if _, err := b.Update(ctx, "shop", v1.UpdateRequest{Images: map[cluster.ServiceName]v1.ImageRef{"web": {Ref: "web:9"}}}); err != nil {
		t.Fatal(err)
	}
	r, err := b.srv.Deliver(ctx, d, rendered("i1", "four"), 3)
	if err != nil || !r.Changed {
		t.Fatalf("changed by hand: %+v, %v", r, err)
	}
	has("corrected", "one")
	same("corrected", rendered("i1", "five"), 4)
	if r, err = b.srv.Deliver(ctx, d, rendered("i2", "six"), 4); err != nil || !r.Changed {
		t.Fatalf("of other values: %+v, %v", r, err)
	}
	has("of other values", "six")
	// The version before took more for its input.
	older := rendered("i2 anew", "drawn at the update")
	older.InputBefore = "i2"
	same("updated", older, r.Release)
	// Where nobody noted what it was rendered from, as in earlier versions, it is no change to do so.
	old := rendered("", "seven")
	if r, err = b.srv.Deliver(ctx, d, old, 5); err != nil || !r.Changed {
		t.Fatalf("%+v, %v", r, err)
	}
	same("noted later", rendered("i3", "seven"), 6)
}

// While a version rolls out, and after it failed, containers of the one before run: they are
// led back to what made them.
func TestTraceOfWhatRuns(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if _, err := b.SetDelivery(ctx, "shop", fromGit("shop")); err != nil {
		t.Fatal(err)
	}
	deliver := func(revision, image string, after int) {
		t.Helper()
		d := fromGit("shop").Delivery
		d.Name, d.Rev = "shop", b.rev(store.DeliveryKey("shop"))
		origin := cluster.Origin{Delivery: "shop", URL: d.Source.URL, Ref: "main", Revision: revision, Author: "Ann"}
		bun := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service(image)})
		if r, err := b.srv.Deliver(ctx, d, api.Fetched{Origin: origin, Bundle: bun}, after); err != nil || !r.Changed {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	runs := func() cluster.TaskID {
		svc := get[cluster.Service](b, store.ServiceKey(webID))
		task := cluster.NewTaskID(webID, 1, svc.Created, int64(svc.Release), "")
		b.put(store.TaskKey("shop", task), cluster.Task{
			ID: task, ServiceID: webID, Slot: 1, Version: svc.Version, Release: svc.Release, Spec: svc.Spec.Task, Desire: cluster.DesireRun, N: int64(svc.Release),
		})
		return task
	}
	type led struct {
		release, earlier int
		revision, from   string
		of               []cluster.TaskID
	}
	leads := func(want led) {
		t.Helper()
		tr, err := b.Trace(ctx, webID)
		got := led{release: tr.Release.Number}
		if tr.Origin != nil {
			got.revision = tr.Origin.Revision
		}
		for _, e := range tr.Earlier {
			got.earlier, got.of = e.Release.Number, e.Of
			if e.Origin != nil {
				got.from = e.Origin.Revision
			}
		}
		if err != nil || len(tr.Earlier) > 1 || !cmp.Equal(want, got, cmp.AllowUnexported(led{})) {
			t.Errorf("%v: %+v\n%s", err, tr, cmp.Diff(want, got, cmp.AllowUnexported(led{})))
		}
	}

	deliver("a", "web:1", 0)
	first := runs()
	leads(led{release: 1, revision: "a"})
	if _, err := b.Scale(ctx, "shop", v1.ScaleRequest{Services: map[cluster.ServiceName]v1.ScaleTo{"web": {Replicas: 3}}}); err != nil {
		t.Fatal(err)
	}
	deliver("b", "web:2", 1)
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	leads(led{release: svc.Release, revision: "b", earlier: 1, from: "a", of: []cluster.TaskID{first}})
	second := runs()
	leads(led{release: svc.Release, revision: "b", earlier: 1, from: "a", of: []cluster.TaskID{first}}) // second is of what is wanted

	// What completed last is of the release that it completed with, not of its tasks' own.
	spec := service("web:1").Task
	task := get[cluster.Task](b, store.TaskKey("shop", first))
	if task.Version != spec.Hash() {
		t.Fatalf("the first is of version %s, not %s", task.Version, spec.Hash())
	}
	task.Release = 77
	b.put(store.TaskKey("shop", first), task)
	leads(led{release: svc.Release, revision: "b", earlier: 77, of: []cluster.TaskID{first}})
	made, err := b.store.Get(ctx, store.ServiceKey(webID))
	if err != nil {
		t.Fatal(err)
	}
	b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: svc.Release, State: cluster.RolloutFailed, Stable: &spec, StableRelease: 1, Created: cluster.StoreRev(made.Created)})
	leads(led{release: svc.Release, revision: "b", earlier: 1, from: "a", of: []cluster.TaskID{first}})

	deliver("c", "web:3", svc.Release)
	svc = get[cluster.Service](b, store.ServiceKey(webID))
	tr, err := b.Trace(ctx, webID)
	if err != nil || tr.Release.Number != svc.Release || len(tr.Earlier) != 2 || tr.Earlier[0].Release.Number < tr.Earlier[1].Release.Number || !slices.Contains(tr.Earlier[0].Of, second) {
		t.Errorf("%+v, %v", tr, err)
	}
}
