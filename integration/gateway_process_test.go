package integration

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/integration/need"
)

// oneRoute brings up web.example.com on one server.
func (l *gatewayLab) oneRoute(ip string) {
	l.t.Helper()
	l.backend(ip, 9000)
	l.service(gatewayService("web", []cluster.Route{{Host: "web.example.com", Port: 9000}}))
	l.acked(l.serve("web", ip))
	l.until("it answers", func() bool { s, _ := l.get("web.example.com", "/"); return s == http.StatusOK })
}

func TestGatewayReplacementUnderLoad(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.5.1")
	load := l.load(l.web, "web.example.com")
	pids := map[int]bool{l.pid(): true}
	for range 3 {
		if err := l.gw.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		pids[l.pid()] = true
		time.Sleep(time.Second)
	}
	// A new published port needs a new entry point, and so another process.
	l.service(gatewayService("echo", nil, cluster.PublishedPort{Published: freeTCPPort(t), Target: 9000, Protocol: "tcp", Mode: "gateway"}))
	l.until("replaced for the new port", func() bool { return !pids[l.pid()] })
	l.until("all replaced processes have ended", func() bool { return l.traefiks() == 1 })
	load.none(t)
}

// traefiks counts the processes that run from this lab's directory.
func (l *gatewayLab) traefiks() int {
	n := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), "--configFile="+l.cfg.RunDir) {
			n++
		}
	}
	return n
}

// Only what was in flight on the killed process may fail, each time by a
// connection that it had. A dying process gives its memory back before it closes
// its sockets, some ten milliseconds on this machine, and the kernel takes
// connections for it until then: so a worker may lose a request and the next.
func TestGatewayTraefikKilled(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.6.1")
	load := l.load(l.web, "web.example.com")
	kills := 3
	for range kills {
		time.Sleep(time.Second)
		old := l.pid()
		before := load.sent.Load()
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		l.until("another Traefik is published", func() bool { p := l.pid(); return p != 0 && p != old })
		l.until("requests go on", func() bool { return load.sent.Load() > before+100 })
	}
	load.stop()
	failed := int(load.failed.Load())
	t.Logf("%d requests over %d kills, %d failed: %v", load.sent.Load(), kills, failed, load.errors)
	if failed > 2*8*kills {
		t.Errorf("%d requests failed, more than were in flight", failed)
	}
	for e := range load.errors {
		if strings.Contains(e, "refused") || strings.Contains(e, "status") {
			t.Errorf("a request that was not in flight failed: %s", e)
		}
	}
}

// A Traefik that does not come back for its routes within seconds is replaced, and on a
// machine that stood still that is right: then the gateway stops and comes back again.
func TestGatewayStopsAndComesBack(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.7.1")
	l.backend("127.77.7.2", 9000)
	load := l.load(l.web, "web.example.com")
	late := func() int { return strings.Count(l.log.String(), "does not come back for its routes; replacing it") }
	for round := range 5 {
		l.stop()
		pid, before := l.pid(), late()
		time.Sleep(time.Second)
		// What changes meanwhile is taken after the return, by the same process.
		ip := fmt.Sprintf("127.77.7.%d", 2-round%2)
		rev := l.serve("web", ip)
		l.run()
		l.acked(rev)
		l.until("the new server answers", func() bool { _, body := l.get("web.example.com", "/"); return body == ip })
		if late() > before {
			continue
		}
		load.none(t)
		if l.pid() != pid {
			t.Errorf("Traefik was replaced after a short absence: PID %d, then %d", pid, l.pid())
		}
		return
	}
	load.none(t)
	t.Error("Traefik never came back for its routes in time")
}

func TestGatewayBootsWithoutControlPlane(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.8.1")
	l.until("routes are kept", func() bool {
		b, err := os.ReadFile(filepath.Join(l.cfg.DataDir, "gateway", "routes.json"))
		return err == nil && strings.Contains(string(b), "127.77.8.1")
	})
	l.stop()
	// A reboot: no process, no table, an empty run directory, no control plane.
	if err := gateway.Shutdown(t.Context(), l.cfg, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	if s, _ := l.get("web.example.com", "/"); s != 0 {
		t.Fatalf("answers %d after shutdown", s)
	}
	if err := os.RemoveAll(l.cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	gw, err := gateway.New(l.cfg, absentCluster{}, hclog.New(&hclog.LoggerOptions{Output: l.log}))
	if err != nil {
		t.Fatal(err)
	}
	l.background(gw.Run)
	l.until("it answers without a control plane", func() bool { s, _ := l.get("web.example.com", "/"); return s == http.StatusOK })
}

// Who comes while the first Traefik starts waits for it, and is not forgotten.
func TestGatewayStartLeavesNobodyWaiting(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.9.1")
	l.stop()
	if err := gateway.Shutdown(t.Context(), l.cfg, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients errgroup.Group
	var waited, closed atomic.Int64
	clients.Go(func() error {
		for ctx.Err() == nil {
			clients.Go(func() error {
				c, err := net.DialTimeout("tcp", l.web, need.Patience*10*time.Second)
				if errors.Is(err, syscall.ECONNREFUSED) { // the gateway has not begun
					closed.Add(1)
					return nil
				}
				if err != nil {
					return err
				}
				waited.Add(1)
				return c.Close()
			})
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	})
	waitFor(t, "the port to be closed", func() bool { return closed.Load() > 0 })
	l.run()
	l.until("it answers", func() bool { s, _ := l.get("web.example.com", "/"); return s == http.StatusOK })
	cancel()
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d connections, %d before the start", waited.Load(), closed.Load())
}

type absentCluster struct{}

func (absentCluster) Follow(context.Context, func(bool, map[string][]byte, []string)) error {
	return cluster.Transientf("no connection")
}

func (absentCluster) Ack(context.Context, cluster.GatewayAck) error {
	return cluster.Transientf("no connection")
}

// gatewayChild is the environment variable that makes TestGatewayChild a gateway
// that can be killed; it holds the configuration.
const gatewayChild = "FAIRLEAD_TEST_GATEWAY"

type fileCluster struct{ path string }

func (f fileCluster) Follow(ctx context.Context, apply func(bool, map[string][]byte, []string)) error {
	for ctx.Err() == nil {
		if b, err := os.ReadFile(f.path); err == nil {
			tree := map[string][]byte{}
			if err := json.Unmarshal(b, &tree); err == nil {
				apply(true, tree, nil)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

func (f fileCluster) Ack(_ context.Context, a cluster.GatewayAck) error {
	return os.WriteFile(f.path+".ack", []byte(strconv.Itoa(int(a.Route))), 0o600)
}

func TestGatewayChild(t *testing.T) {
	raw := os.Getenv(gatewayChild)
	if raw == "" {
		t.Skip("runs as a child of TestGatewayKilled only")
	}
	var cfg gateway.Config
	if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Now = time.Now
	gw, err := gateway.New(cfg, fileCluster{filepath.Join(cfg.DataDir, "tree.json")}, hclog.New(&hclog.LoggerOptions{Level: hclog.Info}))
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(gw.Run(t.Context()))
}

func TestGatewayKilled(t *testing.T) {
	cfg := newGatewayConfig(t)
	l := &gatewayLab{t: t, cfg: cfg, web: "127.0.0.1:" + strconv.Itoa(cfg.Web)}
	l.backend("127.77.9.1", 9000)
	l.backend("127.77.9.2", 9000)
	tree := filepath.Join(cfg.DataDir, "tree.json")
	write := func(rev int, ip string) {
		b, err := json.Marshal(map[string][]byte{
			"traefik/http/routers/w/rule":                                        []byte("Host(`web.example.com`)"),
			"traefik/http/routers/w/entryPoints/0":                               []byte("web"),
			"traefik/http/routers/w/service":                                     []byte("w"),
			"traefik/http/services/w/loadBalancer/servers/0/url":                 []byte("http://" + ip + ":9000"),
			"traefik/http/services/fairlead-revision/loadBalancer/servers/0/url": []byte(fmt.Sprintf("http://fairlead.invalid/%d", rev)),
		})
		if err == nil {
			err = os.WriteFile(tree+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(tree+".new", tree)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	answers := func(ip string) func() bool {
		return func() bool { _, body := gatewayGet(t.Context(), l.web, "web.example.com", "/"); return body == ip }
	}
	write(1, "127.77.9.1")
	child := startGatewayChild(t, cfg)
	waitFor(t, "the first route", answers("127.77.9.1"))
	pid := gatewayPID(t, cfg)
	load := l.load(l.web, "web.example.com")
	for i, away := range []time.Duration{0, time.Second, 8 * time.Second} {
		_ = child.Process.Signal(syscall.SIGKILL)
		_ = child.Wait()
		time.Sleep(away)
		ip := fmt.Sprintf("127.77.9.%d", (i+1)%2+1)
		write(i+2, ip)
		child = startGatewayChild(t, cfg)
		start := time.Now()
		waitFor(t, "the route changed after "+away.String()+" away", answers(ip))
		t.Logf("away %s: change live %s after the start; Traefik kept: %v", away, time.Since(start).Round(time.Millisecond), gatewayPID(t, cfg) == pid)
	}
	load.none(t)
}

func startGatewayChild(t *testing.T, cfg gateway.Config) *exec.Cmd {
	t.Helper()
	cfg.Now = nil
	raw, err := json.Marshal(struct {
		gateway.Config
		Now *int `json:",omitempty"`
	}{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestGatewayChild$", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), gatewayChild+"="+string(raw))
	var out gatewayLog
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("child:\n%s", out.String())
		}
	})
	return cmd
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(need.Patience * 40 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestGatewayPrivatePortsAreClosed(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.10.1")
	var s struct {
		Current struct {
			Ports map[string]int `json:"ports"`
			API   int            `json:"api_port"`
		} `json:"current"`
		Etcd int `json:"etcd"`
	}
	b, err := os.ReadFile(filepath.Join(l.cfg.DataDir, "gateway", "state.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil || len(s.Current.Ports) != 3 {
		t.Fatalf("%v: %s", err, b)
	}
	own := ownAddress(t)
	for name, port := range s.Current.Ports {
		for _, host := range []string{"127.0.0.1", own} {
			if c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), 300*time.Millisecond); err == nil {
				_ = c.Close()
				t.Errorf("the private port of %s answers on %s", name, host)
			}
		}
	}
	for _, port := range []int{s.Current.API, s.Etcd} {
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(own, strconv.Itoa(port)), 300*time.Millisecond); err == nil {
			_ = c.Close()
			t.Errorf("loopback port %d answers on %s", port, own)
		}
		// Another user of this machine gets nothing from them either.
		cmd := exec.Command("bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", port))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("another user reaches loopback port %d: %s", port, out)
		}
	}
	// The public port answers by each of this machine's addresses.
	for _, host := range []string{"127.0.0.1", own, "::1"} {
		addr := net.JoinHostPort(host, strconv.Itoa(l.cfg.Web))
		if st, body := gatewayGet(t.Context(), addr, "web.example.com", "/"); st != http.StatusOK {
			t.Errorf("by %s: %d %s", addr, st, body)
		}
	}
}

func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but the loopback's")
	return ""
}

func TestGatewayInternalAndPublicAreApart(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.11.1", 9000)
	l.service(gatewayService("in", []cluster.Route{{Host: "in.example.com", Port: 9000, Internal: true}}))
	l.acked(l.serve("in", "127.77.11.1"))
	internal := "127.0.0.1:" + strconv.Itoa(l.cfg.Internal)
	l.until("the internal entry point answers", func() bool {
		s, _ := gatewayGet(t.Context(), internal, "in.example.com", "/")
		return s == http.StatusOK
	})
	if s, _ := l.get("in.example.com", "/"); s != http.StatusNotFound {
		t.Errorf("an internal route answers %d in public", s)
	}
}

func TestGatewayPublishedPorts(t *testing.T) {
	l := newGatewayLab(t)
	tcpPort, udpPort, taken := freeTCPPort(t), freeTCPPort(t), freeTCPPort(t)
	squatter, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(taken))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	echoTCP(t, "127.77.12.1:7000")
	echoUDP(t, "127.77.12.1:7001")
	l.service(gatewayService("echo", nil,
		cluster.PublishedPort{Published: tcpPort, Target: 7000, Protocol: "tcp", Mode: "gateway"},
		cluster.PublishedPort{Published: udpPort, Target: 7001, Protocol: "udp", Mode: "gateway"},
		cluster.PublishedPort{Published: taken, Target: 7000, Protocol: "tcp", Mode: "gateway"},
	))
	l.serve("echo", "127.77.12.1")
	say := func(network string, port int) bool {
		c, err := net.DialTimeout(network, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		return echoes(c)
	}
	l.until("TCP answers", func() bool { return say("tcp", tcpPort) })
	l.until("UDP answers", func() bool { return say("udp", udpPort) })
	l.until("the taken port is named", func() bool {
		return strings.Contains(l.ack().Refused["tcp-"+strconv.Itoa(taken)], "PID "+strconv.Itoa(os.Getpid()))
	})
	if err := l.gw.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.until("the old process has ended", func() bool { return l.traefiks() == 1 })
	l.until("TCP answers after a replacement", func() bool { return say("tcp", tcpPort) })
	l.until("UDP answers after a replacement", func() bool { return say("udp", udpPort) })

	// A service without a task, which Traefik cannot have on a UDP port, costs no
	// process, and so no other service's connections.
	pid := l.pid()
	l.serve("echo")
	l.until("the port is closed", func() bool { return !slices.Contains(l.ack().Entries, "udp-"+strconv.Itoa(udpPort)) })
	if say("udp", udpPort) {
		t.Error("a port without a task answers")
	}
	l.serve("echo", "127.77.12.1")
	l.until("UDP answers again", func() bool { return say("udp", udpPort) })
	l.until("TCP answers again", func() bool { return say("tcp", tcpPort) })
	if l.pid() != pid {
		t.Error("Traefik was replaced")
	}
}

// echoes tells whether what is on the other end says hello.
func echoes(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && line == "hello\n"
}

// TestGatewayKeepsLongConnections: what is published anew ends nobody's connection. Of
// the processes that live on for theirs there are only so many.
func TestGatewayKeepsLongConnections(t *testing.T) {
	l := newGatewayLab(t)
	port := freeTCPPort(t)
	echoTCP(t, "127.77.18.1:7000")
	published := cluster.PublishedPort{Published: port, Target: 7000, Protocol: "tcp", Mode: "gateway"}
	l.service(gatewayService("echo", nil, published))
	l.acked(l.serve("echo", "127.77.18.1"))
	open := func() net.Conn {
		var c net.Conn
		l.until("it is connected", func() bool {
			var err error
			if c, err = net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second); err != nil {
				return false
			}
			if !echoes(c) {
				_ = c.Close()
				return false
			}
			return true
		})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	pid := l.pid()
	long := []net.Conn{open()}
	l.service(gatewayService("other", nil, cluster.PublishedPort{Published: freeTCPPort(t), Target: 7000, Protocol: "tcp", Mode: "gateway"}))
	l.until("replaced for the new port", func() bool { p := l.pid(); return p != 0 && p != pid })
	// Far longer than connections that clients keep between requests.
	time.Sleep(2*l.cfg.KeepAliveMaxTime + 10*time.Second)
	if !echoes(long[0]) {
		t.Fatal("another app's new port ended a connection")
	}
	for range 4 {
		long = append(long, open())
		if err := l.gw.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	long = append(long, open())
	l.until("there are three besides the current one", func() bool { return l.traefiks() == 4 })
	for i, c := range long {
		if got, want := echoes(c), i > 1; got != want {
			t.Errorf("connection %d of %d lives: %v", i, len(long), got)
		}
		_ = c.Close()
	}
	l.until("all replaced processes have ended", func() bool { return l.traefiks() == 1 })
}

func echoTCP(t *testing.T, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
}

func echoUDP(t *testing.T, addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(b[:n], from)
		}
	}()
}

func TestGatewayRefusesATakenPort(t *testing.T) {
	cfg := newGatewayConfig(t)
	ln, err := net.Listen("tcp", ":"+strconv.Itoa(cfg.Web))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	gw, err := gateway.New(cfg, absentCluster{}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	err = gw.Run(t.Context())
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), strconv.Itoa(cfg.Web)) {
		t.Errorf("the error does not name the port: %v", err)
	}
}

func TestGatewayServesCertificates(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.13.1", 9000)
	l.service(gatewayService("web", []cluster.Route{{Host: "web.example.com", Port: 9000, TLS: true}}))
	l.acked(l.serve("web", "127.77.13.1"))
	cert, key := selfSigned(t, "web.example.com")
	if err := gateway.WriteCertificates(l.cfg, []gateway.Cert{{Name: "web", CertPEM: cert, KeyPEM: cluster.NewSecret(key)}}); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	served := func() bool {
		c, err := tls.Dial("tcp", "127.0.0.1:"+strconv.Itoa(l.cfg.WebSecure), &tls.Config{RootCAs: pool, ServerName: "web.example.com"})
		if err != nil {
			return false
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: web.example.com\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c)
		return strings.HasPrefix(string(b), "HTTP/1.1 200")
	}
	l.until("the certificate is served", served)
	if err := l.gw.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !served() {
		t.Error("the new process was published before it had the certificate")
	}
	if s, _ := l.get("web.example.com", "/"); s != http.StatusOK {
		t.Errorf("the plain entry point answers %d", s)
	}
}

// A certificate that comes while a Traefik starts is waited for as it is then, not
// as it was.
func TestGatewayStartsWhileCertificatesChange(t *testing.T) {
	l := newGatewayLab(t)
	l.oneRoute("127.77.15.1")
	pid := l.pid()
	var replaced errgroup.Group
	replaced.Go(func() error { return l.gw.Replace(t.Context()) })
	for after := 0; after < 10; {
		cert, key := selfSigned(t, fmt.Sprintf("web%d.example.com", after))
		if err := gateway.WriteCertificates(l.cfg, []gateway.Cert{{Name: "web", CertPEM: cert, KeyPEM: cluster.NewSecret(key)}}); err != nil {
			t.Fatal(err)
		}
		if strings.Count(l.log.String(), "started Traefik") > 1 {
			after++
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := replaced.Wait(); err != nil {
		t.Fatal(err)
	}
	if l.pid() == pid {
		t.Error("Traefik was not replaced")
	}
}

func selfSigned(t *testing.T, host string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}
