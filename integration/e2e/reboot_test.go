package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/mesh"
	"github.com/fairlead/fairlead/names"
)

// reboot leaves of a stopped node what a reboot leaves: containers that have
// ended, networks, and what is on disk.
func (n *node) reboot() {
	t := n.t
	t.Helper()
	n.stop(syscall.SIGTERM)
	b, err := os.ReadFile(filepath.Join(n.data, "pki", "cluster-id"))
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(string(b))
	if err := errors.Join(
		gateway.Shutdown(t.Context(), gateway.Config{
			Cluster: id, Node: "n1", DataDir: n.data, RunDir: n.run, Web: n.http, WebSecure: n.https, Internal: n.internal, Now: time.Now,
		}, hclog.NewNullLogger()),
		mesh.Cleanup(t.Context(), id),
		names.Shutdown(t.Context(), filepath.Join(n.run, "names"), hclog.NewNullLogger()),
	); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("docker", "ps", "-q", "--filter", "label="+cluster.LabelCluster+"="+id).Output()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("docker", append([]string{"stop", "-t", "0"}, strings.Fields(string(out))...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for syscall.Unmount(n.run, 0) == nil { // the agent's tmpfs too, where it is one of its own
	}
	if err := os.RemoveAll(n.run); err != nil {
		t.Fatal(err)
	}
}

// A node that is booted while the store is away serves what it served: routes,
// service addresses and names, each to its own service.
func TestRebootWithoutAStore(t *testing.T) {
	x := externalEtcd(t)
	n := start(t, x.flags()...)
	image, hash := n.image(), passwordHash(t, "secret")
	file := func(version string) string {
		return n.write("compose.yaml", fmt.Sprintf(`
name: boot
services:
  front:
    image: %[1]s
    environment: {VERSION: front%[3]s}
    healthcheck: %[2]s
    deploy: {replicas: 2}
    x-fairlead: {routes: [{host: front.example.com, port: 8080}]}
  back:
    image: %[1]s
    environment: {VERSION: back%[3]s}
    healthcheck: %[2]s
    deploy: {replicas: 2}
  guarded:`, image, healthcheck, version)+guarded(image, "guarded.example.com", "ann", hash))
	}
	n.do("deploy", "-f", file(""))
	works := func(version string) error {
		bad := []error{n.guards("guarded.example.com", "ann", "secret")}
		for range 6 { // each task
			for url, want := range map[string]string{
				"http://front.example.com/":                                  "front" + version + " ",
				"http://front.example.com/fetch?url=http://back:8080/":       "back" + version + " ",
				"http://front.example.com/fetch?url=http://tasks.back:8080/": "back" + version + " ",
			} {
				if body, err := n.answer(url); err != nil || !strings.HasPrefix(body, want) {
					bad = append(bad, fmt.Errorf("%s answers %q, %w", url, body, err))
				}
			}
		}
		return errors.Join(bad...)
	}
	n.eventually(15*time.Second, "it works", func() error { return works("") })
	n.eventually(10*time.Second, "what it serves is on disk", func() error {
		var eps struct{ Endpoints []cluster.Endpoints }
		b, err := os.ReadFile(filepath.Join(n.data, "endpoints.json"))
		if err == nil {
			err = json.Unmarshal(b, &eps)
		}
		if err != nil {
			return err
		}
		for _, e := range eps.Endpoints {
			if len(e.Tasks) == 0 {
				return fmt.Errorf("%s has %d tasks there", e.ServiceID, len(e.Tasks))
			}
		}
		b, err = os.ReadFile(filepath.Join(n.data, "gateway", "routes.json"))
		if servers := strings.Count(string(b), "loadBalancer/servers/"); servers < 4 { // three and the marker
			return fmt.Errorf("%d servers in the routes on disk, %w", servers, err)
		}
		return nil
	})

	x.stop()
	n.reboot()
	if _, err := n.answer("http://front.example.com/"); err == nil {
		t.Fatal("something answers after the reboot already")
	}
	// Whatever takes an address first, it is no task's.
	out, err := exec.Command("docker", "run", "-d", "--network", "boot_default", image).CombinedOutput()
	stranger := strings.TrimSpace(string(out))
	if err != nil {
		t.Fatalf("%v: %s", err, stranger)
	}
	defer exec.Command("docker", "rm", "-f", stranger).Run()
	n.up()
	n.eventually(30*time.Second, "it works without the store", func() error { return works("") })
	if out := n.do("system", "status", "--run-dir", n.run, "-o", "json"); !strings.Contains(out, `"serving": false`) {
		t.Errorf("it claims to have read its store: %s", out)
	}

	x.start()
	n.eventually(30*time.Second, "the store has been read", func() error {
		if out := n.do("system", "status", "--run-dir", n.run, "-o", "json"); !strings.Contains(out, `"serving": true`) {
			return errors.New(out)
		}
		return works("")
	})
	n.do("deploy", "-f", file("-2"))
	n.eventually(15*time.Second, "the next version works", func() error { return works("-2") })
}
