package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/integration/stolen"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// Three servers and a node: what is taken out, and what is refused.
func TestAcrossServers(t *testing.T) {
	onEngines(t, []string{"--nodes", "4", "--servers", "3", "--gateways", "0"}, func(b *bed) {
		b.aliveSoon("n1 n2 n3 n4")
		b.deploy(4)
		b.part("node removed", nodeRemoved)
		b.part("server removed", serverRemoved)
	})
}

// thief has the certificate of a node, and connections to a server.
type thief struct {
	server string
	conf   *tls.Config
	store  *clientv3.Client
	tunnel net.Conn
	ended  chan error
	watch  clientv3.WatchChan // of who serves what
	b      *bed
}

// told reads what the watch has to say, and reports whether it told of a change after a
// revision; with wait it waits for one.
func (x *thief) told(after int64, wait bool) bool {
	limit := time.Second
	if wait {
		limit = time.Minute
	}
	for end := time.After(limit); ; {
		select {
		case got, open := <-x.watch:
			if !open || got.Canceled {
				return false
			}
			for _, e := range got.Events {
				if e.Kv.ModRevision > after {
					return true
				}
			}
		case <-end:
			return false
		}
	}
}

// opens asks the server's API for a tunnel, with a new connection.
func (x *thief) opens() (net.Conn, error) {
	addr := x.b.address(x.server) + ":7420"
	c, err := x.b.dial("n4", addr)
	if err != nil {
		return nil, err
	}
	conf := x.conf.Clone()
	conf.ServerName, conf.NextProtos = x.b.address(x.server), []string{"http/1.1"}
	t := tls.Client(c, conf)
	_ = t.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(t, "POST /v1/node/tunnel HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", addr, v1.ProtocolTunnel)
	resp, err := http.ReadResponse(bufio.NewReader(t), nil)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		return nil, errors.Join(fmt.Errorf("%s: %s", resp.Status, body), t.Close())
	}
	_ = t.SetDeadline(time.Time{})
	return t, nil
}

// reads reads a key of the node's own, from this server's copy of the store.
func (x *thief) reads() error {
	ctx, cancel := context.WithTimeout(x.b.t.Context(), time.Minute)
	defer cancel()
	_, err := x.store.Get(ctx, store.NodeInfoKey("n4"), clientv3.WithSerializable())
	return err
}

// leases makes a lease, for which etcd itself asks for no more than a certificate.
func (x *thief) leases() error {
	ctx, cancel := context.WithTimeout(x.b.t.Context(), time.Minute)
	defer cancel()
	_, err := x.store.Grant(ctx, 5)
	return err
}

// n4 is removed on one server. Its certificate, stolen, is refused by each from then
// on, and what was open with it ends: the API's tunnels, and the stores.
func nodeRemoved(b *bed) {
	if out, err := b.tryCluster("node", "rm", "n4"); err == nil || !strings.Contains(out, "is alive") {
		b.t.Errorf("an alive node is removed: %s", out)
	}
	b.do("kill", "n4/fairlead") // it would open its tunnels again and again
	b.aliveSoon("n1 n2 n3")
	copied := b.t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(b.disk("n4", "fairlead", "pki"))); err != nil {
		b.t.Fatal(err)
	}
	member, err := pki.OpenMember(copied, time.Now)
	if err != nil {
		b.t.Fatal(err)
	}
	var thieves []*thief
	for _, s := range []string{"n1", "n2", "n3"} {
		x := &thief{server: s, conf: member.TLS(), b: b, ended: make(chan error, 1)}
		x.store = b.store("n4", s, x.conf)
		b.t.Cleanup(func() { _ = x.store.Close() })
		if err := x.reads(); err != nil {
			b.t.Fatalf("before, %s refuses it: %v", s, err)
		}
		if err := x.leases(); err != nil {
			b.t.Fatalf("before, %s refuses it a lease: %v", s, err)
		}
		if x.tunnel, err = x.opens(); err != nil {
			b.t.Fatalf("before, %s refuses a tunnel: %v", s, err)
		}
		b.t.Cleanup(func() { _ = x.tunnel.Close() })
		go func() { _, err := io.Copy(io.Discard, x.tunnel); x.ended <- err }()
		x.watch = x.store.Watch(b.t.Context(), store.PrefixEndpoints, clientv3.WithPrefix())
		thieves = append(thieves, x)
	}
	told := func(what string, after int64, want bool) {
		b.t.Helper()
		for _, x := range thieves {
			if got := x.told(after, want); got != want {
				b.t.Errorf("%s, %s tells a watch of before: %v", what, x.server, got)
			}
		}
	}
	b.cluster("scale", "demo/web=5")
	told("before it is removed", 0, true)
	b.cluster("node", "rm", "n4")
	removed := b.revision()
	b.cluster("scale", "demo/web=4")
	b.readySoon("demo", 4)
	told("removed", removed, false)
	for _, x := range thieves {
		if err := x.reads(); !errors.Is(err, rpctypes.ErrPermissionDenied) && (err == nil || !strings.Contains(err.Error(), "permission denied")) {
			b.t.Errorf("the store of %s, with a connection of before: %v", x.server, err)
		}
		if err := x.leases(); !errors.Is(err, rpctypes.ErrPermissionDenied) && (err == nil || !strings.Contains(err.Error(), "permission denied")) {
			b.t.Errorf("a lease of the store of %s, with a connection of before: %v", x.server, err)
		}
		// The other servers hear of it from the store.
		select {
		case <-x.ended:
		case <-time.After(time.Minute):
			b.t.Errorf("a tunnel to %s of before goes on", x.server)
		}
		if c, err := x.opens(); err == nil {
			b.t.Errorf("%s takes a tunnel of a removed node", x.server)
			_ = c.Close()
		} else if !strings.Contains(err.Error(), "401") && !strings.Contains(err.Error(), "403") {
			b.t.Errorf("%s, asked for a tunnel: %v", x.server, err)
		}
		fresh := &thief{server: x.server, b: b, store: b.store("n4", x.server, x.conf)}
		if err := fresh.reads(); err == nil || !strings.Contains(err.Error(), "permission denied") && !errors.Is(err, rpctypes.ErrAuthFailed) {
			b.t.Errorf("the store of %s, with a new connection: %v", x.server, err)
		}
		_ = fresh.store.Close()
		b.walk(x.server, stolen.Thief{Node: "n4", Removed: true})
	}
	b.do("start", "n4/fairlead")
	b.eventually(time.Minute, "the removed node says that it is none any more", func() error {
		if text := b.read(b.disk("n4", "fairlead.log")); !strings.Contains(text, "not of the cluster any more") {
			return errors.New("its log does not say so")
		}
		return nil
	})
	b.do("kill", "n4")
}

// revision is the store's now.
func (b *bed) revision() int64 {
	b.t.Helper()
	c := b.rootStore()
	defer c.Close()
	got, err := c.Get(b.t.Context(), store.AliveKey(""), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		b.t.Fatal(err)
	}
	return got.Header.Revision
}

// tryCluster runs a command of the cluster that may fail.
func (b *bed) tryCluster(args ...string) (string, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	return output(b.fairlead(ctx, args...))
}

// A server that runs containers is not taken out unawares, and none is whose absence
// would stop the store.
func serverRemoved(b *bed) {
	before := b.readySoon("demo", 4)
	if len(on(before, "n3")) == 0 {
		b.t.Fatalf("n3 has no task: %+v", before)
	}
	out, err := b.tryCluster("server", "rm", "n3")
	if err == nil || !strings.Contains(out, "n3 runs containers") || !strings.Contains(out, on(before, "n3")[0].Address) || !strings.Contains(out, "fairlead node drain n3") {
		b.t.Errorf("a server with containers: %v: %s", err, out)
	}
	b.do("kill", "n2")
	b.aliveSoon("n1 n3")
	for _, force := range [][]string{nil, {"--force"}} { // the majority is said first
		out, err := b.tryCluster(append([]string{"server", "rm", "n3"}, force...)...)
		if err == nil || !strings.Contains(out, "no majority") || !strings.Contains(out, "Bring n2 back first") {
			b.t.Errorf("one of two that answer is removed: %v: %s", err, out)
		}
	}
	b.cluster("node", "label", "n1", "still=writes")
	b.do("start", "n2")
	b.voters("n1 n2 n3")
	b.aliveSoon("n1 n2 n3")
	b.cluster("node", "drain", "n3")
	b.spread(4, "n3")
	b.eventually(time.Minute, "n3 runs nothing", func() error {
		if got := b.containers("n3", "demo", false); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	elsewhere := b.readySoon("demo", 4)
	b.cluster("server", "rm", "n3")
	b.voters("n1 n2")
	b.cluster("node", "label", "n1", "still=two")
	b.same("a server without containers was removed", elsewhere, b.readySoon("demo", 4))
}

// voters waits until these servers vote and answer, and there are no others.
func (b *bed) voters(want string) {
	b.t.Helper()
	b.eventually(time.Minute, "servers are "+want, func() error {
		var good []string
		list := b.servers()
		for _, s := range list {
			if s.Standing == "voter" && s.Answers {
				good = append(good, s.Node)
			}
		}
		if len(good) != len(list) || strings.Join(good, " ") != want {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
}
