package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// await polls f until it returns nil.
func await(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// learner makes room for a member and returns who is in its cluster.
func learner(t *testing.T, st *store.Etcd, srv *etcdtest.Server) (id uint64) {
	t.Helper()
	await(t, "room for "+srv.Config.Name, func() error {
		list, err := st.AddLearner(t.Context(), srv.Config.Peer())
		if err != nil {
			return err
		}
		srv.Config.Initial = map[string]string{srv.Config.Name: srv.Config.Peer()}
		for _, m := range list {
			if m.Peer == srv.Config.Peer() {
				id = m.ID
			} else {
				srv.Config.Initial[m.Name] = m.Peer
			}
		}
		return nil
	})
	return id
}

// ready waits for a member that votes.
func ready(t *testing.T, srv *embedded.Server) {
	t.Helper()
	select {
	case <-srv.Ready():
	case <-time.After(60 * time.Second):
		t.Fatal("it does not vote")
	}
}

// vote lets a learner vote as soon as it may.
func vote(t *testing.T, st *store.Etcd, id uint64) {
	t.Helper()
	await(t, "it has caught up", func() error { return st.Promote(t.Context(), id) })
}

func all(t *testing.T, servers ...*etcdtest.Server) *store.Etcd {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.Config.Endpoint())
	}
	st, err := store.NewEtcd(store.EtcdConfig{Endpoints: urls, TLS: servers[0].PKI.RootTLS()}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// closedPair are two members that vote, of a store that asks who its clients are.
func closedPair(t *testing.T) (one, two *etcdtest.Server, root *store.Etcd) {
	t.Helper()
	one = etcdtest.Start(t)
	root = one.Client(t)
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	two = one.Beside(t, "n2")
	id := learner(t, root, two)
	srv, _, _ := two.Launch(t)
	vote(t, root, id)
	ready(t, srv)
	return one, two, root
}

// Whoever of the members is asked lets a learner vote, also one that does not lead, in a
// store that asks who its clients are.
func TestAnyMemberLetsALearnerVote(t *testing.T) {
	t.Parallel()
	one, two, root := closedPair(t)
	follower := all(t, two)
	three := one.Beside(t, "n3")
	id := learner(t, root, three)
	srv, _, _ := three.Launch(t)
	vote(t, follower, id)
	ready(t, srv)
}

// Members join one at a time: a learner is not ready before it votes, a second one
// waits for it; one that never came is taken out, and so does not block; one that
// was taken out while it was away joins again without its data.
func TestMembersJoin(t *testing.T) {
	t.Parallel()
	one := etcdtest.Start(t)
	st := one.Client(t)
	if err := st.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	written(t, st, "a", 1)

	// Somebody asked for room and never came.
	lost := one.Beside(t, "lost")
	gone := learner(t, st, lost)
	two := one.Beside(t, "n2")
	if _, err := st.AddLearner(t.Context(), two.Config.Peer()); !errors.Is(err, store.ErrLearnerBusy) {
		t.Fatalf("a second learner: %v", err)
	}
	if err := st.Promote(t.Context(), gone); !errors.Is(err, store.ErrNotCaughtUp) {
		t.Errorf("one that never started votes: %v", err)
	}
	if err := st.RemoveMember(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := st.RemoveMember(t.Context(), gone); err != nil {
		t.Errorf("again: %v", err)
	}

	id := learner(t, st, two)
	srv, _, stop := two.Launch(t)
	await(t, "it is known by name", func() error {
		list, err := st.Members(t.Context())
		if err == nil && (len(list) != 2 || list[1].Name != "n2" && list[0].Name != "n2") {
			err = fmt.Errorf("%+v", list)
		}
		return err
	})
	select {
	case <-srv.Ready():
		t.Error("a learner is ready")
	default:
	}
	// Interrupted, and taken out meanwhile: it ends, is told why, and joins anew.
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !embedded.HasData(two.Config.Dir) {
		t.Error("it has no data")
	}
	if err := st.RemoveMember(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, ended, _ := two.Launch(t)
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it runs on")
	}
	if err := embedded.Forget(two.Config.Dir); err != nil || embedded.HasData(two.Config.Dir) {
		t.Fatalf("its data is still there: %v", err)
	}
	id = learner(t, st, two)
	srv, _, _ = two.Launch(t)
	vote(t, st, id)
	ready(t, srv)
	if e, err := two.Client(t).Get(t.Context(), key("a")); err != nil || string(e.Value) != "1" {
		t.Errorf("read through the new member: %s, %v", e.Value, err)
	}
}

func key(name string) string { return store.PrefixDemand + "members/" + name }

func written(t *testing.T, st *store.Etcd, name string, v int) {
	t.Helper()
	if err := try(t.Context(), st, name, v); err != nil {
		t.Fatal(err)
	}
}

func try(ctx context.Context, st *store.Etcd, name string, v int) error {
	_, err := st.Commit(ctx, store.Txn{Then: []store.Op{{Key: key(name), Value: fmt.Append(nil, v)}}})
	return err
}

// three is a cluster of three members, each in this process.
func three(t *testing.T) (servers []*etcdtest.Server, ended []<-chan error) {
	t.Helper()
	one := etcdtest.New(t)
	srv, end, _ := one.Launch(t)
	ready(t, srv)
	st := one.Client(t)
	servers, ended = append(servers, one), append(ended, end)
	for _, name := range []string{"n2", "n3"} {
		s := one.Beside(t, name)
		id := learner(t, st, s)
		srv, end, _ := s.Launch(t)
		vote(t, st, id)
		ready(t, srv)
		servers, ended = append(servers, s), append(ended, end)
	}
	return servers, ended
}

// leads is the member that leads etcd.
func leads(ctx context.Context, st *store.Etcd) (store.Member, error) {
	list, err := st.Members(ctx)
	if err != nil {
		return store.Member{}, err
	}
	for _, m := range list {
		if state, err := st.Ask(ctx, m); err == nil && state.Leader == m.ID {
			return m, nil
		}
	}
	return store.Member{}, cluster.Transientf("nobody leads")
}

// Three members in processes of their own: the one that leads is killed, again and
// again, while a client that knows all three writes. All that was acknowledged is
// there, and a lease of the usual length is kept through each loss.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	one := etcdtest.New(t)
	servers := map[string]*etcdtest.Server{"n1": one}
	kill := map[string]func(){}
	start := func(name string) { kill[name], _ = startChild(t, servers[name]) }
	start("n1")
	st := one.Client(t)
	for _, name := range []string{"n2", "n3"} {
		s := one.Beside(t, name)
		servers[name] = s
		id := learner(t, st, s)
		voted := make(chan struct{})
		go func() { // a learner's process is ready once it votes
			defer close(voted)
			for t.Context().Err() == nil && st.Promote(t.Context(), id) != nil {
				select {
				case <-t.Context().Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		}()
		start(name)
		<-voted
	}
	client := all(t, one, servers["n2"], servers["n3"])
	lctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lease, lost, err := client.Lease(lctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]int{}
	var waits []time.Duration
	for round := range 5 {
		var was store.Member
		await(t, "one leads", func() (err error) {
			was, err = leads(t.Context(), client)
			return err
		})
		killed := time.Now()
		kill[was.Name]()
		first := true
		for i := range 50 {
			name := fmt.Sprintf("%d-%d", round, i)
			await(t, "a write", func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return try(ctx, client, name, i)
			})
			if first {
				waits, first = append(waits, time.Since(killed).Round(time.Millisecond)), false
			}
			acknowledged[name] = i
		}
		start(was.Name)
	}
	t.Logf("leader killed to first accepted write: %v", waits)
	select {
	case <-lost:
		t.Error("the lease was lost")
	default:
		if _, err := client.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key("leased"), Value: []byte("1"), Lease: lease}}}); err != nil {
			t.Errorf("the lease is not there: %v", err)
		}
	}
	entries, _, err := client.List(t.Context(), store.PrefixDemand+"members/")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, e := range entries {
		have[e.Key] = string(e.Value)
	}
	for _, name := range slices.Sorted(maps.Keys(acknowledged)) {
		if have[key(name)] != fmt.Sprint(acknowledged[name]) {
			t.Errorf("acknowledged %s=%d is %q", name, acknowledged[name], have[key(name)])
		}
	}
}

// A member is taken out of three: it ends and says so; two are left and write.
func TestMemberRemoved(t *testing.T) {
	t.Parallel()
	servers, ended := three(t)
	st := all(t, servers[0], servers[1])
	list, err := st.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Name != "n3" {
			continue
		}
		// etcd refuses until all have been connected for a while.
		await(t, "it is removed", func() error { return st.RemoveMember(t.Context(), m.ID) })
	}
	select {
	case err := <-ended[2]:
		if err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("the removed member ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the removed member runs on")
	}
	written(t, st, "after", 1)
	if list, err := st.Members(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("left %+v, %v", list, err)
	}
}
