package api_test

import (
	"bytes"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/store"
)

// A server that was just started answers before its own node does: a build waits
// for it.
func TestBuildWaitsForANode(t *testing.T) {
	b := newBench(t)
	rev, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey("n1"), Delete: true}}})
	if err != nil {
		t.Fatal(err)
	}
	b.await(func() bool {
		st, err := b.Status(t.Context())
		return err == nil && st.StoreRev >= rev
	})
	done := make(chan error, 1)
	go func() {
		var out bytes.Buffer
		_, err := b.Build(t.Context(), v1.BuildOptions{App: "shop", Service: "web"}, strings.NewReader("tar"), &out)
		done <- err
	}()
	b.put(store.AliveKey("n1"), true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
