package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/lab"
)

// Two apps on two nodes do not reach each other, in no way; each reaches itself across
// nodes, and what shares a declared network does too. Who is called sees the caller's
// own address.
func networks(b *bed) {
	two := func(name, here, there string) string {
		return "name: " + name + "\nservices:\n" +
			"  web:\n" + image + at(here) + route(name) +
			"  far:\n" + image + at(there) + route("far-"+name)
	}
	b.run(two("left", "n2", "n3"))
	b.run(two("right", "n3", "n2"))
	for _, app := range []string{"left", "right"} {
		b.readySoon(app, 2)
		for _, host := range []string{app, "far-" + app} {
			b.eventually(time.Minute, host+" is served", func() error { _, err := b.ask(host, "/"); return err })
		}
	}
	// far is of the same app as web, and of the same node as the other app's web.
	for app, other := range map[string]string{"left": "right", "right": "left"} {
		web := b.placesOf(app, "web")
		for _, place := range web {
			if _, err := b.ask("far-"+app, "/dial", "addr", place, "wait", "10s"); err != nil {
				b.t.Errorf("%s/far does not reach %s/web on another node as %s: %v", app, app, place, err)
			}
			for _, from := range []string{other, "far-" + other} {
				if _, err := b.ask(from, "/dial", "addr", place); err == nil {
					b.t.Errorf("%s reaches %s/web as %s", from, app, place)
				}
			}
		}
		for _, name := range []string{"web", "tasks.web", "web." + app, app + "_web"} {
			if got, err := b.ask("far-"+app, "/lookup", "name", name); err != nil || !isAddress(got) {
				b.t.Errorf("to %s/far %s is %q, %v", app, name, got, err)
			}
		}
		for _, name := range []string{"far." + app, "tasks.web." + app, "web." + app, app + "_web"} {
			if got, err := b.ask(other, "/lookup", "name", name); err != nil || isAddress(got) {
				b.t.Errorf("to %s %s is %q, %v", other, name, got, err)
			}
		}
		own := b.addressOf(app, "far")
		for _, place := range web {
			if got, err := b.ask("far-"+app, "/fetch", "url", "http://"+place+"/from", "wait", "10s"); err != nil || got != own {
				b.t.Errorf("called as %s by %s/far, which is %s, web sees %q: %v", place, app, own, got, err)
			}
		}
	}
	b.cluster("rm", "left", "-y")
	b.cluster("rm", "right", "-y")

	// The first declares a network, the other one uses it.
	b.run("name: gives\nservices:\n  web:\n" + image + at("n3") + "    networks: [common]\nnetworks: {common: {name: common}}\n")
	b.run("name: takes\nservices:\n  web:\n" + image + at("n2") + route("takes") +
		"    networks: [default, common]\n  other:\n" + image + at("n2") + route("other") + "networks: {common: {external: true, name: common}}\n")
	for _, host := range []string{"takes", "other"} {
		b.eventually(time.Minute, host+" is served", func() error { _, err := b.ask(host, "/"); return err })
	}
	for _, place := range append(b.placesOf("gives", "web"), "web.gives:8080") {
		if _, err := b.ask("takes", "/dial", "addr", place, "wait", "10s"); err != nil {
			b.t.Errorf("on the same network on another node it does not reach %s: %v", place, err)
		}
		if _, err := b.ask("other", "/dial", "addr", place); err == nil {
			b.t.Errorf("without that network it reaches %s", place)
		}
	}
	own := b.ps("takes")[1].Addresses["common"]
	if got, err := b.ask("takes", "/fetch", "url", "http://web.gives:8080/from", "wait", "10s"); err != nil || got != own || own == "" {
		b.t.Errorf("called by takes, which is %q there, gives sees %q: %v", own, got, err)
	}
	b.cluster("rm", "takes", "-y")
	b.cluster("rm", "gives", "-y")
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.TrimSpace(s))
	return err == nil
}

// addressOf is the address of the container of an app's service, on its own network.
func (b *bed) addressOf(app, service string) string {
	b.t.Helper()
	for _, t := range b.ps(app) {
		if strings.HasPrefix(t.Address, app+"/"+service+".") {
			for _, a := range t.Addresses {
				return a
			}
		}
	}
	b.t.Fatalf("%s/%s has no address: %+v", app, service, b.ps(app))
	return ""
}

// placesOf are the service's own address and its container's, with the port.
func (b *bed) placesOf(app, service string) []string {
	b.t.Helper()
	for _, s := range decode[[]struct{ Service, Address string }](b, b.fairlead(b.t.Context(), "service", "ls", app, "-o", "json")) {
		if s.Service == service && s.Address != "" {
			return []string{s.Address + ":8080", b.addressOf(app, service) + ":8080"}
		}
	}
	b.t.Fatalf("%s/%s has no service address", app, service)
	return nil
}

// nat lets nobody open a connection to a node, as behind NAT, but for containers of
// other nodes: their network is a plain one yet.
const nat = `table inet behind-nat {
	chain in { type filter hook input priority -300; iifname "eth0" ct state new drop; }
	chain through { type filter hook forward priority -300; iifname "eth0" ip saddr != 10.213.0.0/16 ct state new drop; }
}
`

// Nobody can open a connection to n3: what the cluster has to say to it goes through
// the tunnel that n3 opened. Its tasks grow under load and shrink again.
func behindNAT(b *bed) {
	knock := func() int {
		_, err := b.try("exec", "n1", "--", "curl", "-s", "--max-time", "2", "http://"+b.address("n3")+":9/")
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return e.ExitCode()
		}
		return 0
	}
	const refused, silence = 7, 28 // of curl
	if got := knock(); got != refused {
		b.t.Fatalf("before, curl ends with %d", got)
	}
	rules := b.file("nat", nat)
	b.do("exec", "n3", "--", "nft", "-f", rules)
	b.do("kill", "n3/fairlead") // no connection of before is left
	b.do("start", "n3/fairlead")
	b.do("status", "--wait", "1m")
	if got := knock(); got != silence {
		b.t.Fatalf("behind NAT, curl ends with %d", got)
	}
	// Of what a busy machine may leave it little is load enough, and a probe is none.
	b.run(`name: grow
services:
  web:
    image: demo-web
    deploy: {placement: {constraints: [node.hostname == n3]}, resources: {reservations: {cpus: "0.01"}}}
    x-fairlead:
      health: {port: 8080, http: /health}
      autoscale: {min: 1, max: 3, cpu: 50%, down_window: 5s}
`)
	one := b.readySoon("grow", 1)
	if one[0].Node != "n3" || b.leader() != "n1" {
		b.t.Fatalf("%s leads, and there are %+v", b.leader(), one)
	}
	b.takeCommands(one)
	commands(b, one[0].Address)
	pushes(b)

	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	burn := b.fairlead(ctx, "exec", one[0].Address, "--", "/app", "burn", "2m")
	if err := burn.Start(); err != nil {
		b.t.Fatal(err)
	}
	began := time.Now()
	b.readySoon("grow", 3)
	b.t.Logf("grown to 3 after %s", time.Since(began).Round(time.Second))
	b.do("exec", "n3", "--", "pkill", "-x", "-f", "/app burn 2m")
	_ = burn.Wait()
	began = time.Now()
	b.readySoon("grow", 1)
	b.t.Logf("shrunk to 1 after %s", time.Since(began).Round(time.Second))
	b.cluster("rm", "grow", "-y")
	b.do("exec", "n3", "--", "nft", "delete", "table", "inet", "behind-nat")
}

// commands tries what a tunnel carries to a task.
func commands(b *bed, address string) {
	b.t.Helper()
	if out := b.cluster("logs", address); !strings.Contains(out, "listening") {
		b.t.Errorf("logs: %s", out)
	}
	note := b.file("note", "from here")
	b.cluster("cp", note, address+":/note")
	back := b.file("back", "")
	b.cluster("cp", address+":/note", back)
	if got := b.read(back); got != "from here" {
		b.t.Errorf("copied there and back: %q", got)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	port := need.Port(b.t)
	forward := b.fairlead(ctx, "port-forward", address, fmt.Sprintf("%d:8080", port))
	if err := forward.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.eventually(20*time.Second, "the forwarded port answers", func() error {
		return b.asks(fmt.Sprintf("http://127.0.0.1:%d/", port), "any.example.com")
	})
	cancel()
	_ = forward.Wait()
}

// pushes sends an image to n3 that is made anew.
func pushes(b *bed) {
	b.t.Helper()
	host := "unix://" + lab.DirOf(b.root, b.name).DockerSocket("n1")
	build := exec.Command("docker", "-H", host, "build", "-q", "-t", "pushed:1", "-")
	build.Stdin = strings.NewReader("FROM demo-web\nLABEL pushed=" + b.name + "\nWORKDIR /" + b.name + "\n")
	if out, err := output(build); err != nil {
		b.t.Fatalf("build: %v: %s", err, out)
	}
	with := *b
	with.env = append([]string{"DOCKER_HOST=" + host}, b.env...)
	with.cluster("image", "push", "pushed:1", "--node", "n3")
	if out, err := b.try("exec", "n3", "--", "docker", "image", "inspect", "pushed:1"); err != nil {
		b.t.Errorf("n3 has not what was pushed: %v: %s", err, out)
	}
}
