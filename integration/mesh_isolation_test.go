package integration

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// TestMeshIsolation: two apps on networks of their own do not reach each other by
// any address, and neither reaches the node's private ports.
func TestMeshIsolation(t *testing.T) {
	n := newMeshNode(t, "shop", "blog")
	n.start()
	shop, blog := n.network(0), n.network(1)
	api := n.run("api1", 1, shop)
	n.run("web1", 1, shop)
	n.run("blog1", 1, blog)
	n.serve(meshAPI, n.vip(0), []cluster.NetworkName{shop}, api)

	if r := n.do("web1", "dial", n.vip(0)+":7000", "2"); r.Names["api1"] != 2 {
		t.Fatalf("within the network: %v, errors %v", r.Names, r.Errors)
	}
	for what, addr := range map[string]string{
		"by service address": n.vip(0) + ":7000",
		"by task address":    api.Addresses[shop] + ":7000",
	} {
		if r := n.do("blog1", "dial", addr, "1"); len(r.Names) != 0 {
			n.dump()
			t.Errorf("another network reaches the service %s: %v", what, r.Names)
		}
	}
	for _, server := range []string{n.nets[0].Gateway.String() + ":53", n.nets[1].Gateway.String() + ":53"} {
		for _, name := range []string{"api", "api.shop", "tasks.api", "shop_api", n.vip(0), api.Addresses[shop]} {
			if r := n.do("blog1", "lookup", name, server, "udp4"); len(r.Addrs) != 0 {
				t.Errorf("another network learns %s from %s: %v", name, server, r.Addrs)
			}
		}
	}

	// A private port of the node, on every address it has here.
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(meshPrivatePort)))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, x := range n.nets {
		if r := n.do("web1", "dial", net.JoinHostPort(x.Gateway.String(), strconv.Itoa(meshPrivatePort)), "1"); r.Errors["refused"] != 1 {
			n.dump()
			t.Errorf("a container reaches a private port of the node at %s: %v", x.Gateway, r.Errors)
		}
	}
}

// TestMeshForgedSource: other nodes let callers in by their address, so nothing leaves a
// network under an address that is not of it. A task on two networks still answers
// by the one that is its default route when it is called on the other.
func TestMeshForgedSource(t *testing.T) {
	n := newMeshNode(t, "shop", "blog")
	n.start()
	shop, blog := n.network(0), n.network(1)
	api := n.run("api1", 1, shop)
	evil := n.run("evil1", 1, blog)
	both := n.run("both1", 1, blog, shop)
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", net.JoinHostPort(n.nets[1].Gateway.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	// The last one is honest: what was sent before it and let through came before it.
	for _, from := range []string{api.Addresses[shop], "192.0.2.7", evil.Addresses[blog]} {
		n.do("evil1", "forge", from, pc.LocalAddr().String())
	}
	if err := pc.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 100); ; {
		k, from, err := pc.ReadFrom(buf)
		if err != nil {
			n.dump()
			t.Fatalf("what has its sender's address does not arrive: %v", err)
		}
		if string(buf[:k]) == "from "+evil.Addresses[blog] {
			break
		}
		n.dump()
		t.Errorf("a forged source passes: %q from %s", buf[:k], from)
	}

	// The node's address outside, of which the task knows no better way than that.
	probe, err := (&net.Dialer{}).DialContext(t.Context(), "udp4", "192.0.2.200:9")
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: probe.LocalAddr().(*net.UDPAddr).IP}}
	c, err := d.DialContext(t.Context(), "tcp4", net.JoinHostPort(both.Addresses[shop], "7000"))
	if err != nil {
		n.dump()
		t.Fatalf("called on the network that is not its default route, it does not answer: %v", err)
	}
	_ = c.Close()
}

// TestMeshInternalNetwork: what is on an internal network reaches its services
// and nothing else, and nothing else reaches it.
func TestMeshInternalNetwork(t *testing.T) {
	n := newMeshNode(t, "back!", "front")
	n.start()
	back, front := n.network(0), n.network(1)
	db := n.run("db1", 1, back)
	n.run("job1", 1, back)
	other := n.run("web1", 1, front)
	n.serve(meshAPI, n.vip(0), []cluster.NetworkName{back}, db)
	if r := n.do("job1", "dial", n.vip(0)+":7000", "2"); r.Names["db1"] != 2 {
		n.dump()
		t.Errorf("inside: %v, errors %v", r.Names, r.Errors)
	}
	refused := func(r meshReport) bool {
		return len(r.Names) == 0 && strings.Contains(fmt.Sprint(r.Errors), "no route to host")
	}
	for _, c := range []struct{ from, to string }{
		{"job1", "192.0.2.200:7000"}, {"job1", other.Addresses[front] + ":7000"}, {"web1", db.Addresses[back] + ":7000"},
	} {
		if r := n.quick(500*time.Millisecond, refused, c.from, "dial", c.to, "1"); len(r.Names) != 0 {
			n.dump()
			t.Errorf("%s reaches %s: %v", c.from, c.to, r.Names)
		} else if c.from == "job1" && (r.Millis > 500 || !refused(r)) {
			t.Errorf("%s is not refused at once: %v after %d ms", c.from, r.Errors, r.Millis)
		}
	}
}

// TestMeshSeveralNetworks: a service on two networks calls one that is only on
// the network that is not its default route, whichever that is.
func TestMeshSeveralNetworks(t *testing.T) {
	n := newMeshNode(t, "aaa", "zzz")
	n.start()
	for i := range n.nets {
		target, other := n.network(i), n.network(1-i)
		suffix := strconv.Itoa(i)
		db := n.run("db"+suffix, 1, target)
		web := n.run("web"+suffix, 1, other, target)
		id := cluster.ServiceID{App: "shop", Name: cluster.ServiceName("db" + suffix)}
		n.serve(id, n.vip(i), []cluster.NetworkName{target}, db)
		r := n.do("web"+suffix, "dial", "db"+suffix+":7000", "4")
		if r.Names["db"+suffix] != 4 || r.From[web.Addresses[target]] != 4 {
			n.dump()
			t.Errorf("%s is called as %v from %v, errors %v", id, r.Names, r.From, r.Errors)
		}
		// And a service of the network that is its default route, declared later.
		late := cluster.ServiceID{App: "shop", Name: cluster.ServiceName("late" + suffix)}
		api := n.run("late"+suffix, 1, other)
		n.serve(late, n.vip(10+i), []cluster.NetworkName{other}, api)
		if r := n.do("web"+suffix, "dial", "late"+suffix+":7000", "4"); r.Names["late"+suffix] != 4 {
			t.Errorf("%s: %v, errors %v", late, r.Names, r.Errors)
		}
	}
}
