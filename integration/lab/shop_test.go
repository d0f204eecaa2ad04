package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const shopFile = "../../examples/shop/compose.yaml"

// The example as README has it, on three nodes: its images reach the nodes, its services
// find each other between them, each gateway serves it, and it outlives a node.
func TestShopOnThreeNodes(t *testing.T) {
	if out, err := exec.Command("../../examples/shop/build.sh").CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	onEngines(t, []string{"--nodes", "3", "--gateways", "2"}, func(b *bed) {
		b.aliveSoon("n1 n2 n3")
		b.cluster("deploy", "-f", shopFile)
		var tasks []taskRow
		b.eventually(time.Minute, "each node has two of six tasks", func() error { // one may be replaced meanwhile
			tasks = b.readySoon("shop", 6)
			for _, n := range []string{"n1", "n2", "n3"} {
				if here := on(tasks, n); len(here) != 2 {
					return fmt.Errorf("%s has %d: %+v", n, len(here), tasks)
				}
			}
			return nil
		})
		// So some of what the gateways answer goes between nodes, whoever asks whom.
		apart(b, tasks, "web")
		apart(b, tasks, "api")
		gates := b.gates()
		if len(gates) != 2 {
			b.t.Fatalf("gateways %v", gates)
		}
		for _, g := range gates {
			b.sells(g)
		}
		if out := b.cluster("exposure"); !strings.Contains(out, "shop.localhost") || strings.Contains(out, "shop/api") || strings.Contains(out, "shop/store") {
			b.t.Errorf("exposure prints\n%s", out)
		}
		if out := b.cluster("deploy", "-f", shopFile); !strings.Contains(out, "nothing to change") {
			b.t.Errorf("a second deploy says %q", out)
		}

		// The store's volume is on one node; n1 has the server.
		lost := "n3"
		if slices.ContainsFunc(on(tasks, lost), func(x taskRow) bool { return strings.HasPrefix(x.Address, "shop/store.") }) {
			lost = "n2"
		}
		b.do("kill", lost)
		b.eventually(time.Minute, "the shop is elsewhere", func() error {
			if now := b.ps("shop"); len(on(now, lost)) > 0 || len(now) != 6 || slices.ContainsFunc(now, func(x taskRow) bool { return !x.Ready }) {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		b.sells(gates[0])
		b.do("start", lost)
		b.aliveSoon("n1 n2 n3")
		for _, g := range gates {
			b.sells(g)
		}
		b.cluster("rm", "shop", "-y")
		b.eventually(time.Minute, "nothing is served", func() error {
			for _, g := range gates {
				if b.asks("http://"+g.addr, "shop.localhost") == nil {
					return fmt.Errorf("%s serves it", g.addr)
				}
			}
			return nil
		})
	})
}

// apart looks that the two tasks of a service are on two nodes.
func apart(b *bed, tasks []taskRow, service string) {
	b.t.Helper()
	nodes := map[string]bool{}
	for _, x := range tasks {
		if strings.HasPrefix(x.Address, "shop/"+service+".") {
			nodes[x.Node] = true
		}
	}
	if len(nodes) != 2 {
		b.t.Errorf("%s is on %v", service, nodes)
	}
}

// sells waits until a gateway answers from each replica of web, which ask the replicas
// of api, and orders go on coming from the worker to the store.
func (b *bed) sells(g gate) {
	b.t.Helper()
	fetch := func() (orders int, by string, err error) {
		body, err := b.fetch("http://"+g.addr, "shop.localhost")
		if err != nil {
			return 0, "", err
		}
		_, count, ok := strings.Cut(body, "<h1>The shop</h1><p>")
		_, foot, ok2 := strings.Cut(body, "<footer>served by ")
		if _, err := fmt.Sscan(count, &orders); err != nil || !ok || !ok2 {
			return 0, "", fmt.Errorf("no count of orders in %s", body)
		}
		by, _, _ = strings.Cut(foot, "</footer>")
		return orders, by, nil
	}
	before := -1
	b.eventually(time.Minute, g.addr+" sells", func() error {
		tasks := map[string]bool{} // of the shop, by the names they have as hosts
		for _, x := range b.ps("shop") {
			tasks[fmt.Sprintf("%.12s", x.Container)] = true
		}
		webs := map[string]bool{}
		var last int
		for range 40 {
			orders, by, err := fetch()
			if err != nil {
				return err
			}
			if before < 0 {
				before = orders
			}
			last = orders
			web, api, _ := strings.Cut(by, ", asked ")
			if webs[web] = true; !tasks[web] || !tasks[api] {
				return fmt.Errorf("%q, and the tasks are %v", by, tasks)
			}
		}
		if len(webs) != 2 {
			return fmt.Errorf("answers of %v alone", webs)
		}
		if last <= before {
			return errors.New("no order came")
		}
		return nil
	})
}
