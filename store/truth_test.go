package store_test

import (
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A node may write its own keys alone, and what it writes there is about itself,
// whatever name stands in it.
func TestANodeSpeaksForItselfAlone(t *testing.T) {
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
	for _, n := range []cluster.NodeID{"n1", "n2"} {
		put(store.NodeInfoKey(n), cluster.NodeInfo{ID: n})
		put(store.AgentAckKey(n), cluster.AgentAck{Node: n, Endpoint: 5})
		put(store.GatewayAckKey(n), cluster.GatewayAck{Node: n})
		put(store.StatusKey(n, "mine"), cluster.Status{Task: "mine", Node: n})
	}
	// As n2, in n1's name.
	put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n1", Address: "10.0.0.66"})
	put(store.AgentAckKey("n2"), cluster.AgentAck{Node: "n1", Endpoint: 99})
	put(store.GatewayAckKey("n2"), cluster.GatewayAck{Node: "n1"})
	put(store.StatusKey("n2", "theirs"), cluster.Status{Task: "theirs", Node: "n1", State: cluster.StateRunning, Ready: true})
	put(store.StatusKey("n2", "other"), cluster.Status{Task: "mine", Node: "n2"})
	m := store.NewMirror(st, store.Root, hclog.NewNullLogger())
	go func() { _ = m.Run(t.Context()) }()
	<-m.Ready()
	m.Read(func(v store.View) {
		for _, n := range store.Nodes(v) {
			if n.Info.Address != "" || n.ID != n.Info.ID {
				t.Errorf("n2 describes %s: %+v", n.ID, n.Info)
			}
		}
		for _, a := range store.AgentAcks(v) {
			if a.Endpoint == 99 {
				t.Errorf("n2 acknowledges for %s", a.Node)
			}
		}
		if acks := store.GatewayAcks(v); len(acks) != 1 || acks[0].Node != "n1" {
			t.Errorf("gateways %v", acks)
		}
		var tasks []cluster.TaskID
		for _, s := range store.Statuses(v) {
			tasks = append(tasks, s.Task)
		}
		if !slices.Equal(tasks, []cluster.TaskID{"mine", "mine"}) {
			t.Errorf("statuses of %v", tasks)
		}
	})
}

// What is said in the name of a node that was removed counts for nothing, until a machine
// has joined under it; a server's own node needs no record.
func TestARemovedNodeIsNone(t *testing.T) {
	st := store.NewMemory()
	for key, v := range map[string]any{
		store.NodeInfoKey("n1"):    cluster.NodeInfo{ID: "n1"}, // a server's
		store.NodeInfoKey("n2"):    cluster.NodeInfo{ID: "n2"},
		store.AliveKey("n2"):       true,
		store.NodeRemovedKey("n2"): cluster.RemovedNode{Node: "n2"},
		store.NodeInfoKey("n3"):    cluster.NodeInfo{ID: "n3"},
		store.NodeRemovedKey("n3"): cluster.RemovedNode{Node: "n3"},
		store.NodeSpecKey("n3"):    cluster.NodeSpec{ID: "n3", Key: "k3"},
		store.NodeInfoKey("n4"):    cluster.NodeInfo{ID: "n4"},
		store.NodeRemovedKey("n4"): cluster.RemovedNode{Node: "n4"},
		store.ServerInfoKey("n4"):  cluster.ServerInfo{Node: "n4"},
	} {
		op, err := store.PutJSON(key, v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	m := store.NewMirror(st, store.Root, hclog.NewNullLogger())
	go func() { _ = m.Run(t.Context()) }()
	<-m.Ready()
	var nodes []cluster.NodeID
	m.Read(func(v store.View) {
		for _, n := range store.Nodes(v) {
			nodes = append(nodes, n.ID)
		}
	})
	if !slices.Equal(nodes, []cluster.NodeID{"n1", "n3", "n4"}) {
		t.Errorf("nodes %v", nodes)
	}
}

// Constraints, and who waits for gateways, go by a node's roles: it cannot take what it was
// not given. Servers, also those that joined, have no key on record.
func TestANodeTakesNoRole(t *testing.T) {
	said := []string{"server", "agent", "gateway", "manager", "SERVER", "Gateway", "database"}
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
	want := map[cluster.NodeID][]string{"first": said, "second": said, "worker": {"agent"}, "edge": {"agent", "gateway"}, "none": {}}
	for n := range want {
		put(store.NodeInfoKey(n), cluster.NodeInfo{ID: n, Roles: said})
	}
	put(store.NodeInfoKey("none"), cluster.NodeInfo{ID: "none", Roles: []string{"server", "gateway"}})
	put(store.ServerSpecKey("second"), cluster.ServerSpec{Node: "second", Key: "k2"})
	put(store.ServerInfoKey("second"), cluster.ServerInfo{Node: "second"})
	put(store.NodeSpecKey("second"), cluster.NodeSpec{ID: "second", Labels: map[string]string{"zone": "a"}})
	put(store.NodeSpecKey("worker"), cluster.NodeSpec{ID: "worker", Key: "k3"})
	put(store.NodeSpecKey("edge"), cluster.NodeSpec{ID: "edge", Key: "k4", Gateway: true})
	put(store.NodeSpecKey("none"), cluster.NodeSpec{ID: "none", Key: "k5"})
	m := store.NewMirror(st, store.Root, hclog.NewNullLogger())
	go func() { _ = m.Run(t.Context()) }()
	<-m.Ready()
	m.Read(func(v store.View) {
		for range 2 { // what the mirror has stays as it is
			for _, n := range store.Nodes(v) {
				if !slices.Equal(n.Info.Roles, want[n.ID]) {
					t.Errorf("%s plays %v, want %v", n.ID, n.Info.Roles, want[n.ID])
				}
				for _, role := range []string{"manager", "server", "database"} {
					c, err := cluster.ParseConstraint("node.role==" + role)
					if err != nil {
						t.Fatal(err)
					}
					if server := n.Key == ""; c.Holds(&n) != server {
						t.Errorf("%s has %s: %v", n.ID, role, !server)
					}
				}
			}
		}
	})
}
