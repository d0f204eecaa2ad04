package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/need"
)

// closed is a firewall as docs/clusters.md takes it to be before its own rules.
const closed = `table inet filter {
	chain input { type filter hook input priority filter; policy drop; ct state established,related accept; iif lo accept; }
	chain forward { type filter hook forward priority filter; policy drop; ct state established,related accept; }
}
`

// ruleFor are the places of docs/clusters.md that firewall rules are for.
type ruleFor string

const (
	servers  ruleFor = "on each server:"
	machines ruleFor = "on each machine, for containers:"
	outward  ruleFor = "and where containers call what is outside:"
	gateways ruleFor = "and on each gateway,"
)

// documentedRules are the rules of docs/clusters.md as they stand there, with the lab's
// addresses.
func documentedRules(t *testing.T) map[ruleFor][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(need.Root(t), "docs", "clusters.md"))
	if err != nil {
		t.Fatal(err)
	}
	rules, at := map[ruleFor][]string{}, ruleFor("")
	for line := range strings.Lines(string(text)) {
		for _, f := range []ruleFor{servers, machines, outward, gateways} {
			if strings.Contains(line, string(f)) {
				at = f
			}
		}
		if rule, ok := strings.CutPrefix(line, "    nft add rule "); ok {
			rules[at] = append(rules[at], "add rule "+strings.ReplaceAll(rule, "10.0.0.", "10.99.0."))
		}
	}
	if len(rules) != 4 || len(rules[""]) > 0 {
		t.Fatalf("the rules of the document are %q", rules)
	}
	return rules
}

// With a firewall that drops everything, and the rules of docs/clusters.md alone: a
// server and a node join, an app is spread over the nodes and reached through each
// gateway, by name and by commands; and what no rule opens is closed.
func TestDocumentedFirewall(t *testing.T) {
	onEngines(t, []string{"--nodes", "4", "--servers", "3", "--gateways", "2"}, func(b *bed) {
		b.aliveSoon("n1 n2 n3 n4")
		b.voters("n1 n2 n3")
		rules := documentedRules(b.t)
		for i, n := range []string{"n4", "n3", "n2", "n1"} {
			text := closed + strings.Join(rules[machines], "")
			if n != "n4" {
				text += strings.Join(rules[servers], "")
			}
			if n == "n1" || n == "n2" {
				text += strings.Join(rules[gateways], "")
			}
			b.do("exec", n, "--", "nft", "-f", b.file(fmt.Sprintf("rules%d", i), text))
		}
		for _, n := range []string{"n4", "n3", "n2", "n1"} { // no connection of before is left
			b.do("kill", n+"/fairlead")
		}
		for _, n := range []string{"n1", "n2", "n3", "n4"} {
			b.do("start", n+"/fairlead")
		}
		b.do("status", "--wait", "2m")
		b.voters("n1 n2 n3")
		b.aliveSoon("n1 n2 n3 n4")
		b.part("join", joinThroughFirewall)
		b.part("serve", serveThroughFirewall)
		b.part("closed", shutByFirewall)
		b.part("outward", func(b *bed) { outThroughFirewall(b, rules[outward]) })
	})
}

// A server and a node are removed and join anew.
func joinThroughFirewall(b *bed) {
	anew := func(node string, leave func(), invitation string) {
		b.t.Helper()
		args := b.unit(node)
		b.do("kill", node+"/fairlead")
		leave()
		if err := os.RemoveAll(b.disk(node, "fairlead")); err != nil {
			b.t.Fatal(err)
		}
		if !slices.Contains(args, "--join") {
			args = append(args, "--join", b.address("n1")+":7420")
		}
		log, ended := b.byHand(node, invitation+"\n", args...)
		b.eventually(2*time.Minute, node+" has joined", func() error {
			if got := b.alive(); got != "n1 n2 n3 n4" {
				return fmt.Errorf("alive are %s; it says\n%s", got, b.read(log))
			}
			return nil
		})
		b.voters("n1 n2 n3")
		b.do("exec", node, "--", "pkill", "-TERM", "-x", "-f", strings.Join(args, " "))
		if err := <-ended; err != nil {
			b.t.Errorf("what joined ends with %v:\n%s", err, b.read(log))
		}
		b.do("start", node+"/fairlead")
		b.aliveSoon("n1 n2 n3 n4")
	}
	anew("n4", func() {
		b.aliveSoon("n1 n2 n3")
		b.cluster("node", "rm", "n4")
	}, b.invited().text)
	asServer := decode[struct{ Value string }](b, b.fairlead(b.t.Context(), "server", "invite", "-o", "json")).Value
	anew("n3", func() {
		b.aliveSoon("n1 n2 n4")
		b.cluster("server", "rm", "n3")
		b.cluster("node", "rm", "n3", "--force")
	}, asServer)
	b.voters("n1 n2 n3")
	b.do("status", "--wait", "1m")
}

// What is deployed runs on every node, and reaches and is reached.
func serveThroughFirewall(b *bed) {
	b.deployVersion("1", 4, `  far:
    image: demo-web
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 3, start_period: 20s}
    deploy: {placement: {constraints: [node.hostname == n4]}}
    x-fairlead: {routes: [{host: far.example.com, port: 8080}]}
  near:
    image: demo-web
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 3, start_period: 20s}
    deploy: {placement: {constraints: [node.hostname == n1]}}
    ports: ["7000:8080"]
    x-fairlead: {routes: [{host: near.example.com, port: 8080}]}
`)
	tasks := b.readySoon("demo", 6)
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		if len(on(tasks, n)) == 0 {
			b.t.Errorf("%s has no task: %+v", n, tasks)
		}
	}
	for _, g := range b.gates() {
		for _, host := range []string{"demo", "far", "near"} {
			b.eventually(time.Minute, host+" is served at "+g.addr, func() error { return b.asks("http://"+g.addr, host+".example.com") })
		}
	}
	b.served(4)
	for _, ask := range [][2]string{{"far", "near"}, {"near", "far"}} {
		if got, err := b.ask(ask[0], "/lookup", "name", ask[1]); err != nil || !isAddress(got) {
			b.t.Errorf("to %s the name %s is %q, %v", ask[0], ask[1], got, err)
		}
		if _, err := b.ask(ask[0], "/fetch", "url", "http://"+ask[1]+":8080/", "wait", "10s"); err != nil {
			b.t.Errorf("%s does not reach %s: %v", ask[0], ask[1], err)
		}
	}
	there := on(tasks, "n4")
	b.takeCommands(there)
	commands(b, there[0].Address)
	// From outside the nodes' engines, at a gateway's own address.
	for _, to := range []string{"n1:80", "n1:443", "n2:80", "n1:7000", "n2:7000", "n1:7420", "n1:7421"} {
		if err := b.knock("n4", to); err != nil {
			b.t.Errorf("n4 does not reach %s: %v", to, err)
		}
	}
	for _, to := range []string{"n1:7422", "n2:7422"} {
		if err := b.knock("n3", to); err != nil {
			b.t.Errorf("n3 does not reach %s: %v", to, err)
		}
	}
}

// knock connects from a node to another one's port.
func (b *bed) knock(from, to string) error {
	b.t.Helper()
	node, port, _ := strings.Cut(to, ":")
	addr := net.JoinHostPort(b.address(node), port)
	return b.inNetOf(from, func() error {
		c, err := net.DialTimeout("tcp", addr, 3*time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// What no rule opens is closed: it is silent, where it would answer or refuse.
func shutByFirewall(b *bed) {
	private := b.privatePort("n1")
	for from, all := range map[string][]string{"n4": {"n1:7422", "n2:7422", "n1:9", "n2:22"}, "n1": {"n4:9", "n4:7420"}} {
		for _, to := range all {
			switch err := b.knock(from, to); {
			case err == nil:
				b.t.Errorf("%s reaches %s", from, to)
			case errors.Is(err, syscall.ECONNREFUSED):
				b.t.Errorf("%s is refused by %s, and not by the firewall", from, to)
			}
		}
	}
	if err := b.knock("n4", "n1:"+private); err == nil { // here it is Fairlead's own rules that refuse it
		b.t.Errorf("n4 reaches port %s of n1", private)
	}
	n1 := b.address("n1")
	for from, ports := range map[string][]string{
		"near": {"7420", "7421", "7422", private},       // a container on n1 itself
		"far":  {"80", "7420", "7421", "7422", private}, // and on n4, for which n1 is outside
	} {
		for _, port := range ports {
			if _, err := b.ask(from, "/dial", "addr", n1+":"+port); err == nil {
				b.t.Errorf("a container of %s reaches port %s of n1", from, port)
			}
		}
	}
}

// privatePort is one of those on which a node's Traefik listens itself.
func (b *bed) privatePort(node string) string {
	b.t.Helper()
	for f := range strings.FieldsSeq(b.do("exec", node, "--", "ss", "-ltnH")) {
		if port, everywhere := strings.CutPrefix(f, "*:"); everywhere && len(port) == 5 && strings.HasPrefix(port, "21") {
			return port
		}
	}
	b.t.Fatalf("%s's Traefik has no port of its own", node)
	return ""
}

// With the rule for it, containers call what is outside.
func outThroughFirewall(b *bed, rules []string) {
	b.do("exec", "n4", "--", "nft", "-f", b.file("outward", strings.Join(rules, "")))
	if got, err := b.ask("far", "/dial", "addr", b.address("n1")+":80", "wait", "10s"); err != nil {
		b.t.Errorf("a container does not reach what is outside its node: %q, %v", got, err)
	}
}
