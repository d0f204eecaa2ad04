package secrets_test

import (
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
)

// settled is the state after the actions.
func settled(s secrets.GatewaySnapshot, acts []secrets.GatewayAction) secrets.GatewaySnapshot {
	files := slices.Clone(s.Files)
	for _, a := range acts {
		switch a := a.(type) {
		case secrets.SealFile:
			files = slices.DeleteFunc(files, func(e secrets.GatewayEntry) bool { return e.Node == a.To.Node && e.SourceID == a.Source.SourceID })
			files = append(files, secrets.GatewayEntry{SourceID: a.Source.SourceID, Node: a.To.Node, Key: a.To.Key, Of: a.Source.Rev, Rev: a.Rev + 100})
		case secrets.DropFile:
			files = slices.DeleteFunc(files, func(e secrets.GatewayEntry) bool { return e == a.Entry })
		}
	}
	s.Files = files
	return s
}

// After the plan every gateway has every source, of its present revision and
// encrypted to the gateway's own key, and nothing else is there; a second plan is
// empty; the order of the input does not matter.
func TestGatewayFilesLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := []secrets.SourceID{{Kind: "certs", Name: "a"}, {Kind: "certs", Name: "b"}, {Kind: "users", App: "a", Name: "a"}, {Kind: "users", App: "b", Name: "a"}}
		var s secrets.GatewaySnapshot
		for _, n := range []cluster.NodeID{"n1", "n2", "n3"} {
			if rapid.Bool().Draw(t, "gateway") {
				s.Gateways = append(s.Gateways, secrets.Recipient{Node: n, Key: rapid.SampledFrom([]string{"", "k1", "k2"}).Draw(t, "key")})
			}
			for _, id := range ids {
				if rapid.Bool().Draw(t, "file") {
					s.Files = append(s.Files, secrets.GatewayEntry{
						SourceID: id, Node: n, Key: rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "sealed to"),
						Of: cluster.StoreRev(rapid.IntRange(1, 3).Draw(t, "of")), Rev: 10,
					})
				}
			}
		}
		for _, id := range ids {
			if rapid.Bool().Draw(t, "source") {
				s.Sources = append(s.Sources, secrets.GatewaySource{SourceID: id, Rev: cluster.StoreRev(rapid.IntRange(1, 3).Draw(t, "rev"))})
			}
		}
		acts := secrets.PlanGateways(s)
		turned := s
		turned.Gateways, turned.Sources, turned.Files = slices.Clone(s.Gateways), slices.Clone(s.Sources), slices.Clone(s.Files)
		slices.Reverse(turned.Gateways)
		slices.Reverse(turned.Sources)
		slices.Reverse(turned.Files)
		if d := cmp.Diff(acts, secrets.PlanGateways(turned)); d != "" {
			t.Fatal("the order matters:", d)
		}
		after := settled(s, acts)
		if again := secrets.PlanGateways(after); len(again) > 0 {
			t.Fatalf("again %v", again)
		}
		want := 0
		for _, g := range s.Gateways {
			for _, src := range s.Sources {
				i := slices.IndexFunc(after.Files, func(e secrets.GatewayEntry) bool { return e.Node == g.Node && e.SourceID == src.SourceID })
				if g.Key == "" { // not known yet: what is there stays
					if i >= 0 {
						want++
					}
					continue
				}
				want++
				if i < 0 || after.Files[i].Key != g.Key || after.Files[i].Of != src.Rev {
					t.Fatalf("%s has not %v of %d", g.Node, src.SourceID, src.Rev)
				}
			}
		}
		if len(after.Files) != want {
			t.Fatalf("%d files, want %d: %v", len(after.Files), want, after.Files)
		}
	})
}

// A source that does not open is not tried again before it changes.
func TestHeldGatewayFiles(t *testing.T) {
	id := secrets.SourceID{Kind: "certs", Name: "a"}
	s := secrets.GatewaySnapshot{
		Gateways: []secrets.Recipient{{Node: "n2", Key: "k"}}, Sources: []secrets.GatewaySource{{SourceID: id, Rev: 4}},
		Held: map[secrets.SourceID]cluster.StoreRev{id: 4},
	}
	if acts := secrets.PlanGateways(s); len(acts) > 0 {
		t.Errorf("held: %v", acts)
	}
	s.Sources[0].Rev = 5
	if acts := secrets.PlanGateways(s); len(acts) != 1 {
		t.Errorf("changed: %v", acts)
	}
}

func TestSealedToANodeOpensThereAlone(t *testing.T) {
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	data, err := secrets.SealTo([]byte("key"), mine.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := secrets.OpenSealed(mine, data); err != nil || string(b) != "key" {
		t.Errorf("%q, %v", b, err)
	}
	for name, f := range map[string]func() ([]byte, error){
		"another's key": func() ([]byte, error) { return secrets.OpenSealed(other, data) },
		"cut short":     func() ([]byte, error) { return secrets.OpenSealed(mine, data[:len(data)-1]) },
		"a bad key":     func() ([]byte, error) { return secrets.SealTo(nil, "age1") },
	} {
		if b, err := f(); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}
