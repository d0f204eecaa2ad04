package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// namesCluster runs a web and a caller that looks its name up for each request.
func namesCluster(t *testing.T) *node {
	t.Helper()
	n := start(t)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "named", "1", 2, calling(image))))
	n.more(100)
	return n
}

// more waits until the caller has made so many requests more.
func (n *node) more(count int64) {
	n.t.Helper()
	from := int64(-1)
	n.eventually(60*time.Second, "requests go on inside", func() error {
		c, err := n.counted()
		if err != nil {
			return err
		}
		if from < 0 {
			from = c.Requests
		}
		if c.Requests < from+count {
			return fmt.Errorf("%d requests after %d", c.Requests, from)
		}
		return nil
	})
}

func (n *node) namesPID() int {
	n.t.Helper()
	return get[struct {
		PID int `json:"names_pid"`
	}](n, "system", "status", "--run-dir", n.run).PID
}

// wantInside fails the test when more requests failed inside than allowed.
func (n *node) wantInside(what string, allowed int64) {
	n.t.Helper()
	c, err := n.counted()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Logf("%s: %d requests from inside, %d failed; %d lookups, %d not answered within a second", what, c.Requests, c.Failed, c.Lookups, c.Late)
	if c.Failed > allowed {
		n.t.Errorf("%s: %d of %d requests from inside failed:\n%s", what, c.Failed, c.Requests, strings.Join(c.Examples, "\n"))
	}
}

// A program that looks a name up for each request does not notice that the server
// is killed, stopped or upgraded.
func TestNamesOutliveTheServer(t *testing.T) {
	n := namesCluster(t)
	pid := n.namesPID()
	if pid == 0 {
		t.Fatal("the status names no process that answers names")
	}
	n.stop(syscall.SIGKILL)
	n.more(300)
	if out, err := n.try("system", "status", "--run-dir", n.run); err == nil || !strings.Contains(out, fmt.Sprintf("process %d answers names to it", pid)) {
		t.Errorf("the status without a server says %q, %v", out, err)
	}
	n.up()
	n.more(300)
	if now := n.namesPID(); now != pid {
		t.Errorf("the process that answers names was %d and is %d", pid, now)
	}
	n.wantInside("server killed and started", 0)

	n.stop(syscall.SIGTERM)
	n.more(100)
	n.up()
	n.more(100)
	n.wantInside("server stopped and started", 0)

	// Another program: the process is replaced under the questions.
	n.program = filepath.Join(n.dir, "fairlead")
	b, err := os.ReadFile(fairlead)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	n.stop(syscall.SIGTERM)
	n.up()
	n.eventually(30*time.Second, "the process that answers names is replaced", func() error {
		if now := n.namesPID(); now == pid || now == 0 {
			return fmt.Errorf("it is %d", now)
		}
		if syscall.Kill(pid, 0) == nil {
			return errors.New("the old one is there")
		}
		return nil
	})
	n.more(300)
	n.wantInside("upgraded", 0)
}

// The process itself killed: another one is there at once. Only a question that it
// had read may be lost, and programs ask again.
func TestNameServerKilled(t *testing.T) {
	n := namesCluster(t)
	const kills = 5
	for range kills {
		pid := n.namesPID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		n.eventually(20*time.Second, "another answers names", func() error {
			if now := n.namesPID(); now == pid || now == 0 {
				return fmt.Errorf("it is %d", now)
			}
			return nil
		})
		t.Logf("another process after %s, as the status has it", time.Since(began).Round(time.Millisecond))
		n.more(100)
	}
	n.wantInside("name server killed", kills) // one caller looks names up, one question at a time
	n.do("scale", "named/web=3")
	n.eventually(30*time.Second, "changes go on", func() error {
		body, err := n.answer("http://caller.example.com/lookup?name=tasks.web")
		if err == nil && len(strings.Fields(body)) != 3 {
			err = errors.New(body)
		}
		return err
	})
}

// outside makes a place beyond this machine with two addresses, a network
// namespace, and returns what runs a function there.
func outside(t *testing.T, node netip.Prefix, addrs ...string) func(func() error) error {
	t.Helper()
	name := fmt.Sprintf("flns%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() { // takes both ends of the link with it
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del %s: %v: %s", name, err, out)
		}
	})
	ip("netns", "add", name)
	ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
	ip("addr", "add", node.String(), "dev", name)
	ip("link", "set", name, "up")
	for _, a := range addrs {
		ip("-n", name, "addr", "add", netip.PrefixFrom(netip.MustParseAddr(a), node.Bits()).String(), "dev", "eth0")
	}
	ip("-n", name, "link", "set", "eth0", "up")
	return func(f func() error) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: the thread stays there, and ends with this
			ns, err := os.Open("/run/netns/" + name)
			if err == nil {
				defer ns.Close()
				if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
					err = f()
				}
			}
			done <- err
		}()
		return <-done
	}
}

// ownServer is a DNS server of the user's.
type ownServer struct {
	addr string
	srv  *dns.Server
	done chan struct{}

	mu    sync.Mutex
	asked []string // names, in order
}

// newOwnServer answers some names with an address that names the server.
func newOwnServer(t *testing.T, there func(func() error) error, addr, answer string) *ownServer {
	t.Helper()
	var pc net.PacketConn
	if err := there(func() (err error) { pc, err = net.ListenPacket("udp4", addr+":53"); return err }); err != nil {
		t.Fatal(err)
	}
	s := &ownServer{addr: addr, done: make(chan struct{})}
	known := []string{"own.example.test.", "wiki.corp.test.", "printer."}
	s.srv = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		q := req.Question[0]
		s.mu.Lock()
		s.asked = append(s.asked, q.Name)
		s.mu.Unlock()
		resp := new(dns.Msg).SetReply(req)
		resp.Authoritative = true // or older engines ask the next server for what is not there
		switch {
		case !slices.Contains(known, q.Name):
			resp.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			resp.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(answer)}}
		}
		_ = w.WriteMsg(resp)
	})}
	go func() { defer close(s.done); _ = s.srv.ActivateAndServe() }()
	t.Cleanup(s.stop)
	return s
}

func (s *ownServer) stop() {
	_ = s.srv.ShutdownContext(context.Background())
	<-s.done
}

func (s *ownServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// What is not the cluster's goes to the servers that the service names, in order,
// from its container; nothing else does.
func TestOwnDNSServers(t *testing.T) {
	n := start(t)
	there := outside(t, netip.MustParsePrefix("10.234.53.254/24"), "10.234.53.1", "10.234.53.2")
	first, second := newOwnServer(t, there, "10.234.53.1", "192.0.2.1"), newOwnServer(t, there, "10.234.53.2", "192.0.2.2")
	image := n.image()
	service := func(name, more string) string {
		return fmt.Sprintf(`  %[1]s:
    image: %[2]s
    environment: {VERSION: "1", FIRST: own.example.test}
    healthcheck: %[3]s
    dns: [%[4]s, %[5]s]
    dns_search: [corp.test]
    x-fairlead: {routes: [{host: %[1]s.example.com, port: 8080}]}
%[6]s`, name, image, healthcheck, first.addr, second.addr, more)
	}
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "own", "1", 1,
		service("asker", "")+service("dots", "    dns_opt: [\"ndots:2\"]\n")+service("inner", "    networks: [closed]\n")+
			"networks: {closed: {internal: true}}\n")))
	vip := ""
	for _, s := range get[[]struct {
		Name    string `json:"service"`
		Address string `json:"address"`
	}](n, "service", "ls", "own") {
		if strings.HasSuffix(s.Name, "web") {
			vip = s.Address
		}
	}
	if vip == "" {
		t.Fatal("web has no service address")
	}
	wants := func(from, path, want string) {
		t.Helper()
		if got, err := n.answer("http://" + from + ".example.com/" + path); err != nil || got != want {
			t.Errorf("%s: %s is %q, %v; want %q", from, path, got, err, want)
		}
	}
	for _, from := range []string{"asker", "dots"} {
		wants(from, "first", "192.0.2.1") // also as the first thing that it does
		wants(from, "lookup?name=own.example.test", "192.0.2.1")
		wants(from, "lookup?name=wiki", "192.0.2.1") // in the search domain
		wants(from, "lookup?name=web", vip)
		wants(from, "lookup?name=tasks.nothere", "not found")
	}
	wants("asker", "lookup?name=printer", "192.0.2.1")
	wants("asker", "lookup?name=nothere.example.test", "not found")
	for _, name := range first.seen() {
		if name == "web." || strings.HasPrefix(name, "tasks.nothere.") && name != "tasks.nothere.corp.test." {
			t.Errorf("the user's server was asked for %s, which is the cluster's", name)
		}
	}
	if asked := second.seen(); len(asked) != 0 {
		t.Errorf("the second server was asked %v while the first answers", asked)
	}
	if got, err := n.answer("http://own.example.com/lookup?name=own.example.test"); err != nil || strings.Contains(got, "192.0.2.") {
		t.Errorf("a service without servers of its own is told %q, %v", got, err)
	}
	// No way out, by names either.
	before := first.seen()
	if got, err := n.answer("http://inner.example.com/lookup?name=own.example.test"); err != nil || strings.Contains(got, "192.0.2.") {
		t.Errorf("on an internal network it is told %q, %v", got, err)
	}
	if got, err := n.answer("http://inner.example.com/first"); err != nil || strings.Contains(got, "192.0.2.") {
		t.Errorf("on an internal network it was told %q, %v", got, err)
	}
	if now := first.seen(); len(now) != len(before) {
		t.Errorf("a container without a way out asked %v", now[len(before):])
	}
	first.stop()
	wants("asker", "lookup?name=own.example.test", "192.0.2.2")
}
