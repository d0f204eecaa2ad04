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
		{Node: "n1", Address: "10.0.0.1", Blocks: []netip.Prefix{netip.MustParsePrefix("10.213.0.0/22")}},
		{Node: "n2", Address: "10.0.0.2", Blocks: []netip.Prefix{netip.MustParsePrefix("10.213.4.0/22")}, Networks: map[cluster.NetworkName]netip.Prefix{"a": netip.MustParsePrefix("10.213.4.0/24")}},
		{Node: "n3", Address: "nonsense"},
	}
	want := []mesh.Peer{{Address: netip.MustParseAddr("10.0.0.2"), Blocks: all[1].Blocks, Networks: all[1].Networks}}
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
			told := make(chan []mesh.Peer, 1)
			go func() {
				done <- n.follow(ctx, "n1", func(_ context.Context, p []mesh.Peer) {
					select {
					case told <- p:
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
