package gateway

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
	g.state.Etcd = 21999
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
