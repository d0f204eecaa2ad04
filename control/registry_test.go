package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proxyconf"
	"github.com/fairlead/fairlead/registry"
	"github.com/fairlead/fairlead/store"
)

func TestTraefikRootIsOne(t *testing.T) {
	if proxyconf.Root != store.TraefikRoot {
		t.Errorf("proxyconf writes below %q, the store's table says %q", proxyconf.Root, store.TraefikRoot)
	}
}

// strict refuses writes of keys that the writer does not own.
type strict struct {
	store.Store
	t      *testing.T
	writer store.Writer
}

func (s strict) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if len(txn.If) > store.MaxOps || len(txn.Then) > store.MaxOps {
		s.t.Errorf("a transaction of %d comparisons and %d writes", len(txn.If), len(txn.Then))
	}
	for _, op := range txn.Then {
		if !store.MayWrite(s.writer, op.Key) {
			s.t.Errorf("%s may not write %s", s.writer, op.Key)
		}
	}
	return s.Store.Commit(ctx, txn)
}

func write(t *testing.T, st store.Store, key string, v any) int64 {
	t.Helper()
	op, err := store.PutJSON(key, v)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// A task that becomes ready becomes an endpoint, then a server in Traefik's tree
// with a marker that covers it; what drains goes the same way.
func TestFromStatusToTraefik(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := hclog.NewNullLogger()
		m, tree := store.NewMirror(st, store.Root, log), store.NewMirror(st, store.TraefikRoot, log)
		reg := Registry(strict{st, t, store.WriterRegistry}, m, RegistryOptions{Addresses: netip.MustParsePrefix("10.212.0.0/16"), Now: time.Now}, log)
		pc := Proxyconf(strict{st, t, store.WriterProxyconf}, m, tree, ProxyconfOptions{Now: time.Now}, log)
		for _, run := range []func(context.Context) error{m.Run, tree.Run, reg.Run, pc.Run} {
			go func() { _ = run(ctx) }()
		}
		// More services than fit one transaction.
		const n = 60
		spec := cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "shop_default"}}}
		write(t, st, store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1"})
		write(t, st, store.AliveKey("n1"), "x")
		task := func(i int, desire cluster.Desire) cluster.Task {
			id := cluster.ServiceID{App: "shop", Name: cluster.ServiceName(fmt.Sprintf("s%d", i))}
			return cluster.Task{ID: cluster.TaskID(fmt.Sprintf("t%d", i)), ServiceID: id, Slot: 1, Spec: spec, Desire: desire}
		}
		for i := range n {
			tk := task(i, cluster.DesireRun)
			write(t, st, store.ServiceKey(tk.ServiceID), cluster.Service{ServiceID: tk.ServiceID, Spec: cluster.ServiceSpec{
				Task: spec, Routes: []cluster.Route{{Host: fmt.Sprintf("s%d.example.com", i), Port: 80}},
			}})
			write(t, st, store.TaskKey("shop", tk.ID), tk)
			write(t, st, store.PlacementKey("n1", tk.ID), cluster.NodePlacement{Task: tk.ID, Node: "n1", ServiceID: tk.ServiceID, Spec: spec, Desire: cluster.DesireRun})
			write(t, st, store.StatusKey("n1", tk.ID), cluster.Status{
				Task: tk.ID, Node: "n1", ServiceID: tk.ServiceID, State: cluster.StateRunning, Ready: true,
				Addresses: map[cluster.NetworkName]string{"shop_default": fmt.Sprintf("10.213.0.%d", i+2)},
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		servers := func() (n int) {
			entries, _, err := st.List(t.Context(), "traefik/http/services/shop_")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.HasSuffix(e.Key, "/url") {
					n++
				}
			}
			return n
		}
		covered := func(name string) bool {
			e, err := st.Get(t.Context(), store.EndpointsKey(cluster.ServiceID{App: "shop", Name: cluster.ServiceName(name)}))
			if err != nil {
				t.Fatal(err)
			}
			marker, err := st.Get(t.Context(), proxyconf.MarkerKey)
			if err != nil {
				t.Fatal(err)
			}
			rev, ok := proxyconf.ParseMarker(string(marker.Value))
			return ok && int64(rev) >= e.Rev
		}
		if servers() != n || !covered("s0") || !covered(fmt.Sprintf("s%d", n-1)) {
			t.Fatalf("%d servers of %d", servers(), n)
		}
		addresses, _, err := st.List(t.Context(), store.PrefixPools)
		if err != nil || len(addresses) != n {
			t.Fatalf("%d addresses: %v", len(addresses), err)
		}
		write(t, st, store.TaskKey("shop", "t7"), task(7, cluster.DesireDrain))
		time.Sleep(time.Second)
		synctest.Wait()
		if servers() != n-1 || !covered("s7") {
			t.Errorf("after draining one: %d servers", servers())
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey("n1"), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if servers() != 0 {
			t.Errorf("after the node's lease ended: %d servers", servers())
		}
		_, before, err := st.List(t.Context(), "none")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if _, after, err := st.List(t.Context(), "none"); err != nil || after != before {
			t.Errorf("a quiet cluster went from revision %d to %d", before, after)
		}
		cancel()
		synctest.Wait()
	})
}

// A server that comes back to a store without heartbeats leaves what is published to
// the nodes that it hears of in time, and withdraws the rest without another change. One
// that saw another lead all the time withdraws at once, as it does for a node that it
// has heard of.
func TestNodesAreHeardOfBeforeTheyAreWithdrawn(t *testing.T) {
	for name, c := range map[string]struct {
		waited time.Duration
		does   func(w *heard)
	}{
		"none comes back": {0, func(w *heard) {
			w.after(registry.Grace-time.Millisecond, "n1", "n2")
			w.after(2 * time.Millisecond)
		}},
		"one comes back": {0, func(w *heard) {
			w.after(3*time.Second, "n1", "n2")
			w.alive("n1")
			w.after(registry.Grace, "n1")
		}},
		"one comes back, and goes": {0, func(w *heard) {
			w.alive("n1")
			w.after(time.Second, "n1", "n2")
			w.gone("n1")
			w.after(time.Second, "n2")
		}},
		"waited for a while": {registry.Grace - time.Second, func(w *heard) {
			w.after(time.Second-time.Millisecond, "n1", "n2")
			w.after(2 * time.Millisecond)
		}},
		"waited for long": {time.Hour, func(w *heard) { w.after(time.Millisecond) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				w := &heard{t: t, st: store.NewMemory()}
				log := hclog.NewNullLogger()
				m := store.NewMirror(w.st, store.Root, log)
				id := cluster.ServiceID{App: "shop", Name: "web"}
				spec := cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "shop_default"}}}
				write(t, w.st, store.ServiceKey(id), cluster.Service{ServiceID: id, Spec: cluster.ServiceSpec{Task: spec}})
				published := cluster.Endpoints{ServiceID: id}
				for i, n := range []cluster.NodeID{"n1", "n2"} {
					task := cluster.TaskID("on-" + n)
					at := map[cluster.NetworkName]string{"shop_default": fmt.Sprintf("10.213.%d.2", i)}
					write(t, w.st, store.NodeInfoKey(n), cluster.NodeInfo{ID: n})
					write(t, w.st, store.TaskKey("shop", task), cluster.Task{ID: task, ServiceID: id, Slot: i + 1, Spec: spec, Desire: cluster.DesireRun})
					write(t, w.st, store.PlacementKey(n, task), cluster.NodePlacement{Task: task, Node: n, ServiceID: id, Spec: spec, Desire: cluster.DesireRun})
					write(t, w.st, store.StatusKey(n, task), cluster.Status{
						Task: task, Node: n, ServiceID: id, State: cluster.StateRunning, Ready: true, Addresses: at,
					})
					published.Tasks = append(published.Tasks, cluster.Endpoint{Task: task, Slot: i + 1, Node: n, Addresses: at})
				}
				write(t, w.st, store.EndpointsKey(id), published)
				go func() { _ = m.Run(ctx) }()
				<-m.Ready()
				reg := Registry(strict{w.st, t, store.WriterRegistry}, m, RegistryOptions{
					Addresses: netip.MustParsePrefix("10.212.0.0/16"), Since: time.Now().Add(-c.waited), Now: time.Now,
				}, log)
				go func() { _ = reg.Run(ctx) }()
				c.does(w)
				cancel()
				synctest.Wait()
			})
		})
	}
}

// heard is a store with two nodes, of which one task each is published.
type heard struct {
	t  *testing.T
	st *store.Memory
}

func (w *heard) alive(n cluster.NodeID) { write(w.t, w.st, store.AliveKey(n), "x") }

func (w *heard) gone(n cluster.NodeID) {
	w.t.Helper()
	if _, err := w.st.Commit(w.t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey(n), Delete: true}}}); err != nil {
		w.t.Fatal(err)
	}
}

// after lets time pass; of these nodes' tasks, and no others, something is published then.
func (w *heard) after(d time.Duration, want ...string) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	e, err := w.st.Get(w.t.Context(), store.EndpointsKey(cluster.ServiceID{App: "shop", Name: "web"}))
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	var published cluster.Endpoints
	if err := json.Unmarshal(e.Value, &published); err != nil {
		w.t.Fatal(err)
	}
	for _, x := range published.Tasks {
		got = append(got, string(x.Node))
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("published are the tasks on %v, should be those on %v", got, want)
	}
}

// That a service has no address is told once, and taken back when it has one.
func TestNoServiceAddressIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := hclog.NewNullLogger()
		m := store.NewMirror(st, store.Root, log)
		reg := Registry(strict{st, t, store.WriterRegistry}, m, RegistryOptions{Addresses: netip.MustParsePrefix("10.0.0.0/30"), Now: time.Now}, log)
		for _, run := range []func(context.Context) error{m.Run, reg.Run} {
			go func() { _ = run(ctx) }()
		}
		id := func(i int) cluster.ServiceID {
			return cluster.ServiceID{App: "shop", Name: cluster.ServiceName(fmt.Sprintf("s%d", i))}
		}
		for i := range 3 { // for two addresses
			write(t, st, store.ServiceKey(id(i)), cluster.Service{
				ServiceID: id(i), Spec: cluster.ServiceSpec{Task: cluster.TaskSpec{Networks: []cluster.NetworkRef{{Name: "n"}}}},
			})
			time.Sleep(time.Second)
		}
		synctest.Wait()
		key := store.DecisionKey("registry", id(2).String())
		first, err := st.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if e, err := st.Get(t.Context(), key); err != nil || e.Rev != first.Rev {
			t.Errorf("written again: revision %d, then %d, %v", first.Rev, e.Rev, err)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.ServiceKey(id(0)), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := st.Get(t.Context(), key); cluster.KindOf(err) != cluster.KindNotFound {
			t.Errorf("the decision stays: %v", err)
		}
		if _, err := st.Get(t.Context(), store.AddressKey(id(2))); err != nil {
			t.Errorf("it has no address: %v", err)
		}
	})
}

// The endpoints of many large services, all of which change at once when a node comes
// back, do not fit into one transaction by their size. An address and the endpoints that
// carry it do not come apart.
func TestManyEndpointsAreSplitBySize(t *testing.T) {
	st := store.NewMemory()
	var acts []registry.Action
	const services = 60
	for i := range services {
		id := cluster.ServiceID{App: "shop", Name: cluster.ServiceName(fmt.Sprintf("web%d", i))}
		e := cluster.Endpoints{ServiceID: id, Address: fmt.Sprintf("10.212.0.%d", i+1)}
		for slot := range 300 {
			e.Tasks = append(e.Tasks, cluster.Endpoint{
				Task: cluster.NewTaskID(id, slot, 1, int64(slot), ""), Slot: slot, Node: "n1",
				Addresses: map[cluster.NetworkName]string{"shop_default": "10.213.0.9"},
			})
		}
		acts = append(acts, registry.PutAddress{Service: id, Address: netip.MustParseAddr(e.Address)}, registry.PutEndpoints{Endpoints: e})
	}
	r := &registryStore{store: strict{st, t, store.WriterRegistry}, log: hclog.NewNullLogger()}
	if err := r.apply(t.Context(), registry.Snapshot{}, acts); err != nil {
		t.Fatal(err)
	}
	revs := map[string]int64{} // by service
	for _, prefix := range []string{store.PrefixEndpoints, store.PrefixPools + "addresses/"} {
		entries, _, err := st.List(t.Context(), prefix)
		if err != nil || len(entries) != services {
			t.Fatalf("%d of %d below %s: %v", len(entries), services, prefix, err)
		}
		for _, x := range entries {
			name := strings.TrimPrefix(x.Key, prefix)
			if rev, ok := revs[name]; ok && rev != x.Rev {
				t.Errorf("the address of %s was written at %d, its endpoints at %d", name, x.Rev, rev)
			}
			revs[name] = x.Rev
		}
	}
}
