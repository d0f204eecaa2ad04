package api_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// fakeSeats are servers whose keys are their name and recipient.
type fakeSeats struct {
	given   []string
	removed []cluster.NodeID
}

func (*fakeSeats) Addresses() []string { return []string{"10.0.0.1:7420", "10.0.0.2:7420"} }

func (*fakeSeats) List(context.Context) ([]v1.ServerSummary, error) {
	return []v1.ServerSummary{{Node: "n1", Standing: v1.StandingVoter, Answers: true}}, nil
}

func (f *fakeSeats) Keys(join v1.ServerJoin) (v1.ServerMembership, error) {
	if join.External {
		return v1.ServerMembership{}, cluster.Invalidf("the servers have another etcd")
	}
	f.given = append(f.given, string(join.Node)+" "+join.Recipient)
	return v1.ServerMembership{Node: join.Node, Sealed: []byte("keys for " + join.Recipient)}, nil
}

func (*fakeSeats) MayRemove(_ context.Context, id cluster.NodeID) error {
	if id == "n1" {
		return cluster.Invalidf("n1 is the only server")
	}
	return nil
}

func (f *fakeSeats) Remove(ctx context.Context, id cluster.NodeID) error {
	if err := f.MayRemove(ctx, id); err != nil {
		return err
	}
	f.removed = append(f.removed, id)
	return nil
}

// The cluster's keys are given for a token of a server alone, once, to a name that
// nobody has; the same machine may ask again.
func TestServersJoin(t *testing.T) {
	b := newBench(t)
	ask := func(node, recipient, secret string) string {
		return b.asNode(nil, http.MethodPost, "/v1/join-server", `{"token":"`+secret+`","node":"`+node+`","recipient":"`+recipient+`"}`)
	}
	refused := func(says, node, recipient, secret string) {
		t.Helper()
		before := len(b.seats.given)
		if got := ask(node, recipient, secret); !strings.Contains(got, says) || len(b.seats.given) != before {
			t.Errorf("%s with %q: %s, want %q; keys for %v", node, secret, got, says, b.seats.given)
		}
	}
	if _, err := b.Invite(t.Context(), v1.Invite{}); err != nil { // for a node: "s"
		t.Fatal(err)
	}
	inv, err := b.Invite(t.Context(), v1.Invite{Server: true}) // "ss"
	if err != nil || !strings.HasSuffix(inv.Line(), "--server") || !inv.Server {
		t.Fatalf("%+v, %v: %s", inv, err, inv.Line())
	}
	refused("not known here", "n2", "age1", "wrong")
	refused("not known here", "n2", "age1", token) // of the API
	refused("is for nodes", "n2", "age1", "s")
	refused("name", "n 2", "age1", "ss")
	refused("already", "n1", "age1", "ss")
	if got := b.join("n5", "k5", "ss"); !strings.Contains(got, "is for servers") {
		t.Errorf("a node joins with a server's token: %s", got)
	}
	if got := ask("n2", "age1", "ss"); !strings.Contains(got, `"sealed"`) {
		t.Fatalf("joined with %s", got)
	}
	if spec := get[cluster.ServerSpec](b, store.ServerSpecKey("n2")); spec.Key != "age1" || spec.By != inv.Name {
		t.Errorf("kept %+v", spec)
	}
	if got := ask("n2", "age1", "ss"); !strings.Contains(got, `"sealed"`) {
		t.Errorf("a second try: %s", got)
	}
	refused("used up", "n2", "age2", "ss")
	refused("used up", "n3", "age3", "ss")
	// A name is a machine's from when it was let in, and what frees it is said.
	if _, err := b.Invite(t.Context(), v1.Invite{Server: true, Uses: 2}); err != nil { // "sss"
		t.Fatal(err)
	}
	b.put(store.NodeSpecKey("n4"), cluster.NodeSpec{ID: "n4", Key: "k4"})
	for node, advice := range map[string]string{
		"n1": `remove that one with ` + "`fairlead node rm n1`" + `"`,
		"n2": `remove that one with ` + "`fairlead server rm n2`" + `"`,
		"n4": `remove that one with ` + "`fairlead node rm n4`" + `"`,
	} {
		refused(advice, node, "age2", "sss")
	}
	if got := b.join("n2", "k2", "s"); !strings.Contains(got, "`fairlead server rm n2`") {
		t.Errorf("a node under the name of a server that was let in: %s", got)
	}
	if err := b.RemoveServer(t.Context(), "n2", false); err != nil {
		t.Fatal(err)
	}
	if got := ask("n2", "age2", "sss"); !strings.Contains(got, `"sealed"`) {
		t.Errorf("once it is free: %s", got)
	}
	if strings.Contains(b.log.String(), "flj_") {
		t.Error("a token is in the log")
	}
}

// A machine whose own networks overlap with the cluster's ranges becomes neither node nor
// server, and costs no use of a token.
func TestAMachineAmongTheClustersAddressesDoesNotJoin(t *testing.T) {
	b := newBench(t)
	for _, i := range []v1.Invite{{}, {Server: true}} { // "s", "ss"
		if _, err := b.Invite(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	join := func(networks string) string {
		return b.asNode(nil, http.MethodPost, "/v1/join", `{"token":"s","node":"n2","request":"k2","networks":`+networks+`}`)
	}
	serve := func(networks string) string {
		return b.asNode(nil, http.MethodPost, "/v1/join-server", `{"token":"ss","node":"n3","recipient":"age1","networks":`+networks+`}`)
	}
	const beside = `{"prefix":"192.168.1.0/24","by":"on interface eth0"}`
	const within = `[` + beside + `,{"prefix":"10.213.0.0/20","by":"routed by 192.168.1.1 on eth0"}]`
	for _, got := range []string{join(within), serve(within)} {
		for _, says := range []string{`"status":422`, "10.213.0.0/20", "routed by 192.168.1.1 on eth0", "--pool"} {
			if !strings.Contains(got, says) {
				t.Errorf("%s: want %q", got, says)
			}
		}
	}
	if len(b.seats.given) > 0 || len(b.door.open) > 0 {
		t.Errorf("keys for %v, the store open to %v", b.seats.given, b.door.open)
	}
	if got := join(`[` + beside + `]`); !strings.Contains(got, "cert of k2") {
		t.Errorf("joined with %s", got)
	}
	if got := serve(`[` + beside + `]`); !strings.Contains(got, `"sealed"`) {
		t.Errorf("joined with %s", got)
	}
}

func TestServersListedAndRemoved(t *testing.T) {
	b := newBench(t)
	b.put(store.ServerSpecKey("n2"), cluster.ServerSpec{Node: "n2"})
	b.put(store.ServerInfoKey("n2"), cluster.ServerInfo{Node: "n2"})
	if list, err := b.Servers(t.Context()); err != nil || len(list) != 1 || !list[0].Answers {
		t.Errorf("%+v, %v", list, err)
	}
	var learned []string
	cl, err := client.New(client.Options{URL: b.url, Token: token, Learn: func(servers []string) { learned = servers }})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.Nodes(t.Context()); err != nil || len(learned) != 2 || learned[1] != "10.0.0.2:7420" {
		t.Errorf("a client learns of %v, %v", learned, err)
	}
	if err := b.RemoveServer(t.Context(), "n1", false); err == nil || !strings.Contains(err.Error(), "only server") {
		t.Errorf("n1: %v", err)
	}
	for range 2 { // again, when the answer was lost
		if err := b.RemoveServer(t.Context(), "n2", false); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{store.ServerSpecKey("n2"), store.ServerInfoKey("n2")} {
		if _, err := b.store.Get(t.Context(), k); cluster.KindOf(err) != cluster.KindNotFound {
			t.Errorf("%s: %v", k, err)
		}
	}
}

// A server that runs containers is not taken out by mistake: nobody would look after
// them. What keeps it from being taken out at all is said first; one that is away runs
// nothing that anybody looks after.
func TestAServerWithContainersIsNotRemoved(t *testing.T) {
	b := newBench(t)
	task := func(id cluster.TaskID, node cluster.NodeID, state cluster.TaskState, mounts ...cluster.Mount) {
		x := cluster.Task{ID: id, ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Slot: 1, Desire: cluster.DesireRun, Spec: cluster.TaskSpec{Mounts: mounts}}
		b.put(store.TaskKey("shop", id), x)
		b.put(store.PlacementKey(node, id), cluster.NodePlacement{Task: id, Node: node})
		b.put(store.StatusKey(node, id), cluster.Status{Task: id, Node: node, State: state})
	}
	for _, n := range []cluster.NodeID{"n1", "n2", "n3"} {
		b.put(store.NodeInfoKey(n), cluster.NodeInfo{ID: n, Roles: []string{"server", "agent"}})
		b.put(store.AliveKey(n), true)
		b.put(store.ServerInfoKey(n), cluster.ServerInfo{Node: n})
	}
	task("shop_web.1.a", "n1", cluster.StateRunning)
	task("shop_web.1.b", "n2", cluster.StateRunning)
	task("shop_web.1.c", "n3", cluster.StateComplete)
	if err := b.RemoveServer(t.Context(), "n1", false); err == nil || !strings.Contains(err.Error(), "only server") {
		t.Errorf("n1: %v", err)
	}
	err := b.RemoveServer(t.Context(), "n2", false)
	if err == nil || !strings.Contains(err.Error(), "shop/web.1") || !strings.Contains(err.Error(), "`fairlead node drain n2`") || strings.Contains(err.Error(), "volumes") || len(b.seats.removed) > 0 {
		t.Errorf("n2, which runs a task: %v; removed %v", err, b.seats.removed)
	}
	if err := b.RemoveServer(t.Context(), "n3", false); err != nil {
		t.Errorf("n3, whose task has ended: %v", err)
	}
	task("shop_web.1.d", "n2", cluster.StateRunning, cluster.Mount{Type: cluster.MountVolume, Source: "shop_data", Target: "/data"})
	if err := b.RemoveServer(t.Context(), "n2", false); err == nil || !strings.Contains(err.Error(), "volumes") {
		t.Errorf("n2, which has a volume: %v", err)
	}
	rev, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey("n2"), Delete: true}}})
	if err != nil {
		t.Fatal(err)
	}
	b.await(func() bool {
		st, err := b.Status(t.Context())
		return err == nil && st.StoreRev >= rev
	})
	if err := b.RemoveServer(t.Context(), "n2", false); err != nil {
		t.Errorf("n2, which is away: %v", err)
	}
	b.put(store.AliveKey("n2"), true)
	if err := b.RemoveServer(t.Context(), "n2", true); err != nil {
		t.Errorf("n2, by force: %v", err)
	}
}

// A server's certificate opens tunnels for the node that it names, and nothing else
// of what is nodes'; a node that names another is itself all the same.
func TestServersSpeakForTheirNode(t *testing.T) {
	b := newBench(t)
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}}
	for _, path := range []string{"/v1/node/login?registry=x", "/v1/node/image"} {
		if got := b.asNode(root, http.MethodGet, path, ""); !strings.Contains(got, "certificate of a node") {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := b.asNode(root, http.MethodPost, "/v1/node/tunnel", ""); !strings.Contains(got, "certificate of a node") {
		t.Errorf("a tunnel of nobody: %s", got)
	}
	if got := b.asNode(root, http.MethodGet, "/v1/nodes", ""); !strings.Contains(got, "token is needed") {
		t.Errorf("the API by certificate: %s", got)
	}
}
