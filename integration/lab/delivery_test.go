package lab

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// TestDeliveryOnThreeNodes goes, by itself, from a commit over an image that is pushed to
// a commit that brings it and a rollout over three nodes; over a commit that is never
// healthy, and back; to a good one. Requests go on meanwhile, through two gateways and
// from inside each node: none fails.
func TestDeliveryOnThreeNodes(t *testing.T) {
	onEngines(t, []string{"--nodes", "3", "--gateways", "2"}, delivered)
}

// deliveredApp is the app that is delivered; its callers are of the first version for ever.
func deliveredApp(repository string) string {
	return fmt.Sprintf("# What the shop runs.\nname: demo\nservices:\n  web:\n    image: '%s:1.0.0'   # {\"fairlead\": \"web\"}\n", repository) +
		`    expose: ["8080"]
    # Half of them at a time.
    deploy: {replicas: 6, update_config: {parallelism: 3, monitor: 1s}}
    x-fairlead: {health: {port: 8080, http: /health, interval: 1s, timeout: 10s, start_period: 10s}, routes: [{host: demo.example.com, port: 8080}]}
` + strings.Replace(calling("caller", "web"), "demo-web", repository+":1.0.0", 1)
}

func delivered(b *bed) {
	b.aliveSoon("n1 n2 n3")
	f, shelf, news := follow.NewForge(b.t, b.t.TempDir()), follow.NewShelf(b.t), follow.NewInbox(b.t)
	b.reaches("n1", f.URL)
	b.reaches("n1", news.URL)
	for _, n := range []string{"n1", "n2", "n3"} {
		b.reaches(n, "http://"+shelf.Host)
	}
	b.told(shelf.Password, "image", "login", shelf.Host, "-u", shelf.User)
	b.told(f.Password, "secret", "set", "demo/git")
	b.told(hookKey, "secret", "set", "demo/hook")
	shelf.Put("1.0.0", false)
	source := deliveredApp(shelf.Repository())
	f.Publish(source, "the first version")
	b.cluster("delivery", "create", "demo", f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "5s",
		"--on-failure", "rollback", "--notify", news.URL, "--image", "web="+shelf.Repository()+" semver 1.x", "--image-write", "commit", "--webhook", "hook")
	gates := b.gates()
	if len(gates) != 2 {
		b.t.Fatalf("gateways %v", gates)
	}
	for _, g := range gates {
		g.serves()
	}
	b.deliveredAt(gates, "ready", f.Has("rev-parse", "main"), "1.0.0")
	inside := b.callers("caller", gates[0])
	inside.want("deployed", never)
	through := []*load.Load{gates[0].start(0), gates[1].start(1)}

	// An image that is pushed comes by itself, with a commit.
	shelf.Put("1.1.0", false)
	shelf.Put("2.0.0", false)
	b.eventually(time.Minute, "the pushed image is committed", func() error {
		if got := f.Has("log", "-1", "--format=%an %s", "main"); got != "Fairlead demo: web 1.1.0" {
			return errors.New(got)
		}
		return nil
	})
	second := f.Has("rev-parse", "main")
	b.deliveredAt(gates, "ready", second, "1.1.0")
	source = strings.Replace(source, "web:1.0.0'   #", "web:1.1.0'   #", 1)
	if got := f.Has("show", "main:compose.yaml"); got != strings.TrimSpace(source) {
		b.t.Errorf("the source says\n%s", got)
	}
	if trace := b.cluster("trace", "demo/web"); !strings.Contains(trace, second) || !strings.Contains(trace, "demo: web 1.1.0") {
		b.t.Errorf("trace says\n%s", trace)
	}
	inside.want("an image pushed", never)

	// So do the next ones, told of by whoever pushes them.
	last := "1.1.0"
	for i := range 5 {
		version := fmt.Sprintf("1.%d.0", i+2)
		began := time.Now()
		shelf.Put(version, false)
		asked := time.Now()
		b.webhook("n2", "demo")
		at := b.answers(gates, version)
		b.t.Logf("image pushed to served: %.3f s, webhook to served: %.3f s", at.Sub(began).Seconds(), at.Sub(asked).Seconds())
		second = f.Has("rev-parse", "main")
		b.deliveredAt(gates, "ready", second, version)
		last = version
	}
	source = strings.Replace(source, "web:1.1.0'   #", "web:"+last+"'   #", 1)
	inside.want("images pushed and told of", never)

	// A commit that is never healthy is gone back from, and stays away.
	if _, err := f.Git(b.t.Context(), "pull", "-q", "--ff-only"); err != nil {
		b.t.Fatal(err)
	}
	with := func(env string) string {
		return strings.Replace(source, "    expose:", "    environment: {"+env+"}\n    expose:", 1)
	}
	third := f.Publish(with("VERSION: bad, BROKEN: health"), "a bad one")
	b.deliveredAt(gates, "held", third, last)
	for _, words := range [][]string{{`"event":"failed"`, third, "Ann", "a bad one"}, {`"event":"rolled-back"`, second[:8]}} {
		b.eventually(time.Minute, "it was told", func() error { return news.Has(words...) })
	}
	inside.want("a bad commit", never)

	fourth := f.Publish(with("VERSION: good"), "a good one")
	b.deliveredAt(gates, "ready", fourth, "good")
	b.eventually(time.Minute, "it was told", func() error { return news.Has(`"event":"ready"`, fourth) })
	if got := f.Has("rev-list", "--count", "main"); got != "9" {
		b.t.Errorf("there are %s commits:\n%s", got, f.Has("log", "--oneline", "main"))
	}
	inside.want("a good commit", never)
	for i, l := range through {
		l.WantNone(b.t, fmt.Sprintf("while it was delivered, through gateway %d", i+1))
	}

	b.cluster("delivery", "rm", "demo")
	b.cluster("rm", "demo", "-y")
	for _, n := range []string{"n1", "n2", "n3"} {
		b.eventually(30*time.Second, "nothing of it is left on "+n, func() error {
			left := b.containers(n, "demo", true)
			left = append(left, strings.Fields(b.do("exec", n, "--", "docker", "network", "ls", "-q", "--filter", "label=io.fairlead.app=demo"))...)
			if len(left) > 0 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
	}
}

const hookKey = "whoever-pushes-signs-with-this"

// webhook sends one as GitHub does, from a node's network to the server's address.
func (b *bed) webhook(from, delivery string) {
	b.t.Helper()
	authority, err := os.ReadFile(b.disk("n1", "fairlead", "pki", "ca.crt"))
	if err != nil {
		b.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	cl := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext:     func(_ context.Context, _, addr string) (net.Conn, error) { return b.dial(from, addr) },
	}}
	defer cl.CloseIdleConnections()
	const body = `{"ref": "refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(hookKey))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "https://"+b.address("n1")+":7420/v1/hooks/"+delivery, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := cl.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b.t.Fatalf("the webhook is answered with %s", res.Status)
	}
}

// answers waits until each gateway has answered with a version, and returns when the last had.
func (b *bed) answers(gates []gate, version string) (at time.Time) {
	b.t.Helper()
	for _, g := range gates {
		for end := time.Now().Add(need.Patience * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			body, err := b.fetch("http://"+g.addr, "demo.example.com")
			if at = time.Now(); err == nil && strings.HasPrefix(body, version+" ") {
				break
			}
			if at.After(end) {
				b.t.Fatalf("%s does not answer with %s: %q, %v", g.addr, version, body, err)
			}
		}
	}
	return at
}

// told runs a command of the cluster that reads what it is told.
func (b *bed) told(stdin string, args ...string) {
	b.t.Helper()
	cmd := b.fairlead(b.t.Context(), args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := output(cmd); err != nil {
		b.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// deliveredAt waits until the delivery is in a phase at a commit, and six tasks, two on each
// node, are what answers through every gateway, all with one version.
func (b *bed) deliveredAt(gates []gate, phase, commit, version string) {
	b.t.Helper()
	then := time.Now()
	b.eventually(2*time.Minute, fmt.Sprintf("it is %s at %.8s, and %s serves", phase, commit, version), func() error {
		d := decode[struct {
			State struct {
				Phase, Message string
				Applied        struct{ Origin struct{ Revision string } }
			}
		}](b, b.fairlead(b.t.Context(), "delivery", "get", "demo", "-o", "json"))
		if s := d.State; s.Phase != phase || s.Applied.Origin.Revision != commit {
			return fmt.Errorf("it is %s at %s: %s", s.Phase, s.Applied.Origin.Revision, s.Message)
		}
		tasks, nodes := b.rows("web"), map[string]int{}
		for _, t := range tasks {
			nodes[t.Node]++
		}
		if nodes["n1"] != 2 || nodes["n2"] != 2 || nodes["n3"] != 2 {
			return fmt.Errorf("tasks are on %v", nodes)
		}
		for _, g := range gates {
			seen := map[string]bool{}
			for range 8 * len(tasks) {
				body, err := b.fetch("http://"+g.addr, "demo.example.com")
				if err != nil {
					return err
				}
				says, host, _ := strings.Cut(strings.TrimSpace(body), " ")
				if says != version {
					return fmt.Errorf("%s answers %q", g.addr, body)
				}
				seen[host] = true
			}
			for _, t := range tasks {
				if !seen[t.Container[:12]] {
					return fmt.Errorf("%s on %s does not answer at %s", t.Address, t.Node, g.addr)
				}
			}
			if len(seen) != len(tasks) {
				return fmt.Errorf("%d containers answer at %s", len(seen), g.addr)
			}
		}
		return nil
	})
	b.t.Logf("%s at %.8s, %s serves: after %s", phase, commit, version, time.Since(then).Round(time.Millisecond))
}
