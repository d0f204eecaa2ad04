package secrets

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

var (
	now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	api = cluster.ServiceID{App: "shop", Name: "api"}
)

func placement(task cluster.TaskID, secrets ...string) cluster.NodePlacement {
	p := cluster.NodePlacement{Task: task, Node: "n1", ServiceID: api, Slot: 1, Desire: cluster.DesireRun, Rev: 10}
	for _, s := range secrets {
		p.Spec.Secrets = append(p.Spec.Secrets, cluster.FileRef{Name: s, Version: "1"})
	}
	return p
}

func record(name string, rev cluster.StoreRev) Record {
	return Record{SecretRecord: cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: name}, Version: 2, Provider: ProviderSealed}, Rev: rev}
}

// show makes actions readable.
func show(acts []Action) []string {
	out := []string{}
	for _, a := range acts {
		switch a := a.(type) {
		case Seal:
			var needs []string
			for _, r := range a.Records {
				needs = append(needs, r.Name)
			}
			for _, c := range a.Configs {
				needs = append(needs, c.Name+"@"+c.Hash)
			}
			out = append(out, fmt.Sprintf("seal %s/%s to %s [%s] over %d", a.Placement.Node, a.Placement.Task, a.To.Key, strings.Join(needs, " "), a.Rev))
		case Drop:
			out = append(out, fmt.Sprintf("drop %s/%s at %d", a.Entry.Node, a.Entry.Task, a.Entry.Rev))
		case Note:
			out = append(out, fmt.Sprintf("note %s over %d: %s", a.Service, a.Rev, a.Reason))
		case Forget:
			out = append(out, fmt.Sprintf("forget %s at %d", a.Note.Service, a.Note.Rev))
		}
	}
	return out
}

func TestPlan(t *testing.T) {
	node := []Recipient{{Node: "n1", Key: "k1", Rev: 3}}
	withConfig := placement("t1", "db")
	withConfig.Spec.Configs = []cluster.FileRef{{Name: "conf", Version: "abc"}}
	withEnv := placement("t1", "db")
	withEnv.Spec.SecretEnv = map[string]string{"DB": "db", "TOKEN": "token"}
	stopped := placement("t1", "db")
	stopped.Desire = cluster.DesireStop
	drained := placement("t1", "db")
	drained.Desire = cluster.DesireDrain
	conf := Config{Config: cluster.Config{App: "shop", Name: "conf", Hash: "abc"}, Rev: 4}
	waiting := "waits for secret shop/db (fairlead secret set shop/db)"
	for _, c := range []struct {
		name string
		s    Snapshot
		want []string
	}{
		{"a new placement", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node}, []string{"seal n1/t1 to k1 [db] over 0"}},
		{"one that needs nothing", Snapshot{Placements: []cluster.NodePlacement{placement("t1")}, Nodes: node}, nil},
		{"with a config", Snapshot{Placements: []cluster.NodePlacement{withConfig}, Records: []Record{record("db", 5)}, Configs: []Config{conf}, Nodes: node}, []string{"seal n1/t1 to k1 [db conf@abc] over 0"}},
		{"a config in another version", Snapshot{Placements: []cluster.NodePlacement{withConfig}, Records: []Record{record("db", 5)}, Configs: []Config{{Config: cluster.Config{App: "shop", Name: "conf", Hash: "old"}}}, Nodes: node}, []string{"note shop/api over 0: waits for config shop/conf in version abc (deploy the app again)"}},
		{"a secret for the environment only", Snapshot{Placements: []cluster.NodePlacement{withEnv}, Records: []Record{record("db", 5), record("token", 6)}, Nodes: node}, []string{"seal n1/t1 to k1 [db token] over 0"}},
		{"written already; a new version does not reach what runs", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 99)}, Nodes: node, Sealed: []Entry{{"n1", "t1", "k1", 7}}}, nil},
		{"the node has a new key", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node, Sealed: []Entry{{"n1", "t1", "k0", 7}}}, []string{"seal n1/t1 to k1 [db] over 7"}},
		{"the node is away: keep what it has", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Sealed: []Entry{{"n1", "t1", "k0", 7}}}, nil},
		{"the node has no key yet", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}}, []string{"note shop/api over 0: waits for node n1 to publish its key"}},
		{"a missing secret", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Nodes: node}, []string{"note shop/api over 0: " + waiting}},
		{"said already", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db"), placement("t2", "db")}, Nodes: node, Notes: []Note{{api, waiting, 8}}}, nil},
		{"said something else before", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Nodes: node, Notes: []Note{{api, "old", 8}}}, []string{"note shop/api over 8: " + waiting}},
		{"it was set: the note stays until the payload is written", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node, Notes: []Note{{api, waiting, 8}}}, []string{"seal n1/t1 to k1 [db] over 0"}},
		{"and goes then", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node, Sealed: []Entry{{"n1", "t1", "k1", 9}}, Notes: []Note{{api, waiting, 8}}}, []string{"forget shop/api at 8"}},
		{"a secret of another app does not do", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{{SecretRecord: cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "blog", Name: "db"}}}}, Nodes: node}, []string{"note shop/api over 0: " + waiting}},
		{"a task that is gone", Snapshot{Sealed: []Entry{{"n1", "t1", "k1", 7}}, Nodes: node}, []string{"drop n1/t1 at 7"}},
		{"a task that moved", Snapshot{Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node, Sealed: []Entry{{"n2", "t1", "k2", 7}}}, []string{"seal n1/t1 to k1 [db] over 0", "drop n2/t1 at 7"}},
		{"one that is to stop gets nothing any more", Snapshot{Placements: []cluster.NodePlacement{stopped}, Records: []Record{record("db", 5)}, Nodes: node}, nil},
		{"nor does it lose what it has", Snapshot{Placements: []cluster.NodePlacement{stopped}, Nodes: node, Sealed: []Entry{{"n1", "t1", "k1", 7}}}, nil},
		{"one that drains still runs", Snapshot{Placements: []cluster.NodePlacement{drained}, Records: []Record{record("db", 5)}, Nodes: node}, []string{"seal n1/t1 to k1 [db] over 0"}},
		{"held back", Snapshot{Now: now, Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node, Notes: []Note{{api, "vault is away", 8}}, Held: map[cluster.TaskID]Hold{"t1": {now.Add(time.Second), 5}}}, nil},
		{"the time is over", Snapshot{Now: now.Add(time.Second), Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 5)}, Nodes: node, Held: map[cluster.TaskID]Hold{"t1": {now.Add(time.Second), 5}}}, []string{"seal n1/t1 to k1 [db] over 0"}},
		{"the secret was set again meanwhile", Snapshot{Now: now, Placements: []cluster.NodePlacement{placement("t1", "db")}, Records: []Record{record("db", 6)}, Nodes: node, Held: map[cluster.TaskID]Hold{"t1": {now.Add(time.Second), 5}}}, []string{"seal n1/t1 to k1 [db] over 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == nil {
				c.want = []string{}
			}
			if d := cmp.Diff(c.want, show(Plan(c.s))); d != "" {
				t.Error(d)
			}
		})
	}
}

// perform applies actions as the store would.
func perform(s Snapshot, acts []Action, rev cluster.StoreRev) Snapshot {
	for _, a := range acts {
		switch a := a.(type) {
		case Seal:
			s.Sealed = slices.DeleteFunc(slices.Clone(s.Sealed), func(e Entry) bool { return e.Node == a.Placement.Node && e.Task == a.Placement.Task })
			s.Sealed = append(s.Sealed, Entry{a.Placement.Node, a.Placement.Task, a.To.Key, rev})
		case Drop:
			s.Sealed = slices.DeleteFunc(slices.Clone(s.Sealed), func(e Entry) bool { return e == a.Entry })
		case Note:
			s.Notes = slices.DeleteFunc(slices.Clone(s.Notes), func(n Note) bool { return n.Service == a.Service })
			s.Notes = append(s.Notes, Note{a.Service, a.Reason, rev})
		case Forget:
			s.Notes = slices.DeleteFunc(slices.Clone(s.Notes), func(n Note) bool { return n == a.Note })
		}
	}
	return s
}

// TestPlanLaws: after two rounds nothing is left to do; then each task has its
// payload, for its node's key, or its service says what it waits for; nothing is
// sealed that is not placed; the order of the input does not matter.
func TestPlanLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		shuffled := s
		shuffled.Placements = rapid.Permutation(s.Placements).Draw(t, "placements")
		shuffled.Sealed = rapid.Permutation(s.Sealed).Draw(t, "sealed")
		shuffled.Records = rapid.Permutation(s.Records).Draw(t, "records")
		if d := cmp.Diff(show(Plan(s)), show(Plan(shuffled))); d != "" {
			t.Fatal("the order matters:", d)
		}
		for rev := range cluster.StoreRev(2) {
			s = perform(s, Plan(s), 100+rev)
		}
		if left := Plan(s); len(left) != 0 {
			t.Fatal("not at rest:", show(left))
		}
		keys := map[cluster.NodeID]string{}
		for _, n := range s.Nodes {
			keys[n.Node] = n.Key
		}
		placed := map[taskKey]bool{}
		for _, p := range s.Placements {
			placed[taskKey{p.Node, p.Task}] = true
			if !p.Spec.NeedsPayload() || p.Desire == cluster.DesireStop {
				continue
			}
			sealed := slices.ContainsFunc(s.Sealed, func(e Entry) bool {
				return e.Node == p.Node && e.Task == p.Task && (e.Key == keys[p.Node] || keys[p.Node] == "")
			})
			noted := slices.ContainsFunc(s.Notes, func(n Note) bool { return n.Service == p.ServiceID })
			if !sealed && !noted {
				t.Fatalf("task %s has no payload and no reason", p.Task)
			}
		}
		for _, e := range s.Sealed {
			if !placed[taskKey{e.Node, e.Task}] {
				t.Fatalf("%v is sealed and not placed", e)
			}
		}
	})
}

func draw(t *rapid.T) Snapshot {
	names := []string{"a", "b", "c"}
	s := Snapshot{Now: now}
	for i := range rapid.IntRange(0, 6).Draw(t, "placements") {
		p := placement(cluster.TaskID(fmt.Sprint("t", i)), rapid.SliceOfN(rapid.SampledFrom(names), 0, 2).Draw(t, "needs")...)
		p.Node = cluster.NodeID(rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"))
		p.Name = cluster.ServiceName(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "service"))
		p.Desire = rapid.SampledFrom([]cluster.Desire{cluster.DesireRun, cluster.DesireDrain, cluster.DesireStop}).Draw(t, "desire")
		s.Placements = append(s.Placements, p)
	}
	for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 3, rapid.ID).Draw(t, "records") {
		s.Records = append(s.Records, record(n, 5))
	}
	for _, n := range []cluster.NodeID{"n1", "n2"} {
		s.Nodes = append(s.Nodes, Recipient{Node: n, Key: rapid.SampledFrom([]string{"", "k1", "k2"}).Draw(t, "key")})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "sealed") {
		s.Sealed = append(s.Sealed, Entry{
			cluster.NodeID(rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node")), cluster.TaskID(fmt.Sprint("t", i)),
			rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "key"), 7,
		})
	}
	if rapid.Bool().Draw(t, "noted") {
		s.Notes = append(s.Notes, Note{cluster.ServiceID{App: "shop", Name: "x"}, "old", 8})
	}
	return s
}

// TestTasksHaveTheValueTheyWereMadeFor: while it is kept, and else the newest.
func TestTasksHaveTheValueTheyWereMadeFor(t *testing.T) {
	var r Record
	for v := range 8 {
		next := cluster.SecretRecord{
			SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Version: v + 1, Provider: ProviderSealed, Sealed: fmt.Append(nil, "value ", v+1),
		}
		if v == 6 {
			next.Provider, next.Sealed, next.Ref = ProviderVault, nil, "kv/shop#db"
		}
		r.SecretRecord = next.After(r.SecretRecord)
	}
	for version, want := range map[string]string{
		"8": "8 sealed value 8 ", "7": "7 vault  kv/shop#db", "6": "6 sealed value 6 ", "3": "3 sealed value 3 ",
		"2": "8 sealed value 8 ", "9": "8 sealed value 8 ", "": "8 sealed value 8 ",
	} {
		p := placement("t1", "db")
		p.Spec.Secrets[0].Version = version
		p.Spec.SecretEnv = map[string]string{"DB": "db"}
		acts := Plan(Snapshot{Placements: []cluster.NodePlacement{p}, Records: []Record{r}, Nodes: []Recipient{{Node: "n1", Key: "k1", Rev: 3}}})
		seal, ok := acts[0].(Seal)
		if !ok || len(seal.Records) != 1 {
			t.Fatalf("%+v", acts)
		}
		got := seal.Records[0]
		if s := fmt.Sprintf("%d %s %s %s", got.Version, got.Provider, got.Sealed, got.Ref); s != want {
			t.Errorf("version %q is %q, want %q", version, s, want)
		}
	}
	large := cluster.SecretRecord{SecretRef: r.SecretRef, Version: 9, Provider: ProviderSealed, Sealed: make([]byte, MaxSecret)}
	if large = large.After(r.SecretRecord); len(large.Older) != 5 {
		t.Errorf("%d small values are kept beside a large one", len(large.Older))
	}
	next := cluster.SecretRecord{SecretRef: r.SecretRef, Version: 10, Provider: ProviderSealed, Sealed: make([]byte, MaxSecret)}
	if next = next.After(large); len(next.Older) != 0 {
		t.Errorf("%d values are kept beside two large ones: the store takes no such record", len(next.Older))
	}
}
