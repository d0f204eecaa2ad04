package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// certificate makes a self-signed pair for a host.
func (n *node) certificate(host string) (chain, key string, pool *x509.CertPool) {
	n.t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(60 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		n.t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		n.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		n.t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(cert)
	chain = n.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = n.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})))
	return chain, key, pool
}

func TestOwnCertificate(t *testing.T) {
	n := start(t)
	chain, key, pool := n.certificate("tls.example.com")
	n.do("cert", "add", "tls", "--cert", chain, "--key", key)
	n.do("deploy", "-f", n.write("compose.yaml", strings.Replace(web(n.image(), "tls", "1", 1, ""), "port: 8080}", "port: 8080, tls: true}", 1)))
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", n.https))
		},
	}}
	n.eventually(15*time.Second, "the certificate is served", func() error {
		return load.Get(client, "https://tls.example.com/")
	})
	if out, err := exec.Command("grep", "-rl", "PRIVATE KEY", filepath.Join(n.data, "etcd"), filepath.Join(n.data, "gateway")).CombinedOutput(); err == nil {
		t.Errorf("the key is on disk in\n%s", out)
	}
}

func TestPublishedPorts(t *testing.T) {
	n := start(t)
	gateway, local := need.Port(t), need.Port(t)
	n.do("deploy", "-f", n.write("compose.yaml", fmt.Sprintf(`
name: ports
services:
  tcp:
    image: %[1]s
    healthcheck: %[2]s
    ports: ["%[3]d:8080"]
  mine:
    image: %[1]s
    healthcheck: %[2]s
    ports: ["127.0.0.1:%[4]d:8080"]
`, n.image(), healthcheck, gateway, local)))
	for _, port := range []int{gateway, local} {
		n.eventually(15*time.Second, fmt.Sprintf("port %d answers", port), func() error {
			return load.Get(http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", port))
		})
	}
	out := n.do("exposure")
	if !strings.Contains(out, fmt.Sprintf(":%d", gateway)) || !strings.Contains(out, "PUBLIC") || !strings.Contains(out, "NODE") {
		t.Errorf("exposure prints\n%s", out)
	}
	n.do("rm", "ports", "--yes")
	n.eventually(15*time.Second, "the port is closed again", func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", gateway), time.Second)
		if err == nil {
			c.Close()
			return fmt.Errorf("port %d still takes connections", gateway)
		}
		return nil
	})
}

// dial asks the front of an app to connect to an address, which it has longer for where
// it must.
func (n *node) dial(app, addr string, must bool) error {
	wait := map[bool]string{false: "2s", true: "10s"}[must]
	_, err := n.answer("http://" + app + ".example.com/dial?addr=" + addr + "&wait=" + wait)
	return err
}

func TestAppsAreApart(t *testing.T) {
	n := start(t)
	image := n.image()
	n.do("deploy", "-f", n.write("a/compose.yaml", web(image, "left", "1", 1, "")))
	n.do("deploy", "-f", n.write("b/compose.yaml", web(image, "right", "1", 1, "")))
	type service struct {
		Name    string `json:"service"`
		Address string `json:"address"`
	}
	vip := get[[]service](n, "service", "ls", "right")[0].Address
	ip := get[[]struct {
		Addresses map[string]string `json:"addresses"`
	}](n, "ps", "right")[0].Addresses["right_default"]
	if vip == "" || ip == "" {
		t.Fatalf("right has service address %q and task address %q", vip, ip)
	}
	for _, own := range []string{"web:8080", "tasks.web:8080", vip + ":8080"} {
		if err := n.dial("right", own, true); err != nil {
			t.Errorf("right does not reach itself as %s: %v", own, err)
		}
	}
	for _, other := range []string{vip + ":8080", ip + ":8080", "web.right:8080", "tasks.web.right:8080"} {
		if err := n.dial("left", other, false); err == nil {
			t.Errorf("left reaches right as %s", other)
		}
	}
}

func TestJobBeforeService(t *testing.T) {
	n := start(t)
	image := n.image()
	file := fmt.Sprintf(`
name: order
services:
  migrate:
    image: %[1]s
    command: [once]
  web:
    image: %[1]s
    healthcheck: %[2]s
    depends_on: {migrate: {condition: service_completed_successfully}}
    x-fairlead: {routes: [{host: order.example.com, port: 8080}]}
`, image, healthcheck)
	n.do("deploy", "-f", n.write("compose.yaml", file))
	tasks := get[[]struct {
		Address, State string
		Created        time.Time
	}](n, "ps", "order", "--all")
	state := map[string]string{}
	for _, x := range tasks {
		state[x.Address] = x.State
	}
	if state["order/migrate.1"] != "complete" || state["order/web.1"] != "running" {
		t.Errorf("states are %v, want migrate complete and web running", state)
	}

	// Where the job fails, nobody waits until time is up for what waits for it.
	file = strings.NewReplacer("[once]", "[burn, soon]", "name: order", "name: disorder", "order.example.com", "disorder.example.com").Replace(file)
	out, err := n.try("deploy", "-f", n.write("failing.yaml", file), "--timeout", "150s")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "waits for migrate to complete, but its rollout failed") || !strings.Contains(out, "last lines of disorder_migrate.1") {
		t.Errorf("with a job that fails, deploy ends with %v and\n%s", err, out)
	}
}

func TestSecretRotation(t *testing.T) {
	n := start(t)
	file := web(n.image(), "rotate", "1", 2, "secrets: {token: {external: true, x-fairlead: {generate: 16}}}\n")
	file = strings.Replace(file, "    x-fairlead: {", "    secrets: [token]\n    x-fairlead: {secret_env: {TOKEN: token}, ", 1)
	n.do("deploy", "-f", n.write("compose.yaml", file))
	first, err := n.answer("http://rotate.example.com/env?name=TOKEN")
	if err != nil || len(first) != 16 {
		t.Fatalf("TOKEN = %q, %v, want 16 characters", first, err)
	}
	l := n.startLoad(load.EveryKind("http://rotate.example.com/"))
	cmd := n.command(t.Context(), "secret", "set", "rotate/token")
	cmd.Stdin = strings.NewReader("second-value\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("secret set: %v\n%s", err, out)
	}
	n.eventually(60*time.Second, "every replica has the new value, and all are there", func() error {
		for range 6 {
			if v, err := n.answer("http://rotate.example.com/env?name=TOKEN"); err != nil || v != "second-value" {
				return fmt.Errorf("TOKEN = %q (%w)", v, orDiffers(err))
			}
		}
		if v, err := n.answer("http://rotate.example.com/file?name=/run/secrets/token"); err != nil || v != "second-value" {
			return fmt.Errorf("file = %q (%w)", v, orDiffers(err))
		}
		return nil
	})
	l.WantNone(t, "while the secret changed")
}

// orDiffers is err, or what to say of an answer that came but is not the one.
func orDiffers(err error) error {
	if err == nil {
		return errors.New("another answer")
	}
	return err
}

func TestMissingSecretWaits(t *testing.T) {
	n := start(t)
	file := web(n.image(), "missing", "1", 1, "secrets: {token: {external: true}}\n")
	file = strings.Replace(file, "    x-fairlead: {", "    secrets: [token]\n    x-fairlead: {", 1)
	n.do("deploy", "--detach", "-f", n.write("compose.yaml", file))
	n.eventually(20*time.Second, "ps says what it waits for", func() error {
		if out := n.do("ps", "missing"); !strings.Contains(out, "missing/token") {
			return fmt.Errorf("ps prints\n%s", out)
		}
		return nil
	})
	cmd := n.command(t.Context(), "secret", "set", "missing/token")
	cmd.Stdin = strings.NewReader("here\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("secret set: %v\n%s", err, out)
	}
	n.eventually(60*time.Second, "it starts", func() error {
		v, err := n.answer("http://missing.example.com/file?name=/run/secrets/token")
		if err == nil && v != "here" {
			err = fmt.Errorf("file = %q", v)
		}
		return err
	})
}

// external is an etcd that no server of ours runs, with the smallest quota and
// nobody who looks after it.
type external struct {
	t    *testing.T
	cfg  embedded.Config
	keys *pki.PKI
	stop func()
}

func externalEtcd(t *testing.T) *external {
	t.Helper()
	dir := t.TempDir()
	keys, err := pki.Open(dir, pki.Host{Node: "etcd", Hosts: []string{"127.0.0.1"}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	x := &external{t: t, keys: keys, cfg: embedded.Config{
		Dir: filepath.Join(dir, "data"), Name: "etcd", Address: "127.0.0.1", Token: "external",
		ClientPort: need.Port(t), PeerPort: need.Port(t),
		CAFile: keys.CAFile(), ServerFile: keys.ServerFile(), PeerFile: keys.PeerFile(), PeerName: pki.NamePeer,
		Quota: 16 << 20, Check: time.Hour, Now: time.Now,
	}}
	x.start()
	t.Cleanup(func() { x.stop() })
	return x
}

func (x *external) start() {
	x.t.Helper()
	srv, err := embedded.New(x.cfg, hclog.NewNullLogger())
	if err != nil {
		x.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	x.stop = sync.OnceFunc(func() { cancel(); <-done })
	<-srv.Ready()
}

// flags have a server use it.
func (x *external) flags() []string {
	return []string{"--etcd-endpoints", x.cfg.Endpoint(), "--etcd-ca", x.keys.CAFile(), "--etcd-cert", x.keys.RootFile(), "--etcd-key", x.keys.RootFile()}
}

// An etcd of one's own, with TLS and client certificates, takes the place of the embedded one.
func TestExternalEtcd(t *testing.T) {
	x := externalEtcd(t)
	n := start(t, x.flags()...)
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "external", "1", 2, "")))
	if body, err := n.answer("http://external.example.com/"); err != nil || !strings.HasPrefix(body, "1 ") {
		t.Errorf("it answers %q, %v", body, err)
	}

	// When it is full, its own people have to see to it: Fairlead says so and leaves it alone.
	own, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{x.cfg.Endpoint()}, TLS: x.keys.RootTLS()}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for i := 0; err == nil; i++ {
		if i > 64 {
			t.Fatal("the quota does not bound the etcd")
		}
		_, err = own.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: "full", Value: make([]byte, 1<<19)}}})
	}
	n.eventually(30*time.Second, "status says that etcd is full", func() error {
		if out := n.do("status"); !strings.Contains(out, "has no space left") {
			return errors.New(out)
		}
		return nil
	})
	if list, err := own.Alarms(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the alarm was taken back: %q, %v", list, err)
	}
	if body, err := n.answer("http://external.example.com/"); err != nil {
		t.Errorf("with a full etcd it answers %q, %v", body, err)
	}
}

// Services reach each other on the networks they share, and on no other; a
// network without a way out still has its service addresses.
func TestNetworksOfAnApp(t *testing.T) {
	n := start(t)
	image := n.image()
	service := func(name, networks string) string {
		return fmt.Sprintf(`  %[1]s:
    image: %[2]s
    healthcheck: %[3]s
    networks: %[4]s
    x-fairlead: {routes: [{host: %[1]s.example.com, port: 8080}]}
`, name, image, healthcheck, networks)
	}
	n.do("deploy", "-f", n.write("compose.yaml", "name: nets\nservices:\n"+
		service("front", "[outer]")+service("middle", "[outer, inner, sealed]")+service("back", "[inner]")+service("vault", "[sealed]")+
		"networks: {outer: {}, inner: {}, sealed: {internal: true}}\n"))
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"front", "middle", true},
		{"middle", "front", true},
		{"middle", "back", true},
		{"back", "middle", true},
		{"middle", "vault", true},
		{"vault", "middle", true},
		{"middle", "middle", true},
		{"front", "back", false},
		{"back", "front", false},
		{"front", "vault", false},
		{"vault", "back", false},
	} {
		err := n.dial(tc.from, tc.to+":8080", tc.want)
		if (err == nil) != tc.want {
			t.Errorf("%s reaches %s: %v, want %v (%v)", tc.from, tc.to, err == nil, tc.want, err)
		}
	}
}

// Another machine uses the API by TLS, with the authority pinned and a token.
func TestRemoteContext(t *testing.T) {
	port := need.Port(t)
	n := start(t, "--listen", fmt.Sprintf("127.0.0.1:%d", port))
	made := get[struct{ Value, CA string }](n, "token", "create", "laptop")
	home := t.TempDir()
	remote := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), fairlead, args...)
		cmd.Env = []string{"HOME=" + home, "PATH=/usr/bin:/bin"}
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	url := fmt.Sprintf("https://127.0.0.1:%d", port)
	if out, err := remote(made.Value, "context", "add", "lab", "--server", url, "--ca", made.CA, "--token-stdin"); err != nil {
		t.Fatalf("context add: %v\n%s", err, out)
	}
	n.eventually(20*time.Second, "node ls answers from elsewhere", func() error {
		out, err := remote("", "node", "ls")
		if err == nil && !strings.Contains(out, "n1") {
			err = errors.New(out)
		}
		return err
	})
	for name, args := range map[string][]string{
		"wrong token":     {"--server", url, "--ca", made.CA},
		"wrong authority": {"--server", url, "--ca", strings.Repeat("00", 32)},
		"nothing pinned":  {"--server", url},
	} {
		token := made.Value
		if name == "wrong token" {
			token = "fl_wrong"
		}
		add := append([]string{"context", "add", "bad", "--use", "--token-stdin", "--replace"}, args...)
		if out, err := remote(token, add...); exitCode(err) != 3 {
			t.Errorf("context add, %s: exit %v, want 3:\n%s", name, err, out)
		}
		if out, err := remote(token, append(add, "--no-check")...); err != nil {
			t.Fatalf("context add: %v\n%s", err, out)
		}
		if out, err := remote("", "node", "ls"); exitCode(err) != 3 {
			t.Errorf("%s: exit %v, want 3:\n%s", name, err, out)
		}
	}
	n.do("token", "rm", "laptop")
	if out, err := remote("", "--context", "lab", "node", "ls"); exitCode(err) != 3 {
		t.Errorf("a removed token: exit %v, want 3:\n%s", err, out)
	}
}
