package gateway

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/atomicfile"
)

func put(kv ...string) map[string][]byte {
	out := map[string][]byte{}
	for i := 0; i < len(kv); i += 2 {
		out[kv[i]] = []byte(kv[i+1])
	}
	return out
}

// serveTree serves a tree on addr ("" picks one) and returns its address and what stops it.
func serveTree(t *testing.T, tr *tree, addr string) (string, func()) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- (&endpoint{tree: tr}).serve(ctx, l) }()
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(cancel)
	return l.Addr().String(), stop
}

func client(t *testing.T, addr string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A real etcd client, used as Traefik's provider does, sees what etcd would show.
func TestEndpointReadsAndWatches(t *testing.T) {
	tr := newTree(1000)
	tr.apply(true, put("traefik", "fairlead", "traefik/a", "1", "traefik/b", "2"), nil)
	addr, _ := serveTree(t, tr, "")
	c := client(t, addr)
	got, err := c.Get(t.Context(), "traefik", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range got.Kvs {
		keys = append(keys, string(kv.Key))
	}
	if diff := cmp.Diff([]string{seedKey, "traefik/b", "traefik/a", "traefik"}, keys); diff != "" || got.Count != 4 {
		t.Fatalf("count %d: %s", got.Count, diff)
	}
	if one, err := c.Get(t.Context(), "traefik/none"); err != nil || one.Count != 0 {
		t.Fatalf("%v %v", one, err)
	}
	watch := c.Watch(t.Context(), "traefik", clientv3.WithPrefix(), clientv3.WithRev(got.Header.Revision+1))
	tr.apply(false, put("traefik/a", "1", "traefik/b", "3"), []string{"traefik/none"}) // one real change
	tr.apply(false, nil, []string{"traefik/a"})
	var events []string
	for len(events) < 2 {
		r := <-watch
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		for _, e := range r.Events {
			events = append(events, fmt.Sprintf("%s %s=%s", e.Type, e.Kv.Key, e.Kv.Value))
		}
	}
	if diff := cmp.Diff([]string{"PUT traefik/b=3", "DELETE traefik/a="}, events); diff != "" {
		t.Error(diff)
	}
	for what, err := range map[string]error{
		"put":    second(c.Put(t.Context(), "traefik/x", "y")),
		"delete": second(c.Delete(t.Context(), "traefik/b")),
	} {
		if err == nil {
			t.Errorf("a %s was taken", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A watch that outlives the endpoint hears of the next one, whatever its
// revisions are, so that Traefik reads everything again.
func TestAWatchSurvivesARestart(t *testing.T) {
	for name, base := range map[string]int64{"later": 5000 << 10, "same": 1000, "clock put back": 1} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(1000)
			tr.apply(true, put("traefik/a", "1"), nil)
			addr, stop := serveTree(t, tr, "")
			c := client(t, addr)
			watch := c.Watch(t.Context(), "traefik", clientv3.WithPrefix(), clientv3.WithRev(tr.now()+1))
			tr.apply(false, put("traefik/a", "2"), nil)
			if r := <-watch; len(r.Events) != 1 {
				t.Fatalf("%v", r)
			}
			stop()
			if name == "same" {
				base = tr.now() << 10 // as far above as a start a millisecond later is
			}
			next := newTree(base)
			next.apply(true, put("traefik/a", "2"), nil) // nothing changed meanwhile, as far as the disk knows
			next.apply(true, put("traefik/a", "3"), nil)
			serveTree(t, next, addr)
			timeout := time.NewTimer(20 * time.Second)
			defer timeout.Stop()
			select {
			case r := <-watch:
				if r.Err() != nil || len(r.Events) == 0 {
					t.Errorf("%v %v", r.Events, r.Err())
				}
			case <-timeout.C:
				t.Error("the watch hears nothing")
			}
		})
	}
}

// What a watcher learns from any revision on, applied to what it knew, is the tree.
func TestTreeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := newTree(int64(rapid.IntRange(0, 100).Draw(t, "base")))
		type snap struct {
			rev int64
			kv  map[string]string
		}
		view := func() snap {
			pairs, rev := tr.read(treeRoot, treeRoot+"0")
			s := snap{rev, map[string]string{}}
			for _, p := range pairs {
				s.kv[p.key] = p.value
			}
			return s
		}
		history := []snap{view()}
		key := rapid.SampledFrom([]string{"traefik", "traefik/a", "traefik/b", "traefik/c", seedKey})
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			puts := map[string][]byte{}
			for range rapid.IntRange(0, 3).Draw(t, "puts") {
				puts[key.Draw(t, "key")] = []byte(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "value"))
			}
			before := view()
			tr.apply(rapid.Bool().Draw(t, "whole"), puts, rapid.SliceOfN(key, 0, 2).Draw(t, "deleted"))
			after := view()
			if changed := cmp.Diff(before.kv, after.kv) != ""; changed && after.rev <= before.rev || !changed && after.rev < before.rev {
				t.Fatalf("revision %d, then %d", before.rev, after.rev)
			}
			if after.kv[treeRoot] == "" || after.kv[seedKey] == "" {
				t.Fatal("the seed is gone")
			}
			history = append(history, after)
		}
		last := history[len(history)-1]
		for _, h := range history {
			changes, rev := tr.since(treeRoot, treeRoot+"0", h.rev+1)
			if rev != last.rev {
				t.Fatalf("revision %d, not %d", rev, last.rev)
			}
			known := maps.Clone(h.kv)
			if !slices.IsSortedFunc(changes, func(a, b change) int { return int(a.mod - b.mod) }) {
				t.Fatal("events out of order")
			}
			for _, c := range changes {
				if c.gone {
					delete(known, c.key)
				} else {
					known[c.key] = c.value
				}
			}
			if diff := cmp.Diff(last.kv, known); diff != "" {
				t.Fatalf("from %d: %s", h.rev, diff)
			}
		}
	})
}

func TestTreeKeepsItsRoutes(t *testing.T) {
	dir := t.TempDir()
	tr := newTree(7)
	if err := tr.load(dir); err != nil {
		t.Fatalf("no file is no error: %v", err)
	}
	tr.apply(true, put("traefik/a", "1", markerKey, markerPrefix+"42"), nil)
	if ok, err := tr.save(dir, 41); ok || err != nil {
		t.Fatalf("saved with another marker: %v %v", ok, err)
	}
	if ok, err := tr.save(dir, 42); !ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	back := newTree(7)
	if err := back.load(dir); err != nil {
		t.Fatal(err)
	}
	a, _ := tr.read(treeRoot, "\x00")
	b, _ := back.read(treeRoot, "\x00")
	for i := range a {
		if a[i].key != b[i].key || a[i].value != b[i].value {
			t.Errorf("%v, then %v", a[i], b[i])
		}
	}
	if m, _, _ := back.wanted(); m != 42 {
		t.Errorf("marker %d", m)
	}
	if err := atomicfile.Write(routesFile(dir), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := newTree(7).load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestEntryPointsOfTheTree(t *testing.T) {
	tr := newTree(1)
	tr.apply(true, put(
		"traefik/tcp/routers/a/entryPoints/0", "tcp-5432", "traefik/udp/routers/b/entryPoints/0", "udp-53",
		"traefik/tcp/routers/c/entryPoints/0", "web", "traefik/tcp/routers/d/service", "tcp-1",
		"traefik/http/routers/e/entryPoints/0", "tcp-2", "traefik/tcp/routers/f/entryPoints/0", "tcp-99999",
	), nil)
	_, entries, _ := tr.wanted()
	if diff := cmp.Diff([]string{"tcp-5432", "udp-53"}, entries); diff != "" {
		t.Error(diff)
	}
}
