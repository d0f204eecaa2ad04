package server

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/store"
)

// A node knows where the others' containers are, also when it boots while its
// store is away.
func TestNetsOutliveTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nets.json")
	all := []cluster.NodeNet{
		{Node: "n1", Address: "10.0.0.1", Blocks: []netip.Prefix{netip.MustParsePrefix("10.213.0.0/22")}, Networks: map[cluster.NetworkName]netip.Prefix{"old": netip.MustParsePrefix("10.9.0.0/24")}},
		{Node: "n2", Address: "10.0.0.2", Blocks: []netip.Prefix{netip.MustParsePrefix("10.213.4.0/22")}, Networks: map[cluster.NetworkName]netip.Prefix{"a": netip.MustParsePrefix("10.213.4.0/24")}},
		{Node: "n3", Address: "nonsense"},
		{Node: "n4"}, // it has no address yet
	}
	type telling struct {
		Own    netip.Addr
		Others []mesh.Peer
	}
	want := telling{netip.MustParseAddr("10.0.0.1"), []mesh.Peer{{Node: "n2", Address: netip.MustParseAddr("10.0.0.2"), Blocks: all[1].Blocks, Networks: all[1].Networks}, {Node: "n3"}}}
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			st := store.NewMemory()
			var ops []store.Op
			for _, n := range all {
				op, err := store.PutJSON(store.NodeNetKey(n.Node), n)
				if err != nil {
					t.Fatal(err)
				}
				ops = append(ops, op)
			}
			if _, err := st.Commit(t.Context(), store.Txn{Then: ops}); err != nil {
				t.Fatal(err)
			}
			st.Down(down)
			ctx, cancel := context.WithCancel(t.Context())
			n := &nets{mirror: store.NewMirror(st, store.PrefixNodeNets, hclog.NewNullLogger()), path: path, log: hclog.NewNullLogger()}
			done := make(chan error, 2)
			go func() { done <- n.mirror.Run(ctx) }()
			told := make(chan telling, 1)
			go func() {
				done <- n.follow(ctx, "n1", func(_ context.Context, own netip.Addr, p []mesh.Peer) {
					select {
					case told <- telling{own, p}:
					default:
					}
				})
			}()
			if d := cmp.Diff(want, <-told, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
				t.Errorf("store down %v: %s", down, d)
			}
			if got := n.blocks(); !slices.Equal(got, all[0].Blocks) {
				t.Errorf("own blocks %v", got)
			}
			if only, err := n.alone(); only || err != nil {
				t.Errorf("among four nodes it is alone: %v, %v", only, err)
			}
			for text, want := range map[string]bool{"10.213.3.0/24": true, "10.213.4.0/24": false, "10.213.0.0/16": false, "10.9.0.0/24": true} {
				if got, err := n.holds(netip.MustParsePrefix(text)); got != want || err != nil {
					t.Errorf("%s is held: %v, %v", text, got, err)
				}
			}
			synctest.Wait() // until it is on disk
			cancel()
			for range 2 {
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
}

// Whether a node is alone is not guessed before it has been told.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		n := &nets{mirror: store.NewMirror(st, store.PrefixNodeNets, hclog.NewNullLogger()), path: filepath.Join(t.TempDir(), "nets.json"), log: hclog.NewNullLogger()}
		if _, err := n.alone(); cluster.KindOf(err) != cluster.KindTransient {
			t.Errorf("before it has read anything: %v", err)
		}
		if _, err := n.holds(netip.MustParsePrefix("10.213.0.0/24")); cluster.KindOf(err) != cluster.KindTransient {
			t.Errorf("whose addresses they are, before it has read anything: %v", err)
		}
		go func() { _ = n.mirror.Run(ctx) }()
		go func() { _ = n.follow(ctx, "n1", func(context.Context, netip.Addr, []mesh.Peer) {}) }()
		is := func(when string, want bool) {
			t.Helper()
			synctest.Wait()
			if got, err := n.alone(); got != want || err != nil {
				t.Errorf("%s it is alone: %v, %v", when, got, err)
			}
		}
		commit := func(op store.Op, err error) {
			t.Helper()
			if err == nil {
				_, err = st.Commit(t.Context(), store.Txn{Then: []store.Op{op}})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		commit(store.PutJSON(store.NodeNetKey("n1"), cluster.NodeNet{Node: "n1"}))
		is("the first node:", true)
		commit(store.PutJSON(store.NodeNetKey("n2"), cluster.NodeNet{Node: "n2"}))
		is("with another:", false)
		commit(store.Op{Key: store.NodeNetKey("n2"), Delete: true}, nil)
		is("after that was removed:", true)
		cancel()
		synctest.Wait()
	})
}
