package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/go-hclog"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/proc"
)

func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{Cluster: "c1", Node: "n1", DataDir: t.TempDir(), RunDir: t.TempDir(), Now: time.Now}.WithDefaults()
}

func TestConfigValidate(t *testing.T) {
	if err := testConfig(t).Validate(); err != nil {
		t.Fatal(err)
	}
	for says, spoil := range map[string]func(*Config){
		"cluster ID": func(c *Config) { c.Cluster = "a b" },
		"no name":    func(c *Config) { c.Node = "" },
		"absolute":   func(c *Config) { c.RunDir = "run" },
		"clock":      func(c *Config) { c.Now = nil },
		"negative":   func(c *Config) { c.Grace = -1 },
		"range":      func(c *Config) { c.PrivateTo = c.PrivateFrom },
		"above":      func(c *Config) { c.Web = 70000 },
		"among":      func(c *Config) { c.Web = c.PrivateFrom },
		"same port":  func(c *Config) { c.Web = c.WebSecure },
		"left out":   func(c *Config) { c.Web, c.WebSecure, c.Internal = -1, -1, -1 },
	} {
		c := testConfig(t)
		spoil(&c)
		if err := c.Validate(); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestStaticConfiguration(t *testing.T) {
	c := testConfig(t)
	b, err := json.Marshal(c.static([]string{"web", "tcp-5432", "udp-53"}, map[string]int{"web": 21001, "tcp-5432": 21002, "udp-53": 21003}, 21000, 21004, "/log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"web":{"address":":21001/tcp"`, `"tcp-5432":{"address":":21002/tcp"`, `"udp-53":{"address":":21003/udp"}`,
		`"traefik":{"address":"127.0.0.1:21000"}`, `"checkNewVersion":false`, `"sendAnonymousUsage":false`,
		`"keepAliveMaxTime":"30s"`, `"graceTimeOut":"10s"`, `"providersThrottleDuration":"0s"`, `"endpoints":["127.0.0.1:21004"]`,
		`"insecure":false,"trustedIPs":[]`, `"readTimeout":"24h0m0s"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	if strings.Contains(string(b), "accessLog") {
		t.Error("an access log that nobody asked for")
	}
	one, _ := c.options()
	c.KeepAliveMaxTime++
	two, _ := c.options()
	if one == two {
		t.Error("another option does not make another layout")
	}
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if three, _ := c.options(); three == two {
		t.Error("other proxies do not make another layout: a running Traefik would go on without them")
	}
}

func TestARevisionIsConfirmedBySecondLook(t *testing.T) {
	at := time.Unix(1000, 0)
	var s shown
	for i, step := range []struct {
		rev   int64
		after time.Duration
		want  int64
	}{
		{0, 0, 0},
		{5, settle, 0},     // first seen
		{5, settle / 2, 0}, // too soon
		{5, settle, 5},     // confirmed
		{5, settle, 5},     //
		{6, settle, 5},     // then one new revision at each look:
		{7, settle, 6},     // each confirms the one before
		{8, settle, 7},     //
		{3, settle, 3},     // the store was put back
		{3, settle, 3},     //
		{4, settle, 3},
		{4, settle, 4}, // and goes on
	} {
		at = at.Add(step.after)
		s.look(step.rev, at)
		if s.confirmed != step.want {
			t.Fatalf("step %d: confirmed %d, not %d", i, s.confirmed, step.want)
		}
	}
}

type acks struct{ all []cluster.GatewayAck }

func (*acks) Follow(context.Context, func(bool, map[string][]byte, []string)) error { return nil }

func (a *acks) Ack(_ context.Context, x cluster.GatewayAck) error {
	a.all = append(a.all, x)
	return nil
}

func (a *acks) last() cluster.GatewayAck { return a.all[len(a.all)-1] }

// fakeTraefik answers with a marker.
func fakeTraefik(t *testing.T, rev *int64) *process {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"loadBalancer":{"servers":[{"url":"%s%d"}]}}`, markerPrefix, *rev)
	}))
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	return &process{Version: "3.6", api: newAPI(n)}
}

// ended is what a process that has ended shows.
func ended() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// Every process that has connections must show a revision before it counts, and
// one that lags is alarmed.
func TestAcknowledgement(t *testing.T) {
	t.Run("new first", func(t *testing.T) { acknowledgement(t, false) })
	t.Run("old first", func(t *testing.T) { acknowledgement(t, true) })
}

func acknowledgement(t *testing.T, oldFirst bool) {
	t.Helper()
	now := time.Unix(1000, 0)
	a := &acks{}
	cfg := testConfig(t)
	cfg.Now = func() time.Time { now = now.Add(settle); return now }
	if err := os.MkdirAll(cfg.dataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := New(cfg, a, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	g.tree = newTree(1)
	g.tree.apply(true, put(markerKey, markerPrefix+"8"), nil)
	newer, older := int64(8), int64(5)
	p, old := fakeTraefik(t, &newer), fakeTraefik(t, &older)
	g.serving = []*process{p, old}
	if oldFirst {
		slices.Reverse(g.serving)
	}
	var m acker
	for range 4 {
		g.poll(t.Context(), &m, 8)
	}
	if got := a.last(); got.Route != 5 || got.Node != "n1" || got.Error != "" {
		t.Errorf("with one process behind: %+v", got)
	}
	now = now.Add(lagAlarm)
	g.poll(t.Context(), &m, 8)
	if got := a.last(); !strings.Contains(got.Error, "does not take the routes") {
		t.Errorf("no alarm: %+v", got)
	}
	old.exited = ended() // what has ended holds nothing up
	n := len(a.all)
	g.poll(t.Context(), &m, 8)
	if got := a.last(); got.Route != 8 || got.Error != "" || len(a.all) != n+1 {
		t.Errorf("after the lagging one ended: %+v", got)
	}
	g.poll(t.Context(), &m, 8)
	if len(a.all) != n+1 {
		t.Error("written again without a change")
	}
	if _, err := os.Stat(routesFile(cfg.dataDir())); err != nil {
		t.Errorf("the routes that Traefik takes are not kept: %v", err)
	}
	p.exited = ended()
	g.poll(t.Context(), &m, 9)
	if got := a.last(); got.Route != 8 {
		t.Errorf("with no process: %+v", got)
	}
}

func TestHeldPortsNameTheirHolder(t *testing.T) {
	var lc net.ListenConfig
	port := need.Port(t) // a connection from elsewhere could have any other once it is closed
	l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = holdPort("tcp", port, "publish another port")
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), fmt.Sprintf("PID %d", os.Getpid())) {
		t.Errorf("%v", err)
	}
	_ = l.Close()
	h, err := holdPort("tcp", port, "publish another port")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holdPort("tcp", port, "publish another port"); err == nil {
		t.Error("held twice")
	}
	if _, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
		t.Error("another program takes a held port")
	}
	h.release()
	if h, err = holdPort("tcp", port, "publish another port"); err != nil {
		t.Fatal(err)
	}
	h.release()
}

func TestStateOfAnEarlierBootIsForgotten(t *testing.T) {
	c := testConfig(t)
	if err := os.MkdirAll(c.dataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	s := state{Version: 1, Boot: "another", Etcd: 21000, Generation: 7, Current: &process{ID: proc.ID{PID: 1}}}
	if err := s.save(c); err != nil {
		t.Fatal(err)
	}
	got, err := loadState(c)
	if err != nil || got.Current != nil || got.Generation != 7 || got.Etcd != 21000 {
		t.Errorf("%+v %v", got, err)
	}
	got.Current = &process{ID: proc.ID{PID: 5, Start: 6}, Ports: map[string]int{"web": 21001}}
	if err := got.save(c); err != nil {
		t.Fatal(err)
	}
	if again, err := loadState(c); err != nil || again.Current == nil || again.Current.Start != 6 {
		t.Errorf("%+v %v", again, err)
	}
}

func TestPrivateKeysStayInMemory(t *testing.T) {
	c := testConfig(t)
	c.RunDir = mustTemp(t, "/var/tmp") // a disk, wherever TMPDIR points
	err := WriteCertificates(c, []Cert{{Name: "x", CertPEM: []byte("c"), KeyPEM: cluster.NewSecret([]byte("k"))}})
	if err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("a key for a directory that is not tmpfs: %v", err)
	}
	if err := WriteCertificates(c, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := certificatesFile.shown(c); !ok {
		t.Error("no marker")
	}
	list := UserList{ID: "basicauth-0123456789abcdef", Auth: cluster.Auth{Kind: cluster.BasicAuth, Users: []string{"ann:x"}}}
	if err := WriteUserLists(c, []UserList{list}); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("users for a directory that is not tmpfs: %v", err)
	}
}

// Traefik runs its files as templates before it reads them: what a user wrote is none.
func TestUserListsAreNoTemplates(t *testing.T) {
	c := testConfig(t)
	for _, realm := range []string{"{{.Service.Name}}", "{{{ env `HOME` }}}", "{{", "a { b {} {", "}}"} {
		if err := usersFile.write(c, nil, object{"users": object{"basicAuth": object{"realm": realm}}}, false); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(usersFile.path(c))
		if err != nil {
			t.Fatal(err)
		}
		var read bytes.Buffer
		run, err := template.New("users").Parse(string(b))
		if err == nil {
			err = run.Execute(&read, false)
		}
		var got struct {
			HTTP struct {
				Middlewares map[string]struct {
					BasicAuth struct{ Realm string }
				}
			}
		}
		if err == nil {
			err = yaml.Unmarshal(read.Bytes(), &got)
		}
		if err != nil || got.HTTP.Middlewares["users"].BasicAuth.Realm != realm {
			t.Errorf("%q: %+v, %v", realm, got, err)
		}
	}
}

func mustTemp(t *testing.T, under string) string {
	t.Helper()
	dir, err := os.MkdirTemp(under, "fairlead-test-") //nolint:usetesting // under a directory of its own choice
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A program that had a port and ended leaves connections that linger: the port is
// free all the same.
func TestPortWithLingeringConnectionsIsHeld(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	var d net.Dialer
	for range 3 {
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close() // who closes first lingers
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("it is still open")
		}
		_ = c.Close()
	}
	_ = l.Close()
	h, err := holdPort("tcp", l.Addr().(*net.TCPAddr).Port, "publish another port")
	if err != nil {
		t.Fatal(err)
	}
	defer h.release()
	if _, err := lc.Listen(t.Context(), "tcp", addr); err == nil {
		t.Error("another program takes the held port")
	}
	// Nothing is accepted, and nothing refused: who asks asks again.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
		_ = c.Close()
		t.Error("a held port accepts connections")
	} else if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a held port refuses: %v", err)
	}
}
