package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/integration/stolen"
	"github.com/fairlead/fairlead/store"
)

// The certificates of a node that only runs containers and of one that is a gateway too,
// stolen, open nothing of the store of a cluster in use but the node's own; and what is said
// with one leads nobody astray.
func TestStolenCertificates(t *testing.T) {
	onEngines(t, []string{"--nodes", "3", "--gateways", "2"}, func(b *bed) {
		b.aliveSoon("n1 n2 n3")
		b.everyKey()
		for _, thief := range []stolen.Thief{{Node: "n3"}, {Node: "n2", Gateway: true}} {
			got := b.walk("n1", thief)
			b.t.Logf("%s, a gateway: %v: %d keys, %d other calls; %d of its own", thief.Node, thief.Gateway, got.Keys, got.Calls, got.Own)
			for _, kind := range keyKinds() {
				if !slices.Contains(got.Kinds, kind) {
					b.t.Errorf("%s was not tried on any key of %s", thief.Node, kind)
				}
			}
		}
		b.lies("n3")
	})
}

// walk walks a server's store with the certificate of a node, from where that node is.
func (b *bed) walk(server string, thief stolen.Thief) stolen.Walked {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Minute)
	defer cancel()
	got, err := stolen.WalkDisks(ctx, b.disk(""), stolen.Way{
		URL:  "https://" + b.address(server) + ":7421",
		Dial: func(_ context.Context, addr string) (net.Conn, error) { return b.dial(string(thief.Node), addr) },
	}, thief)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(got.Reached) > 0 {
		b.t.Errorf("the certificate of %+v opens at %s: %q", thief, server, got.Reached)
	}
	if len(got.Refused) > 0 {
		b.t.Errorf("the certificate of %+v does not open at %s what is its own: %q", thief, server, got.Refused)
	}
	return got
}

// keyKinds are those of all keys that a cluster can have.
func keyKinds() []string {
	out := []string{"claims", "follows", "turns", store.TraefikRoot}
	for _, p := range []string{
		store.PrefixNodes, store.PrefixAlive, store.PrefixApps, store.PrefixRollouts, store.PrefixVolumes, store.PrefixOutcomes, store.PrefixTasks,
		store.PrefixHooks, store.PrefixChanges, store.PrefixPlacements, store.PrefixSealed, store.PrefixStatus, store.PrefixAcks, store.PrefixEndpoints,
		store.PrefixDemand, store.PrefixPools, store.PrefixLocks, store.PrefixDecisions, store.PrefixAccess, store.PrefixPKI, store.PrefixCluster,
		store.PrefixGateways, store.PrefixServers, store.PrefixDeliveries, store.PrefixImages,
	} {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(p, store.Root), "/"))
	}
	return out
}

// everyKey uses the cluster for all that it keeps anything of.
func (b *bed) everyKey() {
	b.t.Helper()
	b.deploy(3) // every node has the image
	pushes(b)
	b.told("s3cret", "secret", "set", "walked/password")
	b.run(`name: walked
services:
  web:
` + image + `    expose: ["8080"]
    secrets: [password]
    configs: [note]
    deploy: {replicas: 3, resources: {reservations: {cpus: "0.01"}}}
    labels:
      traefik.http.routers.g.rule: Host(` + "`walked.example.com`" + `)
      traefik.http.routers.g.middlewares: auth
      traefik.http.middlewares.auth.basicauth.users: ann:$$2y$$05$$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC
    x-fairlead: {autoscale: {min: 3, max: 4, cpu: 90%}}
configs: {note: {content: hello}}
secrets: {password: {external: true}}
`)
	b.run("name: kept\nservices:\n  db:\n" + image + "    volumes: [\"data:/data\"]\nvolumes: {data: {}}\n")
	b.cluster("rm", "kept", "-y")
	b.cluster("install", "hooked", filepath.Dir(b.hooked()))
	mine := b.disk("n1", "fairlead", "pki", "server.pem") // the first certificate at hand
	b.cluster("cert", "add", "any", "--cert", mine, "--key", mine)
	b.told("s3cret", "image", "login", "registry.example.com", "-u", "ci")
	b.cluster("token", "create", "ann")
	b.cluster("delivery", "create", "later", "https://git.example.com/later.git", "--interval", "1h", "-d")
	b.eventually(time.Minute, "everything is in the store", func() error { return b.has(keyKinds()) })
}

// hooked is the Chart.yaml of a package with a hook.
func (b *bed) hooked() string {
	b.t.Helper()
	chart := b.file("Chart.yaml", "apiVersion: v2\nname: hooked\nversion: 1.0.0\n")
	dir := filepath.Join(filepath.Dir(chart), "templates")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	text := "services:\n  web:\n" + image + "  before:\n    image: demo-web\n    command: [once]\n    x-fairlead: {hook: {on: [pre-install]}}\n"
	if err := os.WriteFile(filepath.Join(dir, "app.yaml"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return chart
}

// has fails while there is no key of a kind.
func (b *bed) has(kinds []string) error {
	c := b.rootStore()
	defer c.Close()
	for _, kind := range kinds {
		key := store.Root + kind
		if kind == store.TraefikRoot {
			key = kind
		}
		got, err := c.Get(b.t.Context(), key, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return err
		}
		if got.Count == 0 {
			return fmt.Errorf("there is no key of %s", kind)
		}
	}
	return nil
}
