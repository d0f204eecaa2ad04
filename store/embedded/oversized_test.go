package embedded_test

import (
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// A node writes no more to a key than the loops can make something of, by any kind of write.
func TestWhatANodeWritesIsBounded(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	root := srv.Client(t)
	if err := root.Secure(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2, _ := joined(t, srv, root)
	key := store.StatusKey("n2", "t")
	for size, want := range map[int]cluster.Kind{store.MaxNodeBytes - len(key): cluster.KindOther, store.MaxNodeBytes: cluster.KindInvalid, 1300 << 10: cluster.KindInvalid} {
		t1 := store.Txn{Then: []store.Op{{Key: key, Value: make([]byte, size)}}}
		if _, err := n2.Commit(t.Context(), t1); cluster.KindOf(err) != want || (err == nil) != (want == cluster.KindOther) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := root.Commit(t.Context(), t1); err != nil {
			t.Errorf("%d bytes by the control plane: %v", size, err)
		}
	}
}
