package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

const (
	hashOne = "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"
	hashTwo = "$2y$05$abcdefghijklmnopqrstuuO1hyuW2EEbJJ8eCiVCr4RnU6Z.zz.zz"
)

// guarded is a bundle as labels make it: the list stands in the route, in the
// container's labels and in the rendered document.
func guarded(hash string) v1.Bundle {
	spec := service("web:1")
	spec.Task.Labels = map[string]string{"team": "shop", "traefik.http.middlewares.Auth.BasicAuth.Users": "ann:" + hash}
	spec.Labels = map[string]string{"traefik.http.middlewares.other.digestauth.users[0]": "bob:realm:deadbeefdeadbeef"}
	m := cluster.Middleware{Name: "auth", Options: map[string]string{"basicauth/users": "ann:" + hash, "basicauth/realm": "shop"}}
	spec.Routes = []cluster.Route{
		{Host: "shop.test", Port: 80, Middlewares: []cluster.Middleware{{Name: "again", Options: map[string]string{"retry/attempts": "2"}}, m}},
		{Host: "www.shop.test", Port: 80, Middlewares: []cluster.Middleware{m}},
	}
	b := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec})
	b.Rendered = "labels:\n  traefik.http.middlewares.Auth.BasicAuth.Users: ann:" + strings.ReplaceAll(hash, "$", "$$") +
		"\n  traefik.http.middlewares.other.digestauth.users[0]: bob:realm:deadbeefdeadbeef\n  plain: " + hash + "\n"
	return b
}

// No hash of a user's password reaches the store, an answer or the log in clear,
// and the same list stays the same.
func TestUserListsAreStoredSealed(t *testing.T) {
	b := newBench(t)
	clear := func() []string {
		var in []string
		for _, k := range b.keys(store.Root) {
			e, err := b.store.Get(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range []string{hashOne, hashTwo, strings.ReplaceAll(hashOne, "$", "$$"), strings.ReplaceAll(hashTwo, "$", "$$"), "deadbeef"} {
				if strings.Contains(string(e.Value), h) {
					in = append(in, k)
				}
			}
		}
		return in
	}
	p, err := b.Plan(t.Context(), "shop", guarded(hashOne))
	if err != nil || strings.Contains(fmt.Sprint(p), "apr1") || len(b.keys(store.PrefixApps)) != 0 {
		t.Fatalf("%+v, %v, %v", p, err, b.keys(store.PrefixApps))
	}
	bun := guarded(hashOne)
	deployed(t, b, bun)
	if d := cmp.Diff(guarded(hashOne), bun); d != "" {
		t.Errorf("the caller's bundle was changed: %s", d)
	}
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	first := svc.Spec.Routes[0].Middlewares[1]
	if !cluster.ValidUserListID(first.Sealed) || first.Options != nil || first.Name != "auth" {
		t.Fatalf("%+v", first)
	}
	if second := svc.Spec.Routes[1].Middlewares[0]; second.Sealed != first.Sealed {
		t.Errorf("one list has two IDs, %s and %s", first.Sealed, second.Sealed)
	}
	if d := cmp.Diff(map[string]string{"team": "shop"}, svc.Spec.Task.Labels); d != "" || len(svc.Spec.Labels) != 0 {
		t.Errorf("labels %s, %v", d, svc.Spec.Labels)
	}
	rec := get[cluster.UserList](b, store.UserListKey("shop", first.Sealed))
	a, err := secrets.OpenUsers(b.key, rec)
	want := cluster.Auth{Kind: "basicauth", Users: []string{"ann:" + hashOne}, Realm: "shop"}
	if d := cmp.Diff(want, a); d != "" || err != nil || rec.By != "ann" {
		t.Errorf("%v %s %+v", err, d, rec)
	}
	rec.App = "other"
	if _, err := secrets.OpenUsers(b.key, rec); err == nil {
		t.Error("another app's list opens as this one's")
	}

	if r := deployed(t, b, guarded(hashOne)); r.Changed {
		t.Errorf("the same list again: %+v", r.Plan.Changes)
	}
	if r := deployed(t, b, guarded(hashTwo)); !r.Changed || r.Plan.Changes[0].Replaces || strings.Contains(fmt.Sprint(r), "$2y$") {
		t.Errorf("another list: %+v", r)
	}
	if lists := b.keys(store.UserListKey("shop", "")); len(lists) != 2 {
		t.Errorf("lists %v: the release before refers to its own", lists)
	}
	if _, err := b.Rollback(t.Context(), "shop", 1); err != nil {
		t.Fatal(err)
	}
	if m := get[cluster.Service](b, store.ServiceKey(webID)).Spec.Routes[0].Middlewares[1]; m.Sealed != first.Sealed {
		t.Errorf("after the rollback it has %s, not %s", m.Sealed, first.Sealed)
	}
	if in := clear(); len(in) != 0 {
		t.Errorf("in clear in %v", in)
	}
	for _, h := range []string{hashOne, hashTwo} {
		if strings.Contains(b.log.String(), h) {
			t.Error("the log holds a hash")
		}
	}
	if _, err := b.Remove(t.Context(), "shop", v1.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := b.keys(store.AppPrefix("shop")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A list that nothing refers to any more goes with the releases that did.
func TestUserListsArePruned(t *testing.T) {
	b := newBench(t)
	deployed(t, b, guarded(hashOne))
	open := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")})
	for i := range cluster.KeptReleases + 3 {
		spec := open.Services["web"]
		spec.Task.Image = fmt.Sprint("web:", i)
		open.Services["web"] = spec
		deployed(t, b, open)
	}
	if lists := b.keys(store.UserListKey("shop", "")); len(lists) != 0 {
		t.Errorf("lists %v", lists)
	}
}

func TestUserListsThatAreWrongAreRefused(t *testing.T) {
	b := newBench(t)
	for name, test := range map[string]struct {
		m    cluster.Middleware
		says string
	}{
		"without a hash":  {cluster.Middleware{Name: "m", Options: map[string]string{"basicauth/users": "ann"}}, "user 1 is not written name:hash"},
		"a file":          {cluster.Middleware{Name: "m", Options: map[string]string{"basicauth/usersfile": "/etc/shadow"}}, "reads files"},
		"nobody's list":   {cluster.Middleware{Name: "m", Sealed: "basicauth-0123456789abcdef"}, "no user list"},
		"a list and more": {cluster.Middleware{Name: "m", Sealed: "x", Options: map[string]string{"retry/attempts": "2"}}, "no user list"},
	} {
		spec := service("web:1")
		spec.Routes = []cluster.Route{{Host: "shop.test", Port: 80, Middlewares: []cluster.Middleware{test.m}, Source: cluster.Source{File: "compose.yaml", Line: 7}}}
		_, err := b.Deploy(t.Context(), "shop", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "compose.yaml:7") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(b.keys(store.PrefixApps)) != 0 {
		t.Errorf("stored %v", b.keys(store.PrefixApps))
	}
}
