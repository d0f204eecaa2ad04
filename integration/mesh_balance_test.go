package integration

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

var (
	meshWeb = cluster.ServiceID{App: "shop", Name: "web"}
	meshAPI = cluster.ServiceID{App: "shop", Name: "api"}
)

func TestMeshBalancesOverReplicas(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	net := n.network(0)
	a, b, c := n.run("api1", 1, net), n.run("api2", 2, net), n.run("api3", 3, net)
	n.run("web1", 1, net)
	n.serve(meshAPI, n.vip(0), []cluster.NetworkName{net}, a, b, c)

	client := n.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", n.id+"_web1")
	for _, proto := range []struct{ cmd, port string }{{"dial", "7000"}, {"udp", "7001"}} {
		r := n.do("web1", proto.cmd, n.vip(0)+":"+proto.port, "90")
		if total(r.Names) != 90 || len(r.Names) != 3 || slices.Min([]int{r.Names["api1"], r.Names["api2"], r.Names["api3"]}) < 12 {
			n.dump()
			t.Errorf("%s: 90 connections went to %v, errors %v", proto.cmd, r.Names, r.Errors)
		}
		if r.From[client] != 90 {
			t.Errorf("%s: servers saw %v as the caller, not %s", proto.cmd, r.From, client)
		}
	}
}

func TestMeshHairpin(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	net := n.network(0)
	a := n.run("api1", 1, net)
	n.serve(meshAPI, n.vip(0), []cluster.NetworkName{net}, a)
	for _, proto := range []struct{ cmd, port string }{{"dial", "7000"}, {"udp", "7001"}} {
		if r := n.do("api1", proto.cmd, n.vip(0)+":"+proto.port, "5"); r.Names["api1"] != 5 {
			n.dump()
			t.Errorf("%s: a task calls itself: %v, errors %v", proto.cmd, r.Names, r.Errors)
		}
	}
}

func TestMeshRefusesFastWithoutEndpoints(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	net := n.network(0)
	n.run("web1", 1, net)
	n.serve(meshAPI, n.vip(0), []cluster.NetworkName{net})
	refused := func(r meshReport) bool { return r.Errors["refused"] == 3 }
	for _, vip := range []string{n.vip(0), n.vip(1)} { // without a task; of no service
		for _, proto := range []struct{ cmd, port string }{{"dial", "7000"}, {"udp", "7001"}} {
			r := n.quick(500*time.Millisecond, refused, "web1", proto.cmd, vip+":"+proto.port, "3")
			if !refused(r) || r.Millis > 500 {
				n.dump()
				t.Errorf("%s %s: errors %v, slowest %d ms", proto.cmd, vip, r.Errors, r.Millis)
			}
		}
	}
}

// TestMeshChangesUnderLoad replaces all tasks of a service again and again while
// others call it: no new connection may fail, and one that stands stays. No packet is
// lost on the way through the rules either, which would be sent again a second later.
func TestMeshChangesUnderLoad(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	net := n.network(0)
	nets := []cluster.NetworkName{net}
	a, b, c := n.run("api1", 1, net), n.run("api2", 2, net), n.run("api3", 3, net)
	n.run("web1", 1, net)
	n.serve(meshAPI, n.vip(0), nets, a)

	sets := [][]cluster.Endpoint{{a, b}, {b, c}, {c}, {a, c}, {a}, {a, b, c}, {b}}
	passed := n.countCalls()
	changes, kept, made := 0, 0, 0
	// As often as it takes on this machine, and as long as none has failed.
	for round := 1; !t.Failed() && (changes < 10 || kept < 50 || made < 200); round++ {
		if round > 10 {
			t.Fatalf("%d changes, %d requests on connections kept and %d on new ones", changes, kept, made)
		}
		r := n.changing(sets, &changes)
		t.Logf("%d changes; new connections %v, kept %v, slowest %d ms", changes, r.Names, r.Kept, r.Millis)
		if len(r.Errors) != 0 || len(r.Kept) != 1 {
			n.dump()
			t.Errorf("errors %v, kept %v", r.Errors, r.Kept)
		}
		kept, made = kept+total(r.Kept), made+total(r.Names)
	}
	if came, left := passed(); came < made || came != left {
		t.Errorf("%d packets to the service address came, and %d of them left, with %d new connections", came, left, made)
	}
}

// countCalls counts the packets to the first service address before and after the
// rules that look at who sends them, and returns how to read the counts.
func (n *meshNode) countCalls() func() (came, left int) {
	n.t.Helper()
	table := "fairlead-test-" + n.id
	rules := fmt.Sprintf(`table ip %[1]s {
	chain came { type filter hook prerouting priority raw - 10; ip daddr %[2]s tcp dport 7000 counter; }
	chain left { type filter hook prerouting priority mangle + 10; ip daddr %[2]s tcp dport 7000 counter; }
}
`, table, n.vip(0))
	nft := func(in string, args ...string) string {
		cmd := exec.Command("nft", args...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			n.t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	nft(rules, "-f", "-")
	n.t.Cleanup(func() { nft("", "delete", "table", "ip", table) })
	return func() (came, left int) {
		for chain, count := range map[string]*int{"came": &came, "left": &left} {
			out := nft("", "list", "chain", "ip", table, chain)
			_, counted, _ := strings.Cut(out, "counter packets ")
			if _, err := fmt.Sscan(counted, count); err != nil {
				n.t.Fatalf("no count: %v\n%s", err, out)
			}
		}
		return came, left
	}
}

// changing puts another of the sets behind meshAPI every 20 ms, while web1 calls it for
// some seconds, and returns what that said.
func (n *meshNode) changing(sets [][]cluster.Endpoint, changes *int) meshReport {
	n.t.Helper()
	net := n.network(0)
	type result struct {
		r   meshReport
		err error
	}
	got := make(chan result, 1)
	go func() {
		r, err := n.try("web1", "load", n.vip(0)+":7000", "4s")
		got <- result{r, err}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case res := <-got:
			if res.err != nil {
				n.t.Fatal(res.err)
			}
			return res.r
		case <-tick.C:
			n.serve(meshAPI, n.vip(0), []cluster.NetworkName{net}, sets[*changes%len(sets)]...)
			*changes++
			if *changes%10 == 0 {
				// The whole table again, as the slow resync does.
				if err := n.mesh.Resync(n.t.Context()); err != nil {
					n.t.Fatal(err)
				}
			}
		}
	}
}

// TestMeshUDPMovesOn: a client that keeps its socket is moved when its task goes.
func TestMeshUDPMovesOn(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	net := n.network(0)
	nets := []cluster.NetworkName{net}
	a, b := n.run("api1", 1, net), n.run("api2", 2, net)
	n.run("web1", 1, net)
	n.serve(meshAPI, n.vip(0), nets, a)
	type result struct {
		r   meshReport
		err error
	}
	got := make(chan result, 1)
	go func() {
		r, err := n.try("web1", "udp", n.vip(0)+":7001", "3000", "keep") // a minute and more
		got <- result{r, err}
	}()
	waitFor(t, "the first task to be asked", func() bool { return n.datagrams("api1") >= 10 })
	n.serve(meshAPI, n.vip(0), nets, a, b)
	n.serve(meshAPI, n.vip(0), nets, b)
	res := <-got
	if res.err != nil {
		t.Fatal(res.err)
	}
	// An answer that is on its way in the moment of the move is lost, as its flow is
	// gone: the first task was asked once more than it was heard. Nothing else is lost.
	names, lost := res.r.Names, map[string]int{}
	if n.datagrams("api1") == names["api1"]+1 {
		lost["timeout"] = 1
	}
	if names["api1"] < 10 || names["api2"] < 10 || !maps.Equal(res.r.Errors, lost) {
		n.dump()
		t.Errorf("one socket was answered by %v, errors %v; the first task was asked %d times",
			names, res.r.Errors, n.datagrams("api1"))
	}
}

// TestMeshLostFirstPacketMovesOn: a connection whose first packet was lost goes to
// the task that serves when it is sent again, not to the one that has gone.
func TestMeshLostFirstPacketMovesOn(t *testing.T) {
	n := newMeshNode(t, "default")
	n.start()
	net := n.network(0)
	nets := []cluster.NetworkName{net}
	a, b := n.run("api1", 1, net), n.run("api2", 2, net)
	n.run("web1", 1, net)
	n.serve(meshAPI, n.vip(0), nets, a)
	// The packet is lost in the task's own network: the node has let it pass.
	pid := n.docker("inspect", "-f", "{{.State.Pid}}", n.id+"_api1")
	lose := exec.Command("nsenter", "--net", "--target", pid, "nft", "-f", "-")
	lose.Stdin = strings.NewReader("table ip lost { chain in { type filter hook input priority 0; tcp dport 7000 drop; }; }")
	if out, err := lose.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	type result struct {
		r   meshReport
		err error
	}
	got := make(chan result, 1)
	go func() {
		r, err := n.try("web1", "dial", n.vip(0)+":7000", "1", "30s")
		got <- result{r, err}
	}()
	<-time.After(500 * time.Millisecond)
	n.serve(meshAPI, n.vip(0), nets, b)
	n.docker("kill", n.id+"_api1") // nothing answers there any more
	res := <-got
	if res.err != nil || res.r.Names["api2"] != 1 {
		t.Errorf("answers %v, errors %v, %v", res.r.Names, res.r.Errors, res.err)
	}
}
