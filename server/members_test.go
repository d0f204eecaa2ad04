package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// fakeMembers is an etcd's member list, which takes one learner at a time.
type fakeMembers struct {
	list   []store.Member
	next   uint64
	behind bool            // learners have not caught up
	silent map[uint64]bool // they do not answer

	settled time.Time // until then none is removed
}

var _ members = (*fakeMembers)(nil)

func (f *fakeMembers) Members(context.Context) ([]store.Member, error) {
	return slices.Clone(f.list), nil
}

func (f *fakeMembers) AddLearner(_ context.Context, peer string) ([]store.Member, error) {
	if slices.ContainsFunc(f.list, func(x store.Member) bool { return x.Learner }) {
		panic("etcd is asked for a second learner")
	}
	f.next++
	f.list = append(f.list, store.Member{ID: f.next, Peer: peer, Learner: true})
	return slices.Clone(f.list), nil
}

func (f *fakeMembers) Promote(_ context.Context, id uint64) error {
	if f.behind {
		return store.ErrNotCaughtUp
	}
	for i := range f.list {
		if f.list[i].ID == id {
			f.list[i].Learner = false
		}
	}
	return nil
}

func (f *fakeMembers) RemoveMember(_ context.Context, id uint64) error {
	if time.Now().Before(f.settled) {
		return store.ErrUnsettled
	}
	f.list = slices.DeleteFunc(f.list, func(x store.Member) bool { return x.ID == id })
	return nil
}

// Right after a server came back etcd lets none go: that is waited out, not for ever.
func TestRemovingWaitsUntilEtcdHasSettled(t *testing.T) {
	for after, fine := range map[time.Duration]bool{0: true, 4 * time.Second: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeMembers{list: []store.Member{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2"}}, settled: time.Now().Add(after)}
			began := time.Now()
			err := removeMember(t.Context(), f, 2)
			if fine != (err == nil) || fine != (len(f.list) == 1) {
				t.Errorf("settled after %s: %v, and members are %v", after, err, f.list)
			}
			if !fine && (!errors.Is(err, store.ErrUnsettled) || !strings.Contains(err.Error(), "server ls") || time.Since(began) > time.Minute) {
				t.Errorf("after %s it says %v", time.Since(began), err)
			}
		})
	}
}

func (f *fakeMembers) Ask(_ context.Context, m store.Member) (store.MemberState, error) {
	if m.Name == "" || f.silent[m.ID] {
		return store.MemberState{}, errors.New("no answer")
	}
	return store.MemberState{Leader: 1}, nil
}

// What an interrupted join left is taken up, or removed, and never blocks.
func TestRoomForAMember(t *testing.T) {
	one := store.Member{ID: 1, Name: "n1", Peer: "https://10.0.0.1:7422"}
	const peer = "https://10.0.0.2:7422"
	for name, c := range map[string]struct {
		has  bool // data of an earlier start
		also []store.Member
		says string // of the error; "" when there is room
		left int    // members afterwards
		kept bool   // of the data
	}{
		"the first time":                {left: 2},
		"let in, never started":         {also: []store.Member{{ID: 2, Peer: peer, Learner: true}}, left: 2},
		"started":                       {has: true, also: []store.Member{{ID: 2, Name: "n2", Peer: peer, Learner: true}}, left: 2, kept: true},
		"started, its name not known":   {has: true, also: []store.Member{{ID: 2, Peer: peer, Learner: true}}, left: 2, kept: true},
		"votes already":                 {has: true, also: []store.Member{{ID: 2, Name: "n2", Peer: peer}}, left: 2, kept: true},
		"its data is gone":              {also: []store.Member{{ID: 2, Name: "n2", Peer: peer, Learner: true}}, says: "an earlier attempt", left: 1},
		"a voter whose data is gone":    {also: []store.Member{{ID: 2, Name: "n2", Peer: peer}}, says: "server rm n2", left: 2},
		"the others gave it up":         {has: true, left: 2},
		"another one joins":             {also: []store.Member{{ID: 3, Name: "n3", Peer: "https://10.0.0.3:7422", Learner: true}}, says: "one at a time", left: 2},
		"another one has the name":      {also: []store.Member{{ID: 3, Name: "n2", Peer: "https://10.0.0.3:7422"}}, says: "another name", left: 2},
		"given up while another joins ": {has: true, also: []store.Member{{ID: 3, Name: "n3", Peer: "https://10.0.0.3:7422", Learner: true}}, says: "one at a time", left: 2},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := embedded.Config{Dir: t.TempDir(), Name: "n2", Address: "10.0.0.2", PeerPort: 7422}
			if c.has {
				if err := os.MkdirAll(filepath.Join(cfg.Dir, "member-data", "member", "wal"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			f := &fakeMembers{list: append([]store.Member{one}, c.also...), next: 9}
			all, err := new(machine).ask(t.Context(), f, func(context.Context) (func(), error) { return func() {}, nil }, &cfg)
			switch {
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v, want %q", err, c.says)
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says == "" && !slices.ContainsFunc(all, func(x store.Member) bool { return x.Peer == peer && x.Name == "n2" }):
				t.Errorf("it is not among %+v", all)
			}
			if len(f.list) != c.left || embedded.HasData(cfg.Dir) != c.kept {
				t.Errorf("left %+v, data kept: %t", f.list, embedded.HasData(cfg.Dir))
			}
		})
	}
}

func TestServersThatStartUntold(t *testing.T) {
	away, long := cluster.Transientf("no majority"), quorumPatience
	for name, c := range map[string]struct {
		err    error
		has    bool
		waited time.Duration
		want   bool
	}{
		"it has data, and nobody answers": {away, true, long, true},
		"for a moment":                    {away, true, long - 1, false},
		"it has no data":                  {away, false, long, false},
		"they refuse it":                  {cluster.Invalidf("another one has the name"), true, long, false},
		"something else is wrong":         {errors.New("disk"), true, long, false},
	} {
		if got := startsUntold(c.err, c.has, c.waited); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A server that may vote already is not waited for by the others while it waits for them.
// One that was told nothing, and was taken out, asks until it is told.
func TestAServerThatMayVoteStartsUntold(t *testing.T) {
	for name, c := range map[string]struct{ has, may, starts bool }{
		"it has data":               {true, true, true},
		"it has data, and tried it": {true, false, false},
		"it has none":               {false, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := embedded.Config{Dir: t.TempDir(), Name: "n2", Address: "10.0.0.2", PeerPort: 7422}
			if c.has {
				if err := os.MkdirAll(filepath.Join(cfg.Dir, "member-data", "member", "wal"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			m := &machine{local: local{Config: Config{Log: hclog.NewNullLogger()}, now: time.Now}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			untold, err := m.takeRoom(ctx, &noMajority{}, nil, &cfg, c.may)
			if untold != c.starts || (err == nil) != c.starts || cfg.Initial != nil || embedded.HasData(cfg.Dir) != c.has {
				t.Errorf("%s: %v, %v, %+v", name, untold, err, cfg)
			}
		})
	}
}

// One server at a time asks for room, and the next one can when it is done.
func TestJoinLock(t *testing.T) {
	st := store.NewMemory()
	release, err := joinLock(st, "n2")(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := joinLock(st, "n3")(t.Context()); !errors.Is(err, store.ErrLearnerBusy) {
		t.Errorf("a second one: %v", err)
	}
	release()
	deadline := time.Now().Add(20 * time.Second)
	for {
		release, err := joinLock(st, "n3")(t.Context())
		if err == nil {
			release()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A learner votes once it has caught up; one that falls silent is waited for, then
// taken out; one that never came is too.
func TestLearnersAreLookedAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := &fakeMembers{list: []store.Member{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2", Learner: true}}, behind: true, silent: map[uint64]bool{}}
	k := &memberKeeper{
		members: f, log: hclog.NewNullLogger(), now: func() time.Time { return now },
		since: map[uint64]time.Time{}, heard: map[uint64]time.Time{},
	}
	rounds := func(n int) {
		t.Helper()
		for range n {
			if err := k.round(t.Context()); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Second)
		}
	}
	rounds(600) // a large store takes long
	if len(f.list) != 2 || !f.list[1].Learner {
		t.Fatalf("after ten minutes %+v", f.list)
	}
	f.behind, f.silent[2] = false, true
	rounds(120)
	if len(f.list) != 2 || !f.list[1].Learner {
		t.Fatalf("caught up, and silent for two minutes: %+v", f.list)
	}
	f.silent[2] = false
	rounds(1)
	if len(f.list) != 2 || f.list[1].Learner {
		t.Fatalf("caught up: %+v", f.list)
	}
	f.behind = true
	f.list = append(f.list, store.Member{ID: 3, Name: "n3", Learner: true})
	rounds(60)
	f.silent[3] = true
	rounds(120)
	if len(f.list) != 3 {
		t.Error("not waited for")
	}
	rounds(90)
	if len(f.list) != 2 {
		t.Errorf("silent for long: %+v", f.list)
	}
	f.list = append(f.list, store.Member{ID: 4, Peer: "p", Learner: true})
	rounds(179)
	if len(f.list) != 3 {
		t.Error("one that comes is not waited for")
	}
	rounds(3)
	if len(f.list) != 2 {
		t.Errorf("never came: %+v", f.list)
	}
}

// The keys come whole or not at all, and for this machine alone.
func TestKeysOfAServerThatJoins(t *testing.T) {
	first := &machine{local: local{Config: Config{DataDir: t.TempDir(), Node: "n1", Advertise: "10.0.0.1", ServiceRange: "10.99.0.0/16"}, now: time.Now}}
	if err := first.readKeys(); err != nil {
		t.Fatal(err)
	}
	mirror := store.NewMirror(store.NewMemory(), store.Root, hclog.NewNullLogger())
	r := &roster{admission: &admission{machine: first, mirror: mirror, self: cluster.ServerInfo{Node: "n1", API: "10.0.0.1:7420", Etcd: "https://10.0.0.1:7421"}}}
	cfg := Config{DataDir: t.TempDir(), Node: "n2", Advertise: "10.0.0.2", ServiceRange: defaultServiceRange, Domain: defaultDomain}
	second := &machine{local: local{Config: cfg, now: time.Now}}
	identity, err := nodeIdentity(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Keys(v1.ServerJoin{Node: "n2", Recipient: "age1"}); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("for no key: %v", err)
	}
	m, err := r.Keys(v1.ServerJoin{Node: "n2", Recipient: identity})
	if err != nil {
		t.Fatal(err)
	}
	s := settings{ServerMembership: m}
	// Not this machine's.
	other := Config{DataDir: t.TempDir()}
	if _, err := nodeIdentity(other); err != nil {
		t.Fatal(err)
	}
	if err := unpack(other.DataDir, filepath.Join(other.DataDir, "pki"), s); err == nil {
		t.Error("another machine opens the keys")
	}
	if err := s.write(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and at each later start
		if err := second.joinServers(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := second.readKeys(); err != nil {
			t.Fatal(err)
		}
	}
	if second.cluster != first.cluster || second.pki.Fingerprint() != first.pki.Fingerprint() || second.ServiceRange != "10.99.0.0/16" {
		t.Errorf("cluster %s and %s", second.cluster, first.cluster)
	}
	sealed, err := first.key.Seal([]byte("v"), "c")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := second.key.Open(sealed, "c"); err != nil || string(v) != "v" {
		t.Errorf("%s, %v", v, err)
	}
	if s, err := readSettings(cfg.DataDir); err != nil || len(s.Sealed) > 0 {
		t.Errorf("the sealed keys stay: %v", err)
	}
	for _, name := range []string{"secrets.key", "pki/ca.key", "server.json"} {
		if info, err := os.Stat(filepath.Join(cfg.DataDir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func nodeIdentity(cfg Config) (string, error) {
	id, err := pki.NodeIdentity(filepath.Join(cfg.DataDir, "pki"))
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), nil
}

// A machine is a server of one cluster, and no node and server at once.
func TestAServerIsOfOneCluster(t *testing.T) {
	node := t.TempDir()
	if err := os.WriteFile(filepath.Join(node, membershipFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := t.TempDir()
	m := &machine{local: local{Config: Config{DataDir: first, Node: "n1", Advertise: "10.0.0.1", ServiceRange: "10.212.0.0/16"}, now: time.Now}}
	if err := m.readKeys(); err != nil {
		t.Fatal(err)
	}
	for dir, says := range map[string]string{node: "that of a node", first: "server of another cluster"} {
		m := &machine{local: local{Config: Config{DataDir: dir, Join: "10.0.0.9:7420"}, now: time.Now}}
		if err := m.joinServers(t.Context(), nil); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// A server that was let in and never became a member is one that can be forgotten: its
// name is free then. It has no vote, so that no other one's removal depends on it.
func TestAServerThatNeverCameIsForgotten(t *testing.T) {
	mirror := holds(t, map[string]any{
		store.ServerInfoKey("n1"): cluster.ServerInfo{Node: "n1", API: "10.0.0.1:7420"},
		store.ServerInfoKey("n2"): cluster.ServerInfo{Node: "n2", API: "10.0.0.2:7420"},
		store.ServerSpecKey("n2"): cluster.ServerSpec{Node: "n2"},
		store.ServerSpecKey("n3"): cluster.ServerSpec{Node: "n3"},
		store.ServerSpecKey("n4"): cluster.ServerSpec{Node: "n4"},
		store.ServerInfoKey("n4"): cluster.ServerInfo{Node: "n4", API: "10.0.0.4:7420"},
	})
	f := &fakeMembers{list: []store.Member{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2"}}}
	r := &roster{admission: &admission{machine: &machine{local: local{Config: Config{Node: "n1"}}}, mirror: mirror}, members: f}
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, string(s.Node)+" "+string(s.Standing)+" "+s.Problem)
	}
	want := []string{"n1 voter ", "n2 voter ", "n3 none it was let in, and has not started yet", "n4 none it was taken out of the store"}
	if !slices.Equal(got, want) {
		t.Errorf("servers %q, want %q", got, want)
	}
	if err := r.Remove(t.Context(), "n3"); err != nil || len(f.list) != 2 {
		t.Errorf("one that never came: %v, members %v", err, f.list)
	}
	if err := r.MayRemove(t.Context(), "n5"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("one that nobody let in: %v", err)
	}
	// Two that never came are no part of a majority, for or against.
	if err := r.MayRemove(t.Context(), "n2"); err != nil {
		t.Errorf("one of two that answer: %v", err)
	}
	f.list = append(f.list, store.Member{ID: 3, Name: "n6"}, store.Member{ID: 7, Name: "n7"})
	f.silent = map[uint64]bool{3: true, 7: true}
	if err := r.MayRemove(t.Context(), "n2"); err == nil || !strings.Contains(err.Error(), "there would be 3 servers") {
		t.Errorf("one of two that answer, of four: %v", err)
	}
}

// noMajority are the members of which most do not answer.
type noMajority struct{ fakeMembers }

func (*noMajority) Members(context.Context) ([]store.Member, error) {
	return nil, cluster.Transientf("list etcd's members: context deadline exceeded")
}

func (*noMajority) Ask(_ context.Context, m store.Member) (store.MemberState, error) {
	if m.Name != "n1" || m.Client != "https://n1:7421" {
		return store.MemberState{}, errors.New("no answer")
	}
	return store.MemberState{}, nil
}

// Without a majority the list says which servers to bring back.
func TestServersWithoutAMajority(t *testing.T) {
	records := map[string]any{}
	for _, n := range []cluster.NodeID{"n1", "n2", "n3"} {
		records[store.ServerInfoKey(n)] = cluster.ServerInfo{Node: n, API: string(n) + ":7420", Etcd: "https://" + string(n) + ":7421"}
	}
	mirror := holds(t, records)
	r := &roster{admission: &admission{machine: &machine{local: local{Config: Config{Node: "n1"}}}, mirror: mirror}, members: &noMajority{}}
	_, err := r.List(t.Context())
	if cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "n2 (n2:7420), n3 (n3:7420) of 3 do not. Bring servers back until 2 answer") {
		t.Errorf("%v (kind %v)", err, cluster.KindOf(err))
	}
}

// holds is a mirror of a store with these records.
func holds(t *testing.T, records map[string]any) *store.Mirror {
	t.Helper()
	mem := store.NewMemory()
	for key, v := range records {
		op, err := store.PutJSON(key, v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mem.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	mirror := store.NewMirror(mem, store.Root, hclog.NewNullLogger())
	go func() { _ = mirror.Run(t.Context()) }()
	<-mirror.Ready()
	return mirror
}
