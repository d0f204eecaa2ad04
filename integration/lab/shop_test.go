package lab

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/lab"
)

// shop is the example as it is handed out, in a directory of the test's own.
func (b *bed) shop() string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "shop")
	if err := os.CopyFS(dir, os.DirFS("../../examples/shop")); err != nil {
		b.t.Fatal(err)
	}
	if out, err := output(exec.Command(filepath.Join(dir, "build.sh"))); err != nil {
		b.t.Fatalf("build the shop: %v\n%s", err, out)
	}
	return dir
}

// servedBy reads who made a page of the shop, and whom it asked.
var servedBy = regexp.MustCompile(`(\d+) orders so far(?s:.*)served by (\w+), asked (\w+)`)

// The example on three nodes with two gateways: its images, built on one node, reach
// all; it is spread, and reached through each gateway; its front asks the api wherever
// that is; nobody sees its password; and a service is scaled by its load whose tasks are
// not where that is decided.
func TestShopOnThreeNodes(t *testing.T) {
	for _, engine := range []string{lab.EngineDistro, lab.EngineCurrent} {
		t.Run(engine, func(t *testing.T) { shopOn(t, engine) })
	}
}

func shopOn(t *testing.T, engine string) {
	t.Helper()
	b := newBed(t)
	b.upOn(engine, "--nodes", "3", "--gateways", "2")
	b.aliveSoon("n1 n2 n3")
	dir := b.shop()
	file := filepath.Join(dir, "compose.yaml")
	b.cluster("deploy", "-f", file)
	gates := b.gates()
	if len(gates) != 2 {
		t.Fatalf("gateways %v", gates)
	}
	on := map[string]map[string]string{} // service, container, node
	nodes := map[string]bool{}
	for _, r := range b.rowsOf("shop", "") {
		if on[r.Service] == nil {
			on[r.Service] = map[string]string{}
		}
		on[r.Service][r.Container[:12]] = r.Node
		nodes[r.Node] = true
	}
	t.Logf("the shop: %v", on)
	if len(nodes) != 3 || len(on["web"]) != 2 || len(on["api"]) != 2 || len(on["worker"]) != 1 || len(on["store"]) != 1 {
		t.Errorf("not spread over three nodes: %v", on)
	}
	for service, tasks := range on {
		on := map[string]bool{}
		for _, node := range tasks {
			on[node] = true
		}
		if len(on) != len(tasks) {
			t.Errorf("%s has two tasks on a node: %v", service, tasks)
		}
	}
	for i, g := range gates {
		pages(b, fmt.Sprintf("through gateway %d", i+1), g, on["web"], on["api"])
	}
	noPassword(b)
	scaled(b, file, gates[0])
}

// pages fetches the shop's page until every front has asked every api, and there are
// orders: the worker's, through api and password.
func pages(b *bed, how string, g gate, web, api map[string]string) {
	b.t.Helper()
	seen := map[string]bool{}
	b.eventually(time.Minute, how+" each front has asked each api", func() error {
		body, err := g.page()
		if err != nil {
			return err
		}
		m := servedBy.FindStringSubmatch(body)
		switch {
		case m == nil:
			return fmt.Errorf("a page says %q", body)
		case m[1] == "0":
			return errors.New("no orders yet")
		case web[m[2]] == "" || api[m[3]] == "":
			return fmt.Errorf("no such tasks: %q", m[2:])
		}
		if seen[m[2]+" "+m[3]] = true; len(seen) < len(web)*len(api) {
			return fmt.Errorf("until now %v", seen)
		}
		return nil
	})
}

func (g gate) page() (string, error) {
	return g.b.fetch("http://"+g.addr, "shop.localhost")
}

// noPassword reads the store's password where it belongs, and looks for it in all that
// the engine of each node shows of its containers.
func noPassword(b *bed) {
	b.t.Helper()
	store := b.rowsOf("shop", "store")[0]
	pid := strings.TrimSpace(b.do("exec", store.Node, "--", "docker", "inspect", "-f", "{{.State.Pid}}", store.Container))
	password := b.do("exec", store.Node, "--", "cat", "/proc/"+pid+"/root/run/secrets/store-password")
	if len(password) != 32 {
		b.t.Fatalf("the password has %d characters, want 32", len(password))
	}
	looked := map[string]int{}
	for _, node := range []string{"n1", "n2", "n3"} {
		for id := range strings.FieldsSeq(b.do("exec", node, "--", "docker", "ps", "-aq")) {
			if strings.Contains(b.do("exec", node, "--", "docker", "inspect", id), password) {
				b.t.Errorf("docker inspect of %s on %s shows the password", id, node)
			}
			looked[node]++
		}
	}
	if len(looked) != 3 {
		b.t.Errorf("containers were looked at on %v", looked)
	}
}

// scaled loads the front, which is kept away from n1, where the only server decides: it
// becomes more tasks, and the load reaches them.
func scaled(b *bed, file string, g gate) {
	b.t.Helper()
	away := filepath.Join(filepath.Dir(file), "away.yaml")
	if err := os.WriteFile(away, []byte("services: {web: {deploy: {placement: {constraints: [node.hostname != n1]}}}}\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.cluster("deploy", "-f", file, "-f", away)
	if got := b.rowsOf("shop", "web"); len(got) != 2 || got[0].Node == "n1" || got[1].Node == "n1" {
		b.t.Fatalf("not away from n1: %v", got)
	}
	work := load.Request{Name: "work", Method: http.MethodGet, URL: "http://shop.localhost/work", KeepAlive: true}
	l := load.Start(b.t, g.client, []load.Request{work, work})
	var got []row
	b.eventually(2*time.Minute, "the front has more tasks", func() error {
		if got = b.rowsOf("shop", "web"); len(got) < 3 {
			return fmt.Errorf("%d", len(got))
		}
		return nil
	})
	seen := map[string]bool{}
	b.eventually(30*time.Second, "all of them serve", func() error {
		body, err := g.page()
		if err != nil {
			return err
		}
		if m := servedBy.FindStringSubmatch(body); m != nil {
			seen[m[2]] = true
		}
		if len(seen) < len(got) {
			return fmt.Errorf("of %v those in %v", got, slices.Collect(maps.Keys(seen)))
		}
		return nil
	})
	if out := b.cluster("explain", "shop/web"); !strings.Contains(out, "cpu") {
		b.t.Errorf("explain does not say that its load decided:\n%s", out)
	}
	for _, r := range b.rowsOf("shop", "web") {
		if r.Node == "n1" {
			b.t.Errorf("%s is on n1", r.Address)
		}
	}
	l.WantNone(b.t, "the front scaled by its load")
}
