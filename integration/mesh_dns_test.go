package integration

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/fairlead/fairlead/cluster"
)

// meshOutside answers example.test for the outside world.
func meshOutside(t *testing.T) {
	t.Helper()
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", meshUpstream+":53")
	if err != nil {
		t.Fatal(err)
	}
	srv := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, req *mdns.Msg) {
		resp := new(mdns.Msg).SetReply(req)
		if req.Question[0].Name != "example.test." {
			resp.Rcode = mdns.RcodeNameError
		} else if req.Question[0].Qtype == mdns.TypeA {
			resp.Answer = []mdns.RR{&mdns.A{
				Hdr: mdns.RR_Header{Name: "example.test.", Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 1}, A: net.IPv4(192, 0, 2, 80),
			}}
		}
		_ = w.WriteMsg(resp)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = srv.ShutdownContext(context.Background()); <-done })
}

// TestMeshNamesInsideContainers asks through Docker's own resolver, as programs do.
func TestMeshNamesInsideContainers(t *testing.T) {
	n := newMeshNode(t, "default")
	meshOutside(t)
	n.start()
	net0 := n.network(0)
	nets := []cluster.NetworkName{net0}
	a, b := n.run("api1", 1, net0), n.run("api2", 2, net0)
	n.run("web1", 1, net0)
	n.serve(meshAPI, n.vip(0), nets, a, b)
	dnsrr := cluster.ServiceID{App: "shop", Name: "db"}
	n.mu.Lock()
	n.rev++
	n.eps[dnsrr] = cluster.Endpoints{ServiceID: dnsrr, Mode: "dnsrr", Networks: nets, Tasks: []cluster.Endpoint{a, b}, Aliases: []string{"Database"}, Rev: n.rev}
	n.mu.Unlock()
	n.serve(meshWeb, n.vip(1), nets)

	tasks := []string{a.Addresses[net0], b.Addresses[net0]}
	slices.Sort(tasks)
	for _, c := range []struct {
		name string
		want []string
	}{
		{"api", []string{n.vip(0)}},
		{"API", []string{n.vip(0)}},
		{"api.shop", []string{n.vip(0)}},
		{"shop_api", []string{n.vip(0)}},
		{"tasks.api", tasks},
		{"tasks.api.shop", tasks},
		{"api.2", []string{b.Addresses[net0]}},
		{"api.1.shop", []string{a.Addresses[net0]}},
		{"db", tasks},
		{"database", tasks},
		{"web", []string{n.vip(1)}}, // without a ready task it still has its address
		{n.vip(0), []string{"api.shop."}},
		{"example.test", []string{"192.0.2.80"}},
	} {
		is := func(r meshReport) bool { return slices.Equal(r.Addrs, c.want) && len(r.Errors) == 0 }
		if r := n.quick(time.Second, is, "web1", "lookup", c.name); !is(r) || r.Millis > 1000 {
			t.Errorf("%s is %v, errors %v, after %d ms; want %v", c.name, r.Addrs, r.Errors, r.Millis, c.want)
		}
	}
	nothing := func(r meshReport) bool { return len(r.Addrs) == 0 && r.Errors["not found"] == 1 }
	for _, name := range []string{"nothere", "tasks.nothere", "api.9", "nothere.test", "db.blog"} {
		if r := n.quick(2*time.Second, nothing, "web1", "lookup", name); !nothing(r) || r.Millis > 2000 {
			t.Errorf("%s is %v, errors %v, after %d ms", name, r.Addrs, r.Errors, r.Millis)
		}
	}
	server := n.nets[0].Gateway.String() + ":53"
	if r := n.do("web1", "lookup", "tasks.api", server, "tcp4"); !slices.Equal(r.Addrs, tasks) {
		t.Errorf("over TCP: %v, errors %v", r.Addrs, r.Errors)
	}
}
