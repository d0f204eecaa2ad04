package registry

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// applyNets is the store after the actions.
func applyNets(s Snapshot, acts []Action) Snapshot {
	s.Nets = slices.Clone(s.Nets)
	for _, a := range acts {
		switch a := a.(type) {
		case PutNodeNet:
			s.Nets = slices.DeleteFunc(s.Nets, func(n cluster.NodeNet) bool { return n.Node == a.Net.Node })
			s.Nets = append(s.Nets, a.Net)
		case DeleteNodeNet:
			s.Nets = slices.DeleteFunc(s.Nets, func(n cluster.NodeNet) bool { return n.Node == a.Node })
		case PutAddress, DeleteAddress, PutEndpoints, DeleteEndpoints, NoAddress, ClearNoAddress:
		}
	}
	return s
}

func placed(node cluster.NodeID, nets ...cluster.NetworkName) cluster.NodePlacement {
	p := cluster.NodePlacement{Node: node, Task: cluster.TaskID(fmt.Sprint(node, nets))}
	for _, n := range nets {
		p.Spec.Networks = append(p.Spec.Networks, cluster.NetworkRef{Name: n})
	}
	return p
}

func TestNodesGetBlocks(t *testing.T) {
	s := Snapshot{Pool: prefix("10.213.0.0/16"), Nodes: []cluster.Node{
		{NodeSpec: cluster.NodeSpec{ID: "n2"}, Info: cluster.NodeInfo{Address: "10.0.0.2"}},
		// It has a network from before there were blocks: nobody else may get that.
		{NodeSpec: cluster.NodeSpec{ID: "n1"}, Info: cluster.NodeInfo{Address: "10.0.0.1", Networks: map[cluster.NetworkName]netip.Prefix{"a": prefix("10.213.0.0/24")}}},
	}}
	acts := nodeNets(s)
	if len(acts) != 2 {
		t.Fatalf("%v", acts)
	}
	n1, n2 := acts[0].(PutNodeNet).Net, acts[1].(PutNodeNet).Net
	if n1.Node != "n1" || !slices.Equal(n1.Blocks, []netip.Prefix{prefix("10.213.4.0/22")}) || n1.Networks["a"] != prefix("10.213.0.0/24") || n1.Address != "10.0.0.1" {
		t.Errorf("n1 got %+v", n1)
	}
	if !slices.Equal(n2.Blocks, []netip.Prefix{prefix("10.213.8.0/22")}) {
		t.Errorf("n2 got %+v", n2)
	}
	s = applyNets(s, acts)
	if again := nodeNets(s); len(again) != 0 {
		t.Errorf("a second plan is %v", again)
	}
	// Three networks want a second block: two stay free.
	s.Placements = []cluster.NodePlacement{placed("n2", "a", "b"), placed("n2", "c"), placed("n2", "a")}
	acts = nodeNets(s)
	if len(acts) != 1 || len(acts[0].(PutNodeNet).Net.Blocks) != 2 {
		t.Errorf("%v", acts)
	}
	s = applyNets(s, acts)
	s.Nodes = s.Nodes[1:]
	if acts = nodeNets(s); len(acts) != 1 || acts[0].(DeleteNodeNet).Node != "n2" {
		t.Errorf("a node that is gone: %v", acts)
	}
}

// What a node that joined says of its networks is believed as far as the control
// plane knows it itself: within its own blocks, and where its tasks were placed.
// Other nodes make routes and rules of it.
func TestANodeCannotClaimOthersNetworks(t *testing.T) {
	own := map[cluster.NetworkName]netip.Prefix{"shop": prefix("10.213.4.0/24")}
	said := maps.Clone(own)
	said["bank"] = prefix("10.213.5.0/24") // no task of it is on that network
	said["back"] = prefix("10.213.0.0/24") // another node's block
	said["world"] = prefix("8.8.8.0/24")   // nobody's
	said["all"] = prefix("0.0.0.0/0")      // everybody's
	said["wide"] = prefix("10.213.0.0/16") // holds its own block
	s := Snapshot{
		Pool: prefix("10.213.0.0/16"),
		Nodes: []cluster.Node{
			{NodeSpec: cluster.NodeSpec{ID: "n1"}, Info: cluster.NodeInfo{Address: "10.0.0.1"}},
			{NodeSpec: cluster.NodeSpec{ID: "n2", Key: "k2"}, Info: cluster.NodeInfo{Address: "10.0.0.2", Networks: said}},
		},
		Nets: []cluster.NodeNet{
			{Node: "n1", Address: "10.0.0.1", Blocks: []netip.Prefix{prefix("10.213.0.0/22")}},
			{Node: "n2", Address: "10.0.0.2", Blocks: []netip.Prefix{prefix("10.213.4.0/22"), prefix("10.213.8.0/22")}},
		},
		Placements: []cluster.NodePlacement{placed("n2", "shop", "back", "world", "all", "wide")},
	}
	after := applyNets(s, nodeNets(s))
	for _, n := range after.Nets {
		want := map[cluster.NetworkName]netip.Prefix{}
		if n.Node == "n2" {
			want = own
		}
		if !maps.Equal(n.Networks, want) {
			t.Errorf("%s has %v, want %v", n.Node, n.Networks, want)
		}
		// Nor does it keep addresses from the others by claiming them.
		if n.Node == "n1" && len(n.Blocks) != 1 {
			t.Errorf("n1 has %v", n.Blocks)
		}
	}
	if again := nodeNets(after); len(again) != 0 {
		t.Errorf("a second plan is %v", again)
	}
	s.Nets = nil
	if acts := nodeNets(s); len(acts) != 2 || len(acts[0].(PutNodeNet).Net.Blocks) == 0 {
		t.Errorf("a claim of everything leaves the others without addresses: %v", acts)
	}
}

func TestBlockLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Snapshot{Pool: rapid.SampledFrom([]netip.Prefix{prefix("10.213.0.0/16"), prefix("10.0.0.0/20"), prefix("255.255.240.0/20")}).Draw(t, "pool")}
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			s.Nodes, s.Placements = nil, nil
			for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
				id := cluster.NodeID(fmt.Sprint("n", i))
				s.Nodes = append(s.Nodes, cluster.Node{NodeSpec: cluster.NodeSpec{ID: id}, Info: cluster.NodeInfo{Address: fmt.Sprint("10.0.0.", i)}})
				for n := range rapid.IntRange(0, 9).Draw(t, "networks") {
					s.Placements = append(s.Placements, placed(id, cluster.NetworkName(fmt.Sprint("net", n))))
				}
			}
			before := s
			acts := nodeNets(s)
			shuffled := s
			shuffled.Nodes = slices.Clone(s.Nodes)
			slices.Reverse(shuffled.Nodes)
			shuffled.Placements = slices.Clone(s.Placements)
			slices.Reverse(shuffled.Placements)
			if fmt.Sprint(nodeNets(shuffled)) != fmt.Sprint(acts) {
				t.Fatalf("step %d: the order of the input matters", step)
			}
			s = applyNets(s, acts)
			s = applyNets(s, nodeNets(s)) // what a removed node had is free from the next plan on
			if len(nodeNets(s)) != 0 {
				t.Fatalf("step %d: a third plan is not empty: %v", step, nodeNets(s))
			}
			if len(s.Nets) != len(s.Nodes) {
				t.Fatalf("%d nodes, %d nets", len(s.Nodes), len(s.Nets))
			}
			var all []netip.Prefix
			for _, n := range s.Nets {
				for _, b := range n.Blocks {
					if slices.ContainsFunc(all, b.Overlaps) || !s.Pool.Contains(b.Addr()) {
						t.Fatalf("block %s of %s overlaps another or is outside of %s", b, n.Node, s.Pool)
					}
					all = append(all, b)
				}
			}
			// Who gets too little says so, and nothing is left then.
			wanted := map[cluster.NodeID]map[cluster.NetworkName]bool{}
			for _, p := range s.Placements {
				for _, n := range p.Spec.Networks {
					if wanted[p.Node] == nil {
						wanted[p.Node] = map[cluster.NetworkName]bool{}
					}
					wanted[p.Node][n.Name] = true
				}
			}
			for _, n := range s.Nets {
				if want := max(len(wanted[n.Node])+spare-room(n.Blocks), 0); n.Short != want {
					t.Fatalf("%s has %v for %v and says that it lacks %d", n.Node, n.Blocks, wanted[n.Node], n.Short)
				}
				if _, free := freeBlock(s.Pool, all); n.Short > 0 && free {
					t.Fatalf("%s lacks %d networks, and there are some", n.Node, n.Short)
				}
			}
			// Nothing is taken from a node that stays.
			for _, old := range before.Nets {
				for _, n := range s.Nets {
					if n.Node == old.Node && !slices.Equal(n.Blocks[:len(old.Blocks)], old.Blocks) {
						t.Fatalf("%s had %v and has %v", n.Node, old.Blocks, n.Blocks)
					}
				}
			}
		}
	})
}

// A node that was removed and joined again keeps its containers, in addresses that another
// node may have by now: nothing is sent there, and it is said.
func TestAddressesOfAnotherNode(t *testing.T) {
	s := Snapshot{
		Pool: prefix("10.213.0.0/16"),
		Nodes: []cluster.Node{
			{NodeSpec: cluster.NodeSpec{ID: "n1"}, Alive: true, Info: cluster.NodeInfo{Address: "10.0.0.1"}},
			{NodeSpec: cluster.NodeSpec{ID: "n2", Key: "k2"}, Alive: true, Info: cluster.NodeInfo{
				Address: "10.0.0.2", Networks: map[cluster.NetworkName]netip.Prefix{"shop": prefix("10.213.4.0/24"), "new": prefix("10.213.12.0/24"), "idle": prefix("10.213.5.0/24")},
			}},
		},
		Nets: []cluster.NodeNet{
			{Node: "n1", Address: "10.0.0.1", Blocks: []netip.Prefix{prefix("10.213.0.0/22"), prefix("10.213.4.0/22")}},
			{Node: "n2", Address: "10.0.0.2", Blocks: []netip.Prefix{prefix("10.213.12.0/22")}},
		},
		Placements: []cluster.NodePlacement{placed("n2", "shop", "new", "theirs")},
	}
	s.Placements[0].Spec.Networks[2].External = true
	after := applyNets(s, nodeNets(s))
	for _, n := range after.Nets {
		if want := map[cluster.NodeID][]cluster.NetworkName{"n2": {"shop"}}[n.Node]; !slices.Equal(n.Outside, want) {
			t.Errorf("%s has outside of its own %v, want %v", n.Node, n.Outside, want)
		}
	}
	if again := nodeNets(after); len(again) != 0 {
		t.Errorf("a second plan is %v", again)
	}

	task := cluster.Task{ID: s.Placements[0].Task, ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Slot: 1, Desire: cluster.DesireRun}
	s.Tasks = []cluster.Task{task}
	st := cluster.Status{Task: task.ID, Node: "n2", State: cluster.StateRunning, Ready: true, Addresses: map[cluster.NetworkName]string{
		"shop": "10.213.4.9", "new": "10.213.12.9", "theirs": "172.20.0.9",
	}}
	s.Statuses = []cluster.Status{st}
	got := serving(s)[task.ServiceID]
	if want := map[cluster.NetworkName]string{"new": "10.213.12.9", "theirs": "172.20.0.9"}; len(got) != 1 || !maps.Equal(got[0].Addresses, want) {
		t.Errorf("it is reached at %v, want %v", got, want)
	}
	if len(st.Addresses) != 3 {
		t.Errorf("the status itself was changed: %v", st.Addresses)
	}
	// A server may have networks from before there were blocks, in what nobody else has.
	s.Nodes[1].Key = ""
	s.Nodes[1].Info.Networks["old"] = prefix("10.213.40.0/24")
	s.Placements = []cluster.NodePlacement{placed("n2", "shop", "new", "theirs", "old")}
	s.Placements[0].Spec.Networks[2].External = true
	s.Tasks[0].ID, s.Statuses[0].Task = s.Placements[0].Task, s.Placements[0].Task
	s.Statuses[0].Addresses["old"] = "10.213.40.9"
	if got := serving(s)[task.ServiceID]; len(got) != 1 || len(got[0].Addresses) != 3 || got[0].Addresses["shop"] != "" {
		t.Errorf("a server's task is reached at %v", got)
	}
	for _, n := range applyNets(s, nodeNets(s)).Nets {
		_, old := n.Networks["old"]
		if _, another := n.Networks["shop"]; n.Node == "n2" && (!old || another || !slices.Equal(n.Outside, []cluster.NetworkName{"shop"})) {
			t.Errorf("the server has %v, and outside %v", n.Networks, n.Outside)
		}
	}
	s.Nets, s.Nodes[1].Key = nil, "k2" // it has none yet
	if got := serving(s)[task.ServiceID]; len(got) != 1 || len(got[0].Addresses) != 1 {
		t.Errorf("the task of a node without addresses is reached at %v", got)
	}
}
