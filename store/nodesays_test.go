package store_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// What a node made too large is left out wherever it is read, and the log says so once.
func TestWhatANodeMadeTooLargeIsLeftOut(t *testing.T) {
	st := store.NewMemory()
	put := func(key string, v any) {
		t.Helper()
		op, err := store.PutJSON(key, v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("x", store.MaxNodeBytes)
	most := long[:store.MaxNodeBytes-1<<10]
	put(store.StatusKey("n1", "t"), cluster.Status{Task: "t", Node: "n1", Reason: most})
	put(store.StatusKey("n2", "t"), cluster.Status{Task: "t", Node: "n2", Reason: long})
	put(store.StatusKey("n2", cluster.TaskID(long)), cluster.Status{Task: cluster.TaskID(long), Node: "n2"})
	put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1"})
	put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Hostname: long})
	put(store.AgentAckKey("n2"), cluster.AgentAck{Node: "n2", Error: long})
	put(store.GatewayAckKey("n2"), cluster.GatewayAck{Node: "n2", Error: long})
	put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Labels: map[string]string{"a": long}}) // an operator's
	var out bytes.Buffer
	m := store.NewMirror(st, store.Root, hclog.New(&hclog.LoggerOptions{Output: &out}))
	go func() { _ = m.Run(t.Context()) }()
	<-m.Ready()
	m.Read(func(v store.View) {
		for range 3 {
			if got := store.Statuses(v); len(got) != 1 || got[0].Node != "n1" {
				t.Errorf("%d statuses", len(got))
			}
			if got := store.Nodes(v); len(got) != 1 || got[0].ID != "n1" {
				t.Errorf("%d nodes", len(got))
			}
			if len(store.AgentAcks(v)) > 0 || len(store.GatewayAcks(v)) > 0 {
				t.Error("an acknowledgement is read")
			}
			if _, ok, err := store.One[cluster.NodeSpec](v, store.NodeSpecKey("n2")); !ok || err != nil {
				t.Errorf("what an operator says: %v", err)
			}
		}
	})
	if n := strings.Count(out.String(), "left out"); n != 5 || out.Len() > 5*2000 {
		t.Errorf("%d lines of %d bytes", n, out.Len())
	}
}
