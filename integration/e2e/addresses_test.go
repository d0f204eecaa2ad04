package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unadvertised has the node find its address by itself.
func unadvertised(args []string) (out []string) {
	for i := 0; i < len(args); i++ {
		if args[i] == "--advertise" {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

// moves gives an interface of a node's network another address instead of its own.
func (n *node) moves(link, from, to string, more ...string) {
	n.t.Helper()
	ns := filepath.Base(n.ns)
	for _, args := range append([]string{
		"-n " + ns + " addr del " + from + " dev " + link,
		"-n " + ns + " addr add " + to + " dev " + link,
	}, more...) {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			n.t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

// at waits until a node is alive and has an address. The server may begin anew meanwhile.
func (n *node) at(id, address string) {
	n.t.Helper()
	type row struct {
		ID, Address string
		Alive       bool
	}
	n.eventually(60*time.Second, id+" is at "+address, func() error {
		out, err := n.try("node", "ls", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var all []row
		if err := json.Unmarshal([]byte(out), &all); err != nil || !slices.Contains(all, row{id, address, true}) {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// TestAddressOfANodeChanges: a node that was told no address has the one by which it
// reaches its server. When that becomes another one its containers are reached there, and
// none of them is touched.
func TestAddressOfANodeChanges(t *testing.T) {
	l := newLAN(t)
	one := l.whole("n1")
	t.Cleanup(one.remove)
	one.up()
	two := l.joined(one, "n2", false)
	two.stop(syscall.SIGTERM)
	two.args = unadvertised(two.args)
	two.launch()
	one.at("n2", l.between+".2")

	one.do("deploy", "-f", one.write("compose.yaml", web(one.image(), "ours", "1", 4, "")))
	const url = "http://ours.example.com/"
	one.serves(url)
	if len(one.on("ours", "n2")) == 0 {
		t.Fatalf("n2 has none of %+v", one.on("ours", "n1"))
	}
	before := one.started("ours")

	two.moves("lan", l.between+".2/24", l.between+".77/24")
	one.at("n2", l.between+".77")
	one.serves(url)
	if after := one.started("ours"); len(after) != 4 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("started %v, and before %v", after, before)
	}
	there := one.on("ours", "n2")[0]
	one.eventually(30*time.Second, "n2's tunnel is of its new address", func() error {
		out, err := one.try("logs", addressOf(there.ID))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	commandsReach(t, one.node, there.ID)
}

// TestAddressOfAServerChanges: a server that was told no address has that of its default
// route. When that becomes another one it goes on with the new one, and what runs runs on.
func TestAddressOfAServerChanges(t *testing.T) {
	n := newApart(t)
	n.args = unadvertised(n.args)
	t.Cleanup(n.remove)
	n.up()
	n.at("n1", n.addr)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "ours", "1", 2, "")))
	const url = "http://ours.example.com/"
	n.serves(url)
	before := n.started("ours")

	net := strings.TrimSuffix(strings.Replace(n.addr, "10.251.", "10.250.", 1), ".2")
	route, err := exec.Command("ip", "-o", "route", "get", n.addr).Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(route))
	link := words[slices.Index(words, "dev")+1]
	n.moves("eth0", n.addr+"/30", net+".2/30",
		"addr add "+net+".1/30 dev "+link, "-n "+filepath.Base(n.ns)+" route add default via "+net+".1")
	n.addr = net + ".2"
	n.at("n1", n.addr)
	n.serves(url)
	if after := n.started("ours"); len(after) != 2 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("started %v, and before %v", after, before)
	}
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "ours", "2", 2, "")))
	n.serves(url)
}
