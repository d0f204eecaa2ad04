package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// fakeDoor takes a request's text as its key, and a certificate's organisation too.
type fakeDoor struct {
	store interface { // what the record is read of
		Get(ctx context.Context, key string) (store.Entry, error)
	}
	mu       sync.Mutex
	made     int
	open     map[cluster.NodeID]string // whose key the store is open to
	expelled []cluster.NodeID
	fails    bool
	before   func() // Admit and Expel look at the record; once
}

// record is what the store has of a node, not what some mirror has.
func (d *fakeDoor) record(ctx context.Context, id cluster.NodeID) (spec cluster.NodeSpec) {
	if f := d.before; f != nil {
		d.before = nil
		f()
	}
	if e, err := d.store.Get(ctx, store.NodeSpecKey(id)); err == nil {
		_ = json.Unmarshal(e.Value, &spec)
	}
	return spec
}

func (d *fakeDoor) NewToken() (secret, text string, servers []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made++
	secret = strings.Repeat("s", d.made)
	return secret, "flj_" + secret, []string{"10.0.0.1:7420"}, nil
}

func (*fakeDoor) Key(csr []byte) (string, error) {
	if len(csr) == 0 {
		return "", cluster.Invalidf("no request")
	}
	return string(csr), nil
}

func (d *fakeDoor) Admit(ctx context.Context, id cluster.NodeID, csr []byte) (v1.Membership, error) {
	spec := d.record(ctx, id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails {
		return v1.Membership{}, cluster.Transientf("no quorum")
	}
	if d.open[id] = spec.Key; spec.Key == "" {
		delete(d.open, id)
	}
	if spec.Key != string(csr) {
		return v1.Membership{}, &cluster.Error{Kind: cluster.KindForbidden, Msg: "it is not of the cluster any more"}
	}
	return v1.Membership{Node: id, Certificate: "cert of " + string(csr), Gateway: spec.Gateway}, nil
}

func (d *fakeDoor) Expel(ctx context.Context, id cluster.NodeID) (bool, error) {
	spec := d.record(ctx, id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails {
		return false, cluster.Transientf("no quorum")
	}
	if spec.Key != "" {
		return false, nil
	}
	_, open := d.open[id]
	delete(d.open, id)
	if open {
		d.expelled = append(d.expelled, id)
	}
	return open, nil
}

func (*fakeDoor) Identify(c *x509.Certificate) (api.Bearer, bool) {
	if c.Subject.CommonName == "root" {
		return api.Bearer{Server: true}, true
	}
	if len(c.Subject.Organization) != 1 {
		return api.Bearer{}, false
	}
	return api.Bearer{Node: cluster.NodeID(c.Subject.CommonName), Key: c.Subject.Organization[0]}, true
}

// Tunnel says hello and stands until it is ended.
func (*fakeDoor) Tunnel(_ context.Context, id cluster.NodeID, instance, _ string) (func(context.Context, net.Conn), error) {
	if instance == "copy" {
		return nil, &cluster.Error{Kind: cluster.KindConflict, Msg: "another machine is node " + string(id)}
	}
	return func(ctx context.Context, conn net.Conn) {
		_, _ = fmt.Fprintf(conn, "hello %s\n", id)
		<-ctx.Done()
		_ = conn.Close()
	}, nil
}

// join asks to join; the answer's certificate, or the problem's kind and text.
func (b *bench) join(node, key, secret string) string {
	b.t.Helper()
	return b.asNode(nil, http.MethodPost, "/v1/join", `{"token":"`+secret+`","node":"`+node+`","request":"`+key+`"}`)
}

// asNode sends a request with a verified certificate.
func (b *bench) asNode(cert *x509.Certificate, method, path, body string) string {
	b.t.Helper()
	return b.answerToNode(cert, method, path, body).Body.String()
}

func (b *bench) answerToNode(cert *x509.Certificate, method, path, body string) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if cert != nil {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	}
	w := httptest.NewRecorder()
	b.srv.ServeHTTP(w, r)
	return w
}

func nodeCert(id, key string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: id, Organization: []string{key}}}
}

func TestJoin(t *testing.T) {
	b := newBench(t)
	inv, err := b.Invite(t.Context(), v1.Invite{TTL: cluster.Duration(time.Hour), Uses: 2})
	if err != nil {
		t.Fatal(err)
	}
	if inv.Value != "flj_s" || inv.Uses != 2 || !cmp.Equal(inv.Servers, []string{"10.0.0.1:7420"}) || time.Until(inv.Expires) < 59*time.Minute {
		t.Errorf("invitation %+v", inv)
	}
	// A join token is no token of the API.
	other, err := client.New(client.Options{URL: b.url, Token: "s"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Nodes(t.Context()); err == nil {
		t.Error("a join token opens the API")
	}
	refused := func(says, node, key, secret string) {
		t.Helper()
		if got := b.join(node, key, secret); !strings.Contains(got, says) {
			t.Errorf("%s with %q: %s, want %q", node, secret, got, says)
		}
	}
	refused("not known here", "n2", "k2", "wrong")
	refused("not known here", "n2", "k2", token) // of the API
	refused("already", "n1", "k2", "s")          // the server's own
	refused("name", "n 2", "k2", "s")
	refused("no request", "n2", "", "s")
	b.door.fails = true
	refused("no quorum", "n2", "k2", "s")
	b.door.fails = false
	if list, err := b.Tokens(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("tokens %v: %v", list, err)
	}

	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
		t.Fatalf("joined with %s", got)
	}
	if spec := get[cluster.NodeSpec](b, store.NodeSpecKey("n2")); spec.Key != "k2" || spec.ID != "n2" {
		t.Errorf("kept %+v", spec)
	}
	refused("already", "n2", "other", "s") // somebody else under its name
	if got := b.join("n3", "k3", "s"); !strings.Contains(got, "cert of k3") {
		t.Fatalf("joined with %s", got)
	}
	refused("used up", "n4", "k4", "s")
	// The answer was lost: the same node asks again, although the token is used up.
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
		t.Errorf("a second try: %s", got)
	}
	if strings.Contains(b.log.String(), "flj_") {
		t.Error("a token is in the log")
	}
}

// A node becomes a gateway with a token and its own key, when it joins or later;
// its certificate alone does not make it one.
func TestGatewaysJoin(t *testing.T) {
	b := newBench(t)
	if _, err := b.Invite(t.Context(), v1.Invite{Uses: 3}); err != nil {
		t.Fatal(err)
	}
	ask := func(node, key string, gateway bool) string {
		return b.asNode(nil, http.MethodPost, "/v1/join", fmt.Sprintf(`{"token":"s","node":%q,"request":%q,"gateway":%t}`, node, key, gateway))
	}
	isGateway := func(id cluster.NodeID) bool { return get[cluster.NodeSpec](b, store.NodeSpecKey(id)).Gateway }
	if got := ask("n2", "k2", true); !strings.Contains(got, `"gateway":true`) || !isGateway("n2") {
		t.Errorf("joined as a gateway: %s", got)
	}
	if got := ask("n3", "k3", false); !strings.Contains(got, "cert of k3") || isGateway("n3") {
		t.Errorf("joined: %s", got)
	}
	if got := b.asNode(nodeCert("n3", "k3"), http.MethodPost, "/v1/node/renew", `{"request":"k3"}`); strings.Contains(got, `"gateway":true`) || isGateway("n3") {
		t.Errorf("renewed as a gateway: %s", got)
	}
	if got := ask("n3", "k2", true); !strings.Contains(got, "already") || isGateway("n3") {
		t.Errorf("with another's key: %s", got)
	}
	spec := get[cluster.NodeSpec](b, store.NodeSpecKey("n3"))
	spec.Labels = map[string]string{"disk": "ssd"}
	b.put(store.NodeSpecKey("n3"), spec)
	if got := ask("n3", "k3", true); !strings.Contains(got, `"gateway":true`) || !isGateway("n3") {
		t.Errorf("it becomes a gateway: %s", got)
	}
	if spec := get[cluster.NodeSpec](b, store.NodeSpecKey("n3")); spec.Labels["disk"] != "ssd" {
		t.Errorf("it lost its labels: %+v", spec)
	}
	// Three uses are used up; asking again costs none.
	if got := ask("n3", "k3", true); !strings.Contains(got, "cert of k3") {
		t.Errorf("again: %s", got)
	}
	if got := ask("n4", "k4", false); !strings.Contains(got, "used up") {
		t.Errorf("a fourth: %s", got)
	}
}

func TestJoinTokensEnd(t *testing.T) {
	b := newBench(t)
	if _, err := b.Invite(t.Context(), v1.Invite{}); err != nil {
		t.Fatal(err)
	}
	list, err := b.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range list {
		if !tok.Join {
			continue
		}
		if tok.Uses != 1 {
			t.Errorf("uses %d", tok.Uses)
		}
		if err := b.RemoveToken(t.Context(), tok.Name); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "not known here") {
		t.Errorf("with a removed token: %s", got)
	}
	for _, ttl := range []time.Duration{time.Second, 1000 * time.Hour} {
		if _, err := b.Invite(t.Context(), v1.Invite{TTL: cluster.Duration(ttl)}); err == nil {
			t.Errorf("a token for %s", ttl)
		}
	}
	now := time.Now()
	for _, tok := range []cluster.Token{{Expires: now.Add(time.Hour), Uses: 1}, {Join: true, Uses: 1, Expires: now}, {Join: true, Expires: now.Add(time.Hour)}} {
		if tok.Joins(now) {
			t.Errorf("%+v lets nodes join", tok)
		}
	}
}

// What is a node's is refused to people, and the other way round.
func TestNodesAskForThemselves(t *testing.T) {
	b := newBench(t)
	b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k2"})
	b.put(store.PlacementKey("n2", "t"), cluster.NodePlacement{Task: "t", Node: "n2", ServiceID: webID, Spec: cluster.TaskSpec{Image: "registry.example.com/a/b:1"}})
	n2 := nodeCert("n2", "k2")
	for name, c := range map[string]*x509.Certificate{
		"none": nil, "another's key": nodeCert("n2", "k1"), "unknown": nodeCert("n9", "k2"), "no node": {Subject: pkix.Name{CommonName: "n2"}},
	} {
		for _, path := range []string{"/v1/node/login?registry=registry.example.com", "/v1/node/tunnel"} {
			if got := b.asNode(c, http.MethodGet, path, ""); !strings.Contains(got, "certificate of a node") {
				t.Errorf("%s with %s: %s", path, name, got)
			}
		}
	}
	if got := b.asNode(n2, http.MethodGet, "/v1/nodes", ""); !strings.Contains(got, "token is needed") {
		t.Errorf("a node lists nodes: %s", got)
	}
	if got := b.asNode(n2, http.MethodGet, "/v1/node/login?registry=registry.example.com", ""); !strings.Contains(got, "pw of registry.example.com") {
		t.Errorf("login: %s", got)
	}
	if got := b.asNode(n2, http.MethodGet, "/v1/node/login?registry=other.example.com", ""); !strings.Contains(got, "no task of node n2") {
		t.Errorf("a login that it does not need: %s", got)
	}
	if got := b.asNode(n2, http.MethodPost, "/v1/node/renew", `{"request":"k2"}`); !strings.Contains(got, "cert of k2") {
		t.Errorf("renew: %s", got)
	}
	if got := b.asNode(n2, http.MethodPost, "/v1/node/renew", `{"request":"k3"}`); !strings.Contains(got, "not this node's key") {
		t.Errorf("renew with another key: %s", got)
	}
}

// A node sees a task that is placed on it before a server's mirror may, and asks for what
// the task needs at once: here the mirror never sees it.
func TestANodeAsksBeforeTheMirrorFollows(t *testing.T) {
	b := newBench(t)
	b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k2"})
	ahead := store.NewMemory()
	op, err := store.PutJSON(store.PlacementKey("n2", "t"), cluster.NodePlacement{Task: "t", Node: "n2", ServiceID: webID, Spec: cluster.TaskSpec{Image: "registry.example.com/a/b:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ahead.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
	b.hook.Store = ahead
	for path, want := range map[string]string{
		"/v1/node/login?registry=registry.example.com":  "pw of registry.example.com",
		"/v1/node/image?ref=registry.example.com/a/b:1": "no other node has registry.example.com/a/b:1",
		"/v1/node/image?ref=registry.example.com/a/b:2": "no task of node n2",
	} {
		if got := b.asNode(nodeCert("n2", "k2"), http.MethodGet, path, ""); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	var asked cluster.ImageAsk
	b.sends = func(ask cluster.ImageAsk) cluster.ImageSent {
		asked = ask
		return cluster.ImageSent{ReadCloser: io.NopCloser(strings.NewReader("an image")), From: "n3", Content: "c"}
	}
	w := b.answerToNode(nodeCert("n2", "k2"), http.MethodGet, "/v1/node/image?ref=registry.example.com/a/b:1&not=n4&not=n5", "")
	if w.Body.String() != "an image" || w.Header().Get(v1.HeaderImageFrom) != "n3" || w.Header().Get(v1.HeaderImageContent) != "c" {
		t.Errorf("sent %q, %v", w.Body, w.Header())
	}
	if want := (cluster.ImageAsk{Ref: "registry.example.com/a/b:1", Not: []cluster.NodeID{"n4", "n5"}, Apps: []cluster.AppName{webID.App}}); !cmp.Equal(asked, want) {
		t.Errorf("asked for %+v, not %+v", asked, want)
	}
}

// A copy of a node has no tunnel. A node's tunnel ends once the node is removed, though another server did that: here
// it only goes from the store.
func TestTheTunnelOfARemovedNodeEnds(t *testing.T) {
	b := newBench(t)
	b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k2"})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{nodeCert("n2", "k2")}}}
		b.srv.ServeHTTP(w, r)
	}))
	defer srv.Close()
	for instance, want := range map[string]int{"copy": http.StatusConflict, "original": http.StatusUpgradeRequired} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/v1/node/tunnel", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(v1.HeaderInstance, instance)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("a machine that is the %s: %s", instance, resp.Status)
		}
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "POST /v1/node/tunnel HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", v1.ProtocolTunnel); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for said := ""; said != "hello n2\n"; {
		if said, err = in.ReadString('\n'); err != nil {
			t.Fatalf("no tunnel: %v", err)
		}
	}
	b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k2", Gateway: true})
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := in.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the tunnel of a node that is there ended: %v", err)
	}
	if _, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.NodeSpecKey("n2"), Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the tunnel of a removed node: %v, want its end", err)
	}
}

func TestRemoveNode(t *testing.T) {
	b := newBench(t)
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", Roles: []string{"server", "agent"}})
	b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k2"})
	b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Roles: []string{"agent"}})
	b.put(store.AliveKey("n2"), true)
	b.put(store.AgentAckKey("n2"), cluster.AgentAck{Node: "n2"})
	b.put(store.StatusKey("n2", "t"), cluster.Status{Task: "t", Node: "n2"})
	b.put(store.StatusKey("n20", "t"), cluster.Status{Task: "t", Node: "n20"})
	b.door.open["n2"] = "k2"
	for id, says := range map[cluster.NodeID]string{"n9": "no node", "n1": "is a server", "n2": "is alive"} {
		if err := b.RemoveNode(t.Context(), id, v1.NodeRemoveOptions{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("rm %s: %v", id, err)
		}
	}
	if err := b.RemoveNode(t.Context(), "n1", v1.NodeRemoveOptions{Force: true}); err == nil {
		t.Error("a server is removed by force")
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(b.door.expelled, []cluster.NodeID{"n2"}) {
		t.Errorf("expelled %v", b.door.expelled)
	}
	for _, k := range []string{store.NodeSpecKey("n2"), store.NodeInfoKey("n2"), store.AliveKey("n2"), store.AgentAckKey("n2"), store.StatusKey("n2", "t")} {
		if _, err := b.store.Get(t.Context(), k); cluster.KindOf(err) != cluster.KindNotFound {
			t.Errorf("%s is still there: %v", k, err)
		}
	}
	if _, err := b.store.Get(t.Context(), store.StatusKey("n20", "t")); err != nil {
		t.Error(err)
	}
	if _, err := b.Node(t.Context(), "n2"); !errors.As(err, new(*client.Error)) {
		t.Errorf("got %v", err)
	}
}

// A node that is removed while its certificate is renewed, or while it asks to join
// again, is refused: the mirror still has it, the store has not.
func TestARemovedNodeIsNotLetInAgain(t *testing.T) {
	for what, ask := range map[string]func(*bench) string{
		"renew": func(b *bench) string {
			return b.asNode(nodeCert("n2", "k2"), http.MethodPost, "/v1/node/renew", `{"request":"k2"}`)
		},
		"join again": func(b *bench) string { return b.join("n2", "k2", "s") },
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			if _, err := b.Invite(t.Context(), v1.Invite{TTL: cluster.Duration(time.Hour), Uses: 2}); err != nil {
				t.Fatal(err)
			}
			if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
				t.Fatal(got)
			}
			b.door.before = func() {
				if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
			if got := ask(b); !strings.Contains(got, "not of the cluster any more") || strings.Contains(got, "cert of") {
				t.Errorf("it is answered %s", got)
			}
			if len(b.door.open) > 0 {
				t.Errorf("the store is open to %v", b.door.open)
			}
		})
	}
}

// A removal that is not finished can be finished: the store is closed, and what the node
// said until then is forgotten, also where nothing is known of the node any more.
func TestARemovalIsFinished(t *testing.T) {
	b := newBench(t)
	if _, err := b.Invite(t.Context(), v1.Invite{TTL: cluster.Duration(time.Hour), Uses: 3}); err != nil {
		t.Fatal(err)
	}
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
		t.Fatal(got)
	}
	b.door.fails = true
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err == nil || !strings.Contains(err.Error(), "`fairlead node rm n2` again") {
		t.Errorf("the store cannot be closed: %v", err)
	}
	b.door.fails = false
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err != nil || len(b.door.open) > 0 {
		t.Errorf("again: %v; open to %v", err, b.door.open)
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err == nil || !strings.Contains(err.Error(), "no node") {
		t.Errorf("once more: %v", err)
	}

	// It speaks until the store is closed to it, and calls itself a server.
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
		t.Fatal(got)
	}
	b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Roles: []string{"server", "agent"}})
	b.put(store.AliveKey("n2"), true)
	b.door.before = func() {
		b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2"})
		b.put(store.AliveKey("n2"), true)
		b.put(store.StatusKey("n2", "t"), cluster.Status{Task: "t", Node: "n2"})
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{store.NodeInfoKey("n2"), store.NodeSpecKey("n2"), store.AliveKey("n2"), store.StatusPrefix("n2")} {
		if left := b.keys(prefix); len(left) > 0 {
			t.Errorf("left of it: %v", left)
		}
	}
	// Nor does it count should it speak all the same.
	b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2"})
	b.put(store.AliveKey("n2"), true)
	if list, err := b.Nodes(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("nodes %+v, %v", list, err)
	}
	if _, err := b.ChangeNode(t.Context(), "n2", v1.NodeChange{Availability: cluster.Active}); err == nil {
		t.Error("one that was removed is given a record")
	}

	// A machine that joins under the name counts, and begins anew.
	if got := b.join("n2", "k9", "s"); !strings.Contains(got, "cert of k9") {
		t.Fatal(got)
	}
	if left := b.keys(store.PrefixNodes + "n2/"); !cmp.Equal(left, []string{store.NodeSpecKey("n2")}) {
		t.Errorf("it begins with %v", left)
	}

	// A ghost of a node that was removed before is removed too.
	b.put(store.NodeInfoKey("n3"), cluster.NodeInfo{ID: "n3", Roles: []string{"server"}})
	b.put(store.AliveKey("n3"), true)
	b.door.open["n3"] = "k3"
	if err := b.RemoveNode(t.Context(), "n3", v1.NodeRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, open := b.door.open["n3"]; open || len(b.keys(store.PrefixNodes+"n3/")) > 0 {
		t.Errorf("a ghost: open %v, left %v", open, b.keys(store.PrefixNodes+"n3/"))
	}
}

// A machine that joins under the name of a node whose removal is under way keeps what it
// has, and begins with nothing that the other one said.
func TestANameIsTakenAgain(t *testing.T) {
	b := newBench(t)
	if _, err := b.Invite(t.Context(), v1.Invite{TTL: cluster.Duration(time.Hour), Uses: 2}); err != nil {
		t.Fatal(err)
	}
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
		t.Fatal(got)
	}
	b.put(store.StatusKey("n2", "t"), cluster.Status{Task: "t", Node: "n2"})
	b.door.before = func() { // the record is gone, the store not closed yet
		b.put(store.StatusKey("n2", "t"), cluster.Status{Task: "t", Node: "n2"})
		if got := b.join("n2", "k9", "s"); !strings.Contains(got, "cert of k9") {
			t.Error(got)
		}
		if left := b.keys(store.StatusPrefix("n2")); len(left) > 0 {
			t.Errorf("it begins with %v", left)
		}
		b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2"})
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if b.door.open["n2"] != "k9" || get[cluster.NodeSpec](b, store.NodeSpecKey("n2")).Key != "k9" || len(b.keys(store.NodeInfoKey("n2"))) == 0 {
		t.Errorf("of the next machine is left %v, and the store is open to %v", b.keys(store.PrefixNodes+"n2/"), b.door.open)
	}
}

// The volumes of a node are given up when somebody says so, also after it was
// removed; a machine that takes its name has volumes of its own.
func TestVolumesOfARemovedNodeAreGivenUp(t *testing.T) {
	b := newBench(t)
	mounts := []cluster.Mount{{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"}}
	b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2"})
	b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Roles: []string{"agent"}})
	b.put(store.TaskKey("shop", "t"), cluster.Task{
		ID: "t", ServiceID: cluster.ServiceID{App: "shop", Name: "db"}, Spec: cluster.TaskSpec{Mounts: mounts}, Outcome: &cluster.Outcome{Node: "n2"},
	})
	lost := func() bool {
		_, err := b.store.Get(t.Context(), store.NodeLostKey("n2"))
		return err == nil
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err != nil || lost() {
		t.Fatalf("removed: %v; its volumes are given up: %v", err, lost())
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{}); err == nil {
		t.Error("removed twice")
	}
	if err := b.RemoveNode(t.Context(), "n9", v1.NodeRemoveOptions{LoseVolumes: true}); err == nil {
		t.Error("a node that never was has volumes")
	}
	if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{LoseVolumes: true}); err != nil || !lost() {
		t.Errorf("given up later: %v, %v", err, lost())
	}
	if _, err := b.Invite(t.Context(), v1.Invite{TTL: cluster.Duration(time.Hour), Uses: 1}); err != nil {
		t.Fatal(err)
	}
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "cert of k2") {
		t.Fatal(got)
	}
	if lost() {
		t.Error("the volumes of the next machine of that name are given up")
	}
}

// A node cannot speak for another's task: what is shown is what the node says on
// which the task was placed.
func TestANodeCannotSpeakForAnothersTask(t *testing.T) {
	b := newBench(t)
	id := cluster.ServiceID{App: "shop", Name: "web"}
	task := cluster.TaskID("shop_web.1.x")
	b.put(store.TaskKey("shop", task), cluster.Task{ID: task, ServiceID: id, Slot: 1})
	b.put(store.PlacementKey("n1", task), cluster.NodePlacement{Task: task, Node: "n1", ServiceID: id, Slot: 1})
	b.put(store.StatusKey("n1", task), cluster.Status{Task: task, Node: "n1", ServiceID: id, Slot: 1, State: cluster.StateRunning, Ready: true})
	for _, name := range []cluster.NodeID{"n2", "n1"} { // in its own name, and in the other's
		b.put(store.StatusKey("n2", task), cluster.Status{Task: task, Node: name, ServiceID: id, Slot: 1, State: cluster.StateFailed, Reason: "forged"})
		list, err := b.Tasks(t.Context(), "shop", true)
		if err != nil || len(list) != 1 || list[0].Node != "n1" || !list[0].Ready || list[0].Reason == "forged" {
			t.Errorf("as %s: %+v, %v", name, list, err)
		}
	}
}
