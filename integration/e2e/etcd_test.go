package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/etcdd"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/stolen"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// On an etcd of an operator's, of an older and of the current version: an update under
// load, and the etcd killed: what runs goes on, and nothing acknowledged is lost.
func TestOperatorsEtcd(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			e := etcdd.Start(t, version)
			n := start(t, e.Flags()...)
			image := n.image()
			n.do("deploy", "-f", n.write("compose.yaml", web(image, "operated", "1", 4, "")))
			l := n.startLoad([]load.Request{{Name: "GET", Method: "GET", URL: "http://operated.example.com/"}})
			n.do("deploy", "-f", n.write("compose.yaml", web(image, "operated", "2", 4, "")))
			cmd := n.command(t.Context(), "secret", "set", "operated/kept")
			cmd.Stdin = strings.NewReader("value")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("secret set: %v\n%s", err, out)
			}

			e.Kill()
			if out, err := n.try("scale", "operated/web=2", "--timeout", "2s"); err == nil {
				t.Errorf("a change was acknowledged without etcd:\n%s", out)
			}
			n.stop(syscall.SIGKILL)
			e.Up()
			n.up()
			n.eventually(time.Minute, "changes work again", func() error {
				_, err := n.try("scale", "operated/web=3")
				return err
			})
			l.WantNone(t, "while the app was updated, etcd and the server killed and started")
			if body, err := n.answer("http://operated.example.com/"); err != nil || !strings.HasPrefix(body, "2 ") {
				t.Errorf("it answers %q, %v", body, err)
			}
			if out := n.do("secret", "ls", "operated"); !strings.Contains(out, "operated/kept") {
				t.Errorf("an acknowledged secret is lost:\n%s", out)
			}
		})
	}
}

// An operator's etcd that has users, and other tenants: the grants that docs/clusters.md names are
// all that a server needs.
func TestOperatorsEtcdHasUsers(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			e := etcdd.Start(t, version)
			e.Guard("orchestrator", []store.Grant{{Key: store.Root, Prefix: true, Write: true}, {Key: store.TraefikRoot, Prefix: true, Write: true}})
			n := start(t, e.Flags()...)
			image := n.image()
			for _, v := range []string{"1", "2"} {
				n.do("deploy", "-f", n.write("compose.yaml", web(image, "guarded", v, 2, "")))
				if body, err := n.answer("http://guarded.example.com/"); err != nil || !strings.HasPrefix(body, v+" ") {
					t.Errorf("it answers %q, %v", body, err)
				}
			}
			n.secret("guarded/kept", "value")
			n.stop(syscall.SIGKILL)
			n.up()
			if out := n.do("secret", "ls", "guarded"); !strings.Contains(out, "guarded/kept") {
				t.Errorf("an acknowledged secret is lost:\n%s", out)
			}
			n.do("status", "--cluster") // alarms and all
			n.do("rm", "guarded", "-y")
			if b, err := os.ReadFile(filepath.Join(n.dir, "server.log")); err != nil || strings.Contains(strings.ToLower(string(b)), "permission denied") {
				t.Errorf("it asked for what it may not have, %v:\n%s", err, b)
			}
			pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
			if err != nil {
				t.Fatal(err)
			}
			conf := e.TLS().Clone()
			conf.GetClientCertificate, conf.Certificates = nil, []tls.Certificate{pair}
			if _, err := etcdClient(t, e.Endpoint, conf).Get(t.Context(), "another/tenant"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("what another tenant has is answered with %v", err)
			}
		})
	}
}

// operated is a server on an etcd of an operator's, and the network that nodes join it in.
func operated(t *testing.T, version string) (*lan, *etcdd.Etcd, *server) {
	t.Helper()
	l := newLAN(t)
	e := etcdd.StartAt(t, version, l.host())
	one := l.whole("n1")
	one.args = append(one.args, e.Flags()...)
	t.Cleanup(one.remove)
	one.up()
	return l, e, one
}

// An operator's etcd is put back to an older state, and the server and a node
// that run on make of the cluster what that state says, and what is asked of it from then on;
// an empty one is refused, and what runs runs on.
func TestOperatorsEtcdIsPutBack(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			l, e, one := operated(t, version)
			two := l.joined(one, "n2", false)
			image := one.image()
			deploy := func(version string, replicas int) {
				one.do("deploy", "-f", one.write("compose.yaml", web(image, "ours", version, replicas, "")))
			}
			runs := func(version string, replicas int) {
				one.eventually(2*time.Minute, fmt.Sprintf("%d of version %s run", replicas, version), func() error {
					out, err := one.try("ps", "ours", "-o", "json") // refused while the server begins again
					if err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
					var list []taskRow
					if err := json.Unmarshal([]byte(out), &list); err != nil {
						return err
					}
					if len(list) != replicas || slices.ContainsFunc(list, func(x taskRow) bool { return !x.Ready }) {
						return fmt.Errorf("%+v", list)
					}
					for range 2 * replicas {
						if body, err := one.answer("http://ours.example.com/"); err != nil || !strings.HasPrefix(body, version+" ") {
							return fmt.Errorf("it answers %q: %w", body, err)
						}
					}
					return nil
				})
			}
			deploy("1", 4)
			e.Save()
			e.Up()
			deploy("2", 6)
			e.PutBack()
			e.Up()
			runs("1", 4)
			deploy("3", 4)
			runs("3", 4)

			e.Empty() // as after a slip in its unit
			e.Up()
			one.eventually(time.Minute, "an empty one is refused", func() error {
				b, err := os.ReadFile(filepath.Join(one.dir, "server.log"))
				if err == nil && !strings.Contains(string(b), "this etcd holds no cluster any more") {
					err = errors.New("it is not")
				}
				return err
			})
			one.stop(syscall.SIGKILL) // it has ended by itself
			if n := len(one.containers("ours")) + len(two.containers("ours")); n != 4 {
				t.Errorf("%d of 4 containers run on", n)
			}
			e.PutBack()
			e.Up()
			one.up()
			runs("1", 4)
			one.do("rm", "ours", "-y")
		})
	}
}

// joined starts a node with containers on an engine of its own, with the line of a server.
func (l *lan) joined(at *server, id string, gateway bool) *worker {
	l.t.Helper()
	w := &worker{node: newApart(l.t), id: id}
	l.t.Cleanup(w.remove)
	var addr string
	addr, w.link = l.plug(filepath.Base(w.ns))
	w.args = []string{
		"agent", "--data-dir", w.data, "--run-dir", w.run, "--node", w.id, "--advertise", addr, "--docker", w.engine, "--log-level", "debug",
	}
	if gateway {
		w.args = append(w.args, "--gateway",
			"--http-port", fmt.Sprint(w.http), "--https-port", fmt.Sprint(w.https), "--internal-port", fmt.Sprint(w.internal))
	}
	w.join(at.invited("node", "invite"), at.listen)
	at.eventually(60*time.Second, id+" has joined", func() error {
		for _, x := range at.nodes() {
			if x.ID == id && x.Alive {
				return nil
			}
		}
		return fmt.Errorf("%+v", at.nodes())
	})
	return w
}

// storeURL is where a server's nodes reach the store.
func (s *server) storeURL() string {
	host, _, _ := strings.Cut(s.listen, ":")
	return "https://" + host + ":" + s.args[slices.Index(s.args, "--etcd-client-port")+1]
}

func etcdClient(t *testing.T, url string, conf *tls.Config) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, TLS: conf, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Three nodes on an etcd of an operator's, of an older and of the current version: an
// app is spread over them and reached from outside and inside, commands reach
// containers, etcd is killed under load, a node is cut off and replaced and comes back.
// A node's certificate, stolen, opens nothing but the node's own, and once the node is
// removed nothing at all.
func TestNodesOnOperatorsEtcd(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) { nodesOnOperatorsEtcd(t, version) })
	}
}

func nodesOnOperatorsEtcd(t *testing.T, version string) {
	t.Helper()
	l, e, one := operated(t, version)
	two := l.joined(one, "n2", false)
	l.joined(one, "n3", false)
	image := one.image() // on the server's engine alone
	file := func(version string) string {
		return one.write("compose.yaml", web(image, "ours", version, 6, calling(image)))
	}
	one.do("deploy", "-f", file("1"))
	one.serves("http://caller.example.com/")
	for _, id := range []string{"n1", "n2", "n3"} {
		if got := one.on("ours", id); len(got) < 2 {
			t.Fatalf("on %s are %v", id, got)
		}
	}
	commandsReach(t, one.node, one.on("ours", "n2")[0].ID)
	secret := one.command(t.Context(), "secret", "set", "ours/password")
	secret.Stdin = strings.NewReader("s3cret")
	if out, err := secret.CombinedOutput(); err != nil {
		t.Fatalf("secret set: %v: %s", err, out)
	}

	requests := one.startLoad(load.EveryKind("http://ours.example.com/"))
	e.Kill()
	if out, err := one.try("scale", "ours/web=5", "--timeout", "2s"); err == nil {
		t.Errorf("a change was acknowledged without etcd:\n%s", out)
	}
	time.Sleep(6 * time.Second) // longer than the nodes' leases
	e.Up()
	one.eventually(60*time.Second, "an update is made", func() error {
		out, err := one.try("deploy", "-f", file("2"))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	published := func() int64 {
		t.Helper()
		got, err := etcdClient(t, e.Endpoint, e.TLS()).Get(t.Context(), store.EndpointsKey(cluster.ServiceID{App: "ours", Name: "web"}))
		if err != nil || len(got.Kvs) != 1 {
			t.Fatalf("endpoints: %v, %v", got, err)
		}
		return got.Kvs[0].ModRevision
	}
	before := published()
	one.stop(syscall.SIGKILL) // the only server, for longer than the nodes' leases, which end in such an etcd
	time.Sleep(7 * time.Second)
	one.up()
	one.eventually(60*time.Second, "all nodes are heard of", func() error {
		for _, x := range one.nodes() {
			if !x.Alive {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
	if now := published(); now != before {
		t.Errorf("the endpoints were written anew (revision %d, then %d) though nothing of them changed", before, now)
	}
	requests.WantNone(t, "etcd killed and started, an update, and the server killed and started later")
	if c, err := one.counted(); err != nil || c.Failed > 0 {
		t.Errorf("%v: %s", err, c)
	}

	one.cutNode(two.link, "down")
	one.eventually(60*time.Second, "what was on the cut node is replaced", func() error {
		if len(one.on("ours", "n2")) > 0 || len(one.on("ours", "n1"))+len(one.on("ours", "n3")) != 7 {
			return fmt.Errorf("%v", get[[]taskRow](one.node, "ps", "ours"))
		}
		return nil
	})
	one.serves("http://ours.example.com/")
	one.cutNode(two.link, "up")
	one.eventually(60*time.Second, "the node that is back has no duplicates", func() error {
		if got := two.containers("ours"); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})

	one.do("scale", "ours/web=9")
	one.eventually(60*time.Second, "the node that is back has tasks again", func() error {
		if len(one.on("ours", "n2")) == 0 {
			return fmt.Errorf("%v", get[[]taskRow](one.node, "ps", "ours"))
		}
		return nil
	})
	stolenWalk(t, e, one, two)
}

// cutNode takes a port of the switch down, or up again.
func (s *server) cutNode(port, state string) {
	s.t.Helper()
	s.lan.ip("-n " + s.lan.ns + " link set " + port + " " + state)
}

// stolenWalk tries a node's certificate, and again once the node is removed.
func stolenWalk(t *testing.T, e *etcdd.Etcd, one *server, w *worker) {
	t.Helper()
	member, err := pki.OpenMember(filepath.Join(w.data, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	as := etcdClient(t, one.storeURL(), member.TLS())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	root, way, thief := etcdClient(t, e.Endpoint, e.TLS()), stolen.Way{URL: one.storeURL(), TLS: member.TLS()}, stolen.Thief{Node: cluster.NodeID(w.id)}
	got, err := stolen.Walk(ctx, root, way, thief)
	if err != nil || len(got.Reached) > 0 || len(got.Refused) > 0 {
		t.Fatalf("the certificate of %s opens %v, and of its own not %v, %v", w.id, got.Reached, got.Refused, err)
	}
	t.Logf("%d keys, %d other calls: %d of them opened, all the node's own", got.Keys, got.Calls, got.Own)
	// The operator's etcd itself is not the cluster's authority's to open.
	direct := etcdClient(t, e.Endpoint, member.TLS())
	dctx, stop := context.WithTimeout(ctx, 3*time.Second)
	if _, err := direct.Get(dctx, store.AliveKey("n2")); err == nil {
		t.Error("a node's certificate opens the operator's etcd")
	}
	stop()

	own := store.PlacementPrefix(cluster.NodeID(w.id))
	watch := as.Watch(ctx, own, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-watch; r.Err() != nil {
		t.Fatal(r.Err())
	}
	one.do("node", "rm", w.id, "--force")
	if _, err := as.Get(ctx, own, clientv3.WithPrefix()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("a removed node reads: %v", err)
	}
	if _, err := as.Put(ctx, store.AliveKey(cluster.NodeID(w.id)), "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("a removed node writes: %v", err)
	}
	thief.Removed = true
	if got, err = stolen.Walk(ctx, root, way, thief); err != nil || len(got.Reached) > 0 {
		t.Errorf("the certificate of %s, which was removed, opens %v, %v", w.id, got.Reached, err)
	}
	for r := range watch {
		if r.Err() != nil {
			break
		}
		if r.Canceled || ctx.Err() != nil {
			t.Errorf("the watch of a removed node: %+v, %v", r, ctx.Err())
		}
	}
	one.eventually(60*time.Second, "the removed node's agent ends and says why", func() error {
		b, err := os.ReadFile(filepath.Join(w.dir, "server.log"))
		if err == nil && !strings.Contains(string(b), "not of the cluster any more") {
			err = errors.New("its log says nothing of it")
		}
		return err
	})
	one.eventually(60*time.Second, "its tasks run elsewhere", func() error {
		if n1, n3 := one.on("ours", "n1"), one.on("ours", "n3"); len(n1)+len(n3) != 10 {
			return fmt.Errorf("%v, %v", n1, n3)
		}
		return nil
	})
}

// clients waits until n servers of one external etcd answer and one of them leads.
func (s *server) clients(n int) (list []serverRow) {
	s.t.Helper()
	s.eventually(60*time.Second, fmt.Sprintf("%d servers answer", n), func() error {
		if out, err := s.try("server", "ls"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		list = get[[]serverRow](s.node, "server", "ls")
		good := 0
		for _, x := range list {
			if x.Standing == "client" && x.Answers {
				good++
			}
		}
		if good != n || len(list) != n || leaderOf(list) == "" {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	return list
}

// Two servers on one etcd of an operator's: the second one is given the cluster's keys
// by the first; the one that leads is killed again and again, and nodes, changes and
// requests go on with the other.
func TestServersOnOperatorsEtcd(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) { serversOnOperatorsEtcd(t, version) })
	}
}

func serversOnOperatorsEtcd(t *testing.T, version string) {
	t.Helper()
	l := newLAN(t)
	e := etcdd.StartAt(t, version, l.host())
	one := l.newServer("n1", "")
	one.args = append(one.args, e.Flags()...)
	t.Cleanup(one.remove)
	one.up()
	token := one.invited("server", "invite")
	lost := l.newServer("n9", "")
	t.Cleanup(lost.remove)
	lost.joins(token, one.listen) // without the etcd: it uses nothing up
	lost.says("this cluster's etcd is external: give --etcd-endpoints")
	two := l.newServer("n2", "")
	two.args = append(two.args, e.Flags()...)
	t.Cleanup(two.remove)
	two.joins(token, one.listen)
	one.clients(2)
	servers := map[string]*server{"n1": one, "n2": two}

	w := l.joined(two, "n4", true)
	image := w.image()
	one.do("deploy", "-f", one.write("compose.yaml", web(image, "both", "1", 3, "")))
	w.serves("http://both.example.com/")
	tunnelled(servers, "both", "n4")

	requests := w.startLoad(load.EveryKind("http://both.example.com/"))
	wr := &writer{t: t, servers: servers, acked: map[string]string{}}
	var killed []time.Duration
	for round := range 4 {
		leader := leaderOf(one.clients(2))
		other := one
		if leader == "n1" {
			other = two
		}
		servers[leader].stop(syscall.SIGKILL)
		killed = append(killed, wr.write(leader).Round(10*time.Millisecond))
		// A change that needs the other's control loops, and the node through its proxy.
		other.do("deploy", "-f", one.write("compose.yaml", web(image, "both", fmt.Sprint(round+2), 3, "")))
		servers[leader].up()
	}
	one.clients(2)
	requests.WantNone(t, "the leader killed four times, with an update each time")
	t.Logf("killed to the first accepted write: %v", killed)
	for id, s := range servers {
		s.eventually(20*time.Second, "all is there through "+id, func() error {
			labels := get[struct{ Labels map[string]string }](s.node, "node", "inspect", "n4").Labels
			for k, v := range wr.acked {
				if labels[k] != v {
					return fmt.Errorf("%s=%s, acknowledged, is %q", k, v, labels[k])
				}
			}
			return nil
		})
	}

	if out, err := one.try("server", "rm", "n2"); err == nil || !strings.Contains(out, "stop it first") {
		t.Errorf("removing a server that runs: %v: %s", err, out)
	}
	two.stop(syscall.SIGTERM)
	one.do("server", "rm", "n2")
	one.clients(1)
	one.do("node", "rm", "n4", "--force") // by a proxy that the node may not be at
}
