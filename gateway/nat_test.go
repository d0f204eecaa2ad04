package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"sigs.k8s.io/knftables"

	"github.com/fairlead/fairlead/proc"
)

type fakeNFT struct {
	*knftables.Fake
	refuses bool
	before  func()
}

func (f *fakeNFT) Run(ctx context.Context, tx *knftables.Transaction) error {
	if f.before != nil {
		f.before()
	}
	if f.refuses {
		return errors.New("nft says no")
	}
	return f.Fake.Run(ctx, tx)
}

// natGateway is a gateway whose Traefik is a program that only says that it ran.
func natGateway(t *testing.T) (g *Gateway, nft *fakeNFT, ran string) {
	t.Helper()
	cfg := testConfig(t)
	for _, dir := range []string{cfg.dataDir(), cfg.runDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	g, err := New(cfg, &acks{}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	ran = filepath.Join(t.TempDir(), "ran")
	path := filepath.Join(t.TempDir(), "traefik")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho > "+ran+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	nft = &fakeNFT{Fake: knftables.NewFake(knftables.InetFamily, cfg.tableName())}
	g.nat, g.tree, g.program = &nat{nft: nft, cfg: g.cfg}, newTree(1), program{path: path, id: proc.FileID(path)}
	g.state.Etcd, g.wants = 21999, []string{EntryWeb}
	return g, nft, ran
}

// A Traefik's ports are closed to everyone before it listens on them.
func TestPortsAreClosedBeforeTraefikStarts(t *testing.T) {
	g, nft, ran := natGateway(t)
	nft.refuses = true
	if _, _, err := g.start(t.Context()); err == nil {
		t.Error("it starts a Traefik whose ports it cannot close")
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("Traefik ran with its ports open")
	}
	nft.refuses = false
	p, _, err := g.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dump := nft.Dump()
	for e, port := range p.Ports {
		if !strings.Contains(dump, strconv.Itoa(port)) {
			t.Errorf("the port of %s, %d, is open:\n%s", e, port, dump)
		}
	}
	for _, want := range []string{"drop", "21999", strconv.Itoa(p.APIPort)} {
		if !strings.Contains(dump, want) {
			t.Errorf("no %s in\n%s", want, dump)
		}
	}
	// A replacement's rules leave the public ports where they are.
	g.state.Current = p
	if err := g.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	maps := func() string { return lines(nft.Dump(), "dnat to") }
	before := maps()
	next, _, err := g.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before == "" || before != maps() {
		t.Errorf("the map of the public ports was\n%s\nand is\n%s", before, maps())
	}
	if d := lines(nft.Dump(), "dport {"); !strings.Contains(d, strconv.Itoa(next.Ports[EntryWeb])) || !strings.Contains(d, strconv.Itoa(p.Ports[EntryWeb])) {
		t.Errorf("the ports of the old and the new Traefik are not both closed:\n%s", d)
	}
}

func lines(s, with string) string {
	var out []string
	for l := range strings.Lines(s) {
		if strings.Contains(l, with) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "")
}

// Rules that another program removed come back.
func TestTheMapOfThePortsIsWrittenAgain(t *testing.T) {
	g, nft, _ := natGateway(t)
	g.state.Current = &process{Generation: 1, Ports: map[string]int{EntryWeb: 21001}, APIPort: 21000}
	if err := g.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	wrote := nft.LastTransaction
	if g.keepMapped(t.Context()); nft.LastTransaction != wrote {
		t.Error("it writes again what is there")
	}
	spoil := func(o knftables.Object, what func(*knftables.Transaction, knftables.Object)) {
		t.Helper()
		tx := nft.NewTransaction()
		what(tx, o)
		if err := nft.Run(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		g.keepMapped(t.Context())
		if d := nft.Dump(); !strings.Contains(d, "dnat to :21001") || !strings.Contains(d, "reject") {
			t.Errorf("the rules did not come back:\n%s", d)
		}
	}
	spoil(&knftables.Table{}, (*knftables.Transaction).Delete)
	spoil(&knftables.Chain{Name: chainIn}, (*knftables.Transaction).Flush)
	spoil(&knftables.Chain{Name: chainLocal}, (*knftables.Transaction).Flush)
}

// A Fairlead may be killed as soon as the ports are mapped: the next one must know
// the Traefik that serves, or it would end it before there is another.
func TestTheStateIsKeptBeforeThePortsAreMapped(t *testing.T) {
	g, nft, _ := natGateway(t)
	var err error
	if g.state, err = loadState(g.cfg); err != nil {
		t.Fatal(err)
	}
	g.state.Current = &process{ID: proc.ID{PID: 42}, Generation: 1, Ports: map[string]int{EntryWeb: 21001}, APIPort: 21000}
	known := 0
	nft.before = func() {
		if s, err := loadState(g.cfg); err == nil && s.Current != nil {
			known = s.Current.PID
		}
	}
	if err := g.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if known != 42 {
		t.Errorf("as the ports are mapped, the state names Traefik %d, not 42", known)
	}
}

// A published port that goes and comes back is unmapped and mapped: another Traefik
// would end the connections to all other ports.
func TestPortsComeAndGoWithoutAnotherTraefik(t *testing.T) {
	g, nft, _ := natGateway(t)
	var l net.ListenConfig
	busy, err := l.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := busy.Addr().(*net.TCPAddr).Port
	_ = busy.Close()
	tcp, udp := "tcp-"+strconv.Itoa(port), "udp-"+strconv.Itoa(port)
	router := func(e string) string {
		proto, _, _ := strings.Cut(e, "-")
		return treeRoot + "/" + proto + "/routers/a_b-" + e + "/entryPoints/0"
	}
	g.tree.apply(false, map[string][]byte{router(tcp): []byte(tcp), router(udp): []byte(udp)}, nil)
	want, err := g.layout()
	if err != nil || len(want.Entries) != 5 {
		t.Fatalf("%v, %v", want, err)
	}
	t.Cleanup(func() {
		for _, h := range g.holds {
			h.release()
		}
	})
	ports := map[string]int{}
	for i, e := range want.Entries {
		ports[e] = 21001 + i
	}
	p := &process{Generation: 1, Layout: want, Ports: ports, APIPort: 21000, Program: g.program.path, ProgramID: g.program.id}
	g.state.Current = p
	shows := func(mapped ...string) {
		t.Helper()
		g.adjust(t.Context())
		if g.state.Current != p || len(g.state.Old) > 0 {
			t.Fatal("Traefik was replaced")
		}
		for _, e := range []string{EntryWeb, tcp, udp} {
			is := strings.Contains(nft.Dump(), "dnat to :"+strconv.Itoa(ports[e]))
			if want := e == EntryWeb || slices.Contains(mapped, e); is != want || slices.Contains(g.entries, e) != want {
				t.Errorf("%s is mapped: %v, acknowledged: %v; not %v", e, is, g.entries, want)
			}
			if held := g.holds[e] != nil; e != EntryWeb && held != slices.Contains(mapped, e) {
				t.Errorf("%s is held: %v", e, held)
			}
		}
	}
	shows(tcp, udp)
	g.tree.apply(false, nil, []string{router(udp)})
	shows(tcp)
	// Nobody keeps the port from another program, which then has it.
	pc, err := l.ListenPacket(t.Context(), "udp", ":"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	g.tree.apply(false, map[string][]byte{router(udp): []byte(udp)}, nil)
	shows(tcp)
	if g.refused[udp] == "" {
		t.Error("a port that another program took is not named")
	}
	_ = pc.Close()
	shows(tcp, udp)
	g.tree.apply(false, nil, []string{router(udp), router(tcp)})
	shows()
}

func TestUnpublishedUDPPortsOfAllProcesses(t *testing.T) {
	old := &process{Ports: map[string]int{"udp-53": 1, "tcp-53": 2, "udp-54": 3}}
	now := &process{Ports: map[string]int{"udp-53": 11, "tcp-53": 12, "udp-54": 13}}
	got := unpublished(map[string]int{"web": 9, "udp-53": 11, "tcp-53": 12, "udp-54": 13}, map[string]int{"web": 19, "udp-54": 23}, []*process{now, old})
	if slices.Sort(got); !slices.Equal(got, []int{1, 11}) {
		t.Errorf("%v", got)
	}
}

func TestCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		drained     time.Duration
		deaf, after int
		want        bool
	}{
		"long connections":    {23 * time.Hour, 2, maxReplaced - 1, false},
		"a day":               {longestDrain + 1, 0, 0, true},
		"deaf":                {time.Minute, 3, 0, true},
		"many replaced since": {time.Minute, 0, maxReplaced, true},
	} {
		if cutOff(c.drained, c.deaf, c.after) != c.want {
			t.Errorf("%s: not %v", name, c.want)
		}
	}
}

func TestReplacedAfter(t *testing.T) {
	g, _, _ := natGateway(t)
	ended := make(chan struct{})
	close(ended)
	p := func(generation int, exited <-chan struct{}) *process {
		return &process{Generation: generation, exited: exited}
	}
	g.serving = []*process{p(7, nil), p(2, nil), p(3, nil), p(4, ended), p(6, nil)}
	for generation, want := range map[int]int{2: 2, 3: 1, 6: 0} {
		if got := g.replacedAfter(p(generation, nil)); got != want {
			t.Errorf("after generation %d: %d, not %d", generation, got, want)
		}
	}
}

func TestAProcessThatEndedLeavesNoFiles(t *testing.T) {
	g, _, _ := natGateway(t)
	p := &process{Generation: 1}
	other := (&process{Generation: 12}).logFile(g.cfg)
	full := strings.TrimSuffix(p.logFile(g.cfg), ".log") + "-2026-12-01T10-00-00.000.log"
	for _, f := range []string{p.logFile(g.cfg), full, other} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g.clean(p)
	left, err := filepath.Glob(filepath.Join(g.cfg.dataDir(), "traefik-*"))
	if err != nil || !slices.Equal(left, []string{other}) {
		t.Errorf("left: %v, %v", left, err)
	}
}
