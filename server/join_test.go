package server

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
	"github.com/fairlead/fairlead/tunnel"
)

// door is the admission of a server; step is called before everything that it does in
// the store, which other servers share.
type door struct {
	*admission
	store *store.Memory
	names map[string][]store.Grant // of etcd's users
	step  func()
}

func newDoor(t *testing.T) *door {
	t.Helper()
	m := &machine{local: local{Config: Config{DataDir: t.TempDir(), Node: "n1", Advertise: "10.0.0.1", ServiceRange: "10.212.0.0/16", Log: hclog.NewNullLogger()}, now: time.Now}}
	if err := m.readKeys(); err != nil {
		t.Fatal(err)
	}
	d := &door{store: store.NewMemory(), names: map[string][]store.Grant{}, step: func() {}}
	d.admission = &admission{
		machine: m, users: d, records: d, hub: tunnel.NewHub(hclog.NewNullLogger()),
		mirror: store.NewMirror(d.store, store.Root, hclog.NewNullLogger()),
	}
	return d
}

// as is the same door with another step: another server's.
func (d *door) as(step func()) *door {
	o := &door{store: d.store, names: d.names, step: step}
	a := *d.admission
	a.users, a.records = o, o
	o.admission = &a
	return o
}

func (d *door) Users(context.Context) ([]string, error) {
	d.step()
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *door) AddUser(_ context.Context, name string, grants []store.Grant) error {
	d.step()
	d.names[name] = grants
	return nil
}

func (d *door) RemoveUser(_ context.Context, name string) error {
	d.step()
	delete(d.names, name)
	return nil
}

func (d *door) Get(ctx context.Context, key string) (store.Entry, error) {
	d.step()
	return d.store.Get(ctx, key)
}

func (d *door) List(ctx context.Context, prefix string) ([]store.Entry, int64, error) {
	d.step()
	return d.store.List(ctx, prefix)
}

// write makes a node's record, or removes it when it has no key.
func (d *door) write(t *testing.T, spec cluster.NodeSpec) {
	t.Helper()
	d.step()
	op, err := store.PutJSON(store.NodeSpecKey(spec.ID), spec)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Key == "" {
		op = store.Op{Key: op.Key, Delete: true}
	}
	if _, err := d.store.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
}

// request is a machine's request for a certificate, and the name of its key.
func request(t *testing.T) (csr []byte, key string) {
	t.Helper()
	csr, err := pki.PrepareMember(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, err := pki.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	return csr, r.Key
}

// interleave runs functions that hand over at each step, in an order that a seed gives.
func interleave(seed uint64, all ...func(step func())) {
	type actor struct {
		resume chan struct{}
		done   chan bool
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	var live []actor
	for _, f := range all {
		a := actor{make(chan struct{}), make(chan bool)}
		live = append(live, a)
		go func() {
			<-a.resume
			f(func() { a.done <- false; <-a.resume })
			a.done <- true
		}()
	}
	for len(live) > 0 {
		i := rnd.IntN(len(live))
		live[i].resume <- struct{}{}
		if <-live[i].done {
			live = slices.Delete(live, i, i+1)
		}
	}
}

// However servers come in one another's way, in the end the store is open to the machine
// that a node's record names, and to no other of the name.
func TestTheStoreIsOpenToWhomTheRecordNames(t *testing.T) {
	base := newDoor(t)
	csr2, key2 := request(t)
	csr9, key9 := request(t)
	expel := func(t *testing.T, d *door) {
		t.Helper()
		d.write(t, cluster.NodeSpec{ID: "n2"})
		if _, err := d.Expel(t.Context(), "n2"); err != nil {
			t.Error(err)
		}
	}
	join := func(csr []byte, key string) func(*testing.T, *door) {
		return func(t *testing.T, d *door) {
			t.Helper()
			d.write(t, cluster.NodeSpec{ID: "n2", Key: key})
			if _, err := d.Admit(t.Context(), "n2", csr); err != nil && cluster.KindOf(err) != cluster.KindForbidden {
				t.Error(err)
			}
		}
	}
	renew := func(t *testing.T, d *door) {
		t.Helper()
		if _, err := d.Admit(t.Context(), "n2", csr2); err != nil && cluster.KindOf(err) != cluster.KindForbidden {
			t.Error(err)
		}
	}
	start := func(t *testing.T, d *door) {
		t.Helper()
		if err := d.followAll(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for name, what := range map[string][]func(*testing.T, *door){
		"removed while it renews":                   {expel, renew},
		"removed while it joins again":              {expel, renew, renew},
		"removed while a server starts":             {expel, start},
		"joins anew while it is removed":            {expel, join(csr2, key2)},
		"another machine takes its name":            {expel, renew, join(csr9, key9)},
		"a server starts while it joins":            {join(csr2, key2), start},
		"all at once":                               {expel, renew, start, join(csr9, key9), expel},
		"removed and joined again, twice":           {expel, join(csr2, key2), expel, join(csr2, key2)},
		"another machine, while a server starts":    {join(csr9, key9), start, renew},
		"the former machine renews after the other": {join(csr9, key9), renew},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(200) {
				d := base.as(func() {})
				d.store = store.NewMemory()
				d.names = map[string][]store.Grant{"root": nil, "backup": nil, pki.NodeName("n2"): nil, pki.MemberName("n20", key2): nil}
				d.write(t, cluster.NodeSpec{ID: "n20", Key: key2})
				others := maps.Clone(d.names)
				d.write(t, cluster.NodeSpec{ID: "n2", Key: key2})
				d.names[pki.MemberName("n2", key2)] = nil
				var actors []func(func())
				for _, f := range what {
					actors = append(actors, func(step func()) { f(t, d.as(step)) })
				}
				interleave(seed, actors...)
				want := slices.Collect(maps.Keys(others))
				if spec, _, err := d.record(t.Context(), "n2"); err != nil {
					t.Fatal(err)
				} else if spec.Key != "" {
					want = append(want, pki.MemberName("n2", spec.Key))
				}
				slices.Sort(want)
				if got, _ := d.Users(t.Context()); !cmp.Equal(got, want) {
					t.Fatalf("seed %d: users %v, want %v", seed, got, want)
				}
			}
		})
	}
}

// A certificate is given for the record's key alone, with what the record allows.
func TestAdmitFollowsTheRecord(t *testing.T) {
	d := newDoor(t)
	csr, key := request(t)
	other, _ := request(t)
	user := pki.MemberName("n2", key)
	if _, err := d.Admit(t.Context(), "n2", csr); cluster.KindOf(err) != cluster.KindForbidden || len(d.names) > 0 {
		t.Errorf("without a record: %v, users %v", err, d.names)
	}
	d.write(t, cluster.NodeSpec{ID: "n2", Key: key, Gateway: true})
	m, err := d.Admit(t.Context(), "n2", csr)
	if err != nil || !m.Gateway || !cmp.Equal(d.names[user], store.NodeGrants(cluster.NodeSpec{ID: "n2", Gateway: true})) {
		t.Errorf("with one: %+v, %v, users %v", m, err, d.names)
	}
	if _, err := d.Admit(t.Context(), "n2", other); cluster.KindOf(err) != cluster.KindForbidden || len(d.names) != 1 {
		t.Errorf("with another key: %v, users %v", err, d.names)
	}
	if open, err := d.Expel(t.Context(), "n2"); err != nil || open || len(d.names) != 1 {
		t.Errorf("one with a record is expelled: %v, %v, users %v", open, err, d.names)
	}
	d.write(t, cluster.NodeSpec{ID: "n2"})
	for _, want := range []bool{true, false} {
		if open, err := d.Expel(t.Context(), "n2"); err != nil || open != want || len(d.names) > 0 {
			t.Errorf("expelled: was open %v, want %v, %v; users %v", open, want, err, d.names)
		}
	}
}

// A server that starts closes the store to nodes that have no record, and to nobody who
// is no node; a record that it cannot read keeps nothing from the others.
func TestUsersWithoutARecordGo(t *testing.T) {
	d := newDoor(t)
	d.names = map[string][]store.Grant{
		"root": nil, "backup": nil, "node:": nil, pki.NodeName("n1"): nil, pki.NamePeer: nil,
		"node:n2:aaaa": nil, "node:n2:bbbb": nil, "node:n3:cccc": nil, "node:n4:dddd": nil,
	}
	d.write(t, cluster.NodeSpec{ID: "n2", Key: "aaaa"})
	d.write(t, cluster.NodeSpec{ID: "n5", Key: "eeee"})
	if _, err := d.store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.NodeSpecKey("n3"), Value: []byte("{")}}}); err != nil {
		t.Fatal(err)
	}
	if err := d.followAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(slices.Sorted(maps.Keys(d.names)), " ")
	want := strings.Join(slices.Sorted(slices.Values([]string{"root", "backup", "node:", pki.NodeName("n1"), pki.NamePeer, "node:n2:aaaa", "node:n3:cccc", "node:n5:eeee"})), " ")
	if got != want {
		t.Errorf("users %s, want %s", got, want)
	}
	if len(d.names["node:n2:aaaa"]) == 0 || len(d.names["node:n5:eeee"]) == 0 {
		t.Errorf("what they may: %v", d.names)
	}
}

// With an external etcd a node's record is all that it needs.
func TestRecordsAreUsers(t *testing.T) {
	d := newDoor(t)
	d.users = recordUsers{}
	csr, key := request(t)
	if _, err := d.Admit(t.Context(), "n2", csr); cluster.KindOf(err) != cluster.KindForbidden {
		t.Errorf("without a record: %v", err)
	}
	d.write(t, cluster.NodeSpec{ID: "n2", Key: key})
	if _, err := d.Admit(t.Context(), "n2", csr); err != nil {
		t.Error(err)
	}
	if open, err := d.Expel(t.Context(), "n2"); err != nil || open {
		t.Errorf("%v, %v", open, err)
	}
	if spec, _, err := d.record(t.Context(), "n2"); err != nil || spec.Key != key {
		t.Errorf("its record: %+v, %v", spec, err)
	}
}

// The same in an etcd, where a user is made and removed in several steps each: a node
// that is removed while it renews, again and again, is refused in the end.
func TestARemovedNodeStaysRemovedInEtcd(t *testing.T) {
	srv := etcdtest.Start(t)
	st := srv.Client(t)
	if err := st.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := newDoor(t)
	d.users, d.records = st, st
	csr, key := request(t)
	user, spec := pki.MemberName("n2", key), store.NodeSpecKey("n2")
	for i := range 30 {
		op, err := store.PutJSON(spec, cluster.NodeSpec{ID: "n2", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Admit(t.Context(), "n2", csr); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _, _ = d.Admit(t.Context(), "n2", csr) })
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: spec, Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Expel(t.Context(), "n2"); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		names, err := st.Users(t.Context())
		if err != nil || slices.Contains(names, user) {
			t.Fatalf("time %d: users %v, %v", i, names, err)
		}
	}
}
