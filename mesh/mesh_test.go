//go:build linux

package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"
	"sigs.k8s.io/knftables"

	"github.com/fairlead/fairlead/cluster"
)

// fakeNFT is knftables' own fake, which refuses what the kernel would refuse,
// with transactions that fail when told to.
type fakeNFT struct {
	*knftables.Fake
	mu   sync.Mutex
	fail int
	runs int
	last string // the last transaction
}

func newFake() *fakeNFT {
	return &fakeNFT{Fake: knftables.NewFake(knftables.IPv4Family, TableName("c1"))}
}

func (f *fakeNFT) Run(ctx context.Context, tx *knftables.Transaction) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs++
	f.last = tx.String()
	if f.fail > 0 {
		f.fail--
		return errors.New("nft says no")
	}
	return f.Fake.Run(ctx, tx)
}

type fakeHost struct {
	self    netip.Addr
	peers   []Peer
	away    error // what reach says
	called  []netip.Prefix
	flows   []flow
	bridges error
	routes  map[string][]route
	gateway netip.Addr
	deleted chan struct{} // tells that rules were deleted
	ways    map[cluster.NodeID]outcome
	tried   map[cluster.NodeID]trial
}

func (h *fakeHost) filterBridges() error     { return h.bridges }
func (h *fakeHost) hairpin(_ []string) error { return nil }
func (h *fakeHost) reach(self netip.Addr, peers []Peer, own []netip.Prefix) error {
	h.self, h.peers, h.called = self, peers, own
	return h.away
}

func (h *fakeHost) try(_ context.Context, all map[cluster.NodeID]trial) (map[cluster.NodeID]outcome, error) {
	h.tried = all
	return h.ways, nil
}

func (h *fakeHost) dropFlows(to []netip.Addr, gone func(flow) bool) error {
	h.flows = slices.DeleteFunc(h.flows, func(f flow) bool {
		return (len(to) == 0 || slices.Contains(to, f.to)) && gone(f)
	})
	return nil
}

func (h *fakeHost) deletions(ctx context.Context, told func()) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.deleted:
			told()
		}
	}
}

func (h *fakeHost) setRoutes(ns string, plan func(netip.Addr) []route) error {
	if ns == "gone" {
		return errors.New("no such namespace")
	}
	if h.routes == nil {
		h.routes = map[string][]route{}
	}
	h.routes[ns] = plan(h.gateway)
	return nil
}

// world is what a mesh watches.
type world struct {
	mu      sync.Mutex
	eps     []cluster.Endpoints
	rev     cluster.StoreRev
	changed chan struct{}
	acks    []cluster.StoreRev
}

func (w *world) set(rev cluster.StoreRev, eps ...cluster.Endpoints) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.eps, w.rev = eps, rev
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) config() Config {
	return Config{
		Cluster: "c1", Services: DefaultServices, Log: hclog.NewNullLogger(), PrivatePorts: []uint16{2379, 2379, 80},
		Endpoints: func() ([]cluster.Endpoints, cluster.StoreRev) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.eps, w.rev
		},
		Changed: func() <-chan struct{} {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.changed
		},
		Applied: func(r cluster.StoreRev) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.acks = append(w.acks, r)
		},
	}
}

func (w *world) reported() []cluster.StoreRev {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acks)
}

// ready makes a mesh whose Run has begun.
func ready(cfg Config, nft knftables.Interface, h host) *Mesh {
	m := newMesh(cfg, nft, h)
	m.running = true
	return m
}

func newWorld() *world { return &world{rev: 1, changed: make(chan struct{})} }

// TestChangesEndAtTheWholeTable: any sequence of changes leaves the kernel with
// exactly what writing the last state from nothing would leave.
func TestChangesEndAtTheWholeTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, nft := newWorld(), newFake()
		m := ready(w.config(), nft, &fakeHost{})
		eps, nets := drawState(rt, "")
		for range rapid.IntRange(1, 5).Draw(rt, "steps") {
			if rapid.IntRange(0, 3).Draw(rt, "anew") == 0 {
				eps, nets = drawState(rt, "")
			} else { // one task less here and there, as in a rollout
				eps = slices.Clone(eps)
				for i := range eps {
					if len(eps[i].Tasks) > 0 && rapid.Bool().Draw(rt, "less") {
						eps[i].Tasks = eps[i].Tasks[1:]
					}
				}
			}
			w.set(w.rev+1, eps...)
			nft.fail = rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "fail")
			first := m.applied == nil
			if err := m.SetNetworks(t.Context(), nets); err != nil && !first {
				rt.Fatal("one failure must be made good by writing the whole table:", err)
			}
		}
		nft.fail = 0
		if err := m.SetNetworks(t.Context(), m.networks); err != nil {
			rt.Fatal(err)
		}
		fresh := newFake()
		if err := ready(w.config(), fresh, &fakeHost{}).SetNetworks(t.Context(), m.networks); err != nil {
			rt.Fatal(err)
		}
		if got, want := sorted(nft.Dump()), sorted(fresh.Dump()); got != want {
			rt.Fatalf("after changes:\n%s\nfrom nothing:\n%s", got, want)
		}
		before := nft.runs
		if err := m.SetNetworks(t.Context(), m.networks); err != nil || nft.runs != before {
			rt.Fatalf("no change, yet nft ran (%v)", err)
		}
	})
}

// The whole table is written over what is there, whatever that is: what is to stay in
// a set of intervals is never out of it, and what is new is in it before the rules.
func TestTheWholeTableIsWrittenOverAnother(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, nft := newWorld(), newFake()
		eps, nets := drawState(rt, "before ")
		w.set(2, eps...)
		if err := ready(w.config(), nft, &fakeHost{}).SetNetworks(t.Context(), nets); err != nil {
			rt.Fatal(err)
		}
		if rapid.Bool().Draw(rt, "others wrote into it") {
			tx := nft.NewTransaction()
			tx.Add(&knftables.Map{Name: "theirs", Type: "ipv4_addr : verdict"})
			tx.Add(&knftables.Set{Name: "their", Type: "ipv4_addr"})
			tx.Add(&knftables.Chain{Name: "their-chain"})
			tx.Add(&knftables.Rule{Chain: "their-chain", Rule: "ip saddr @their drop"})
			tx.Add(&knftables.Rule{Chain: chainForward, Rule: "drop"})
			tx.Add(&knftables.Element{Map: "theirs", Key: []string{"192.0.2.1"}, Value: []string{"goto their-chain"}})
			tx.Add(&knftables.Element{Set: setOwn, Key: []string{"theirs", "192.0.2.1/32"}})
			if err := nft.Run(t.Context(), tx); err != nil {
				rt.Fatal(err)
			}
		}
		eps, nets = drawState(rt, "after ")
		w.set(3, eps...)
		if err := ready(w.config(), nft, &fakeHost{}).SetNetworks(t.Context(), nets); err != nil {
			rt.Fatal(err)
		}
		for line := range strings.Lines(nft.last) {
			f := strings.Fields(line)
			if f[0] == "delete" && f[1] == "table" || f[0] == "add" && f[1] == "element" && isInterval(f[4]) {
				rt.Errorf("with the rules: %s", line)
			}
		}
		fresh := newFake()
		if err := ready(w.config(), fresh, &fakeHost{}).SetNetworks(t.Context(), nets); err != nil {
			rt.Fatal(err)
		}
		if got, want := sorted(nft.Dump()), sorted(fresh.Dump()); got != want {
			rt.Fatalf("written over another:\n%s\nfrom nothing:\n%s", got, want)
		}
	})
}

// sorted forgets the order of elements, which has no meaning.
func sorted(dump string) string {
	lines := strings.Split(dump, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestReportsWhatTheKernelServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nft := newWorld(), newFake()
		one := service("api", "10.212.0.1", []cluster.NetworkName{front.Name}, at(1, "10.213.1.5"))
		w.set(7, one)
		nft.fail = 3 // nothing may be reported before it is written
		m := newMesh(w.config(), nft, &fakeHost{})
		m.networksKnown = true
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		if len(w.reported()) != 0 {
			t.Fatalf("reported %v while nft fails", w.reported())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !slices.Equal(w.reported(), []cluster.StoreRev{7}) {
			t.Fatalf("reported %v, want 7", w.reported())
		}
		w.set(8, one) // something else in the store changed: nothing to report
		synctest.Wait()
		two := one
		two.Rev = 9
		w.set(9, two) // the endpoints changed, if only in what this node does not serve
		synctest.Wait()
		w.set(12) // the service is gone
		synctest.Wait()
		if !slices.Equal(w.reported(), []cluster.StoreRev{7, 9, 12}) {
			t.Fatalf("reported %v, want 7, 9 and 12", w.reported())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// Services that get one more task again and again are written now and then; a task
// that is lost, or a service's first, is written at once.
func TestMoreTasksAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nft := newWorld(), newFake()
		api := func(tasks ...cluster.Endpoint) cluster.Endpoints {
			return service("api", "10.212.0.1", []cluster.NetworkName{front.Name}, tasks...)
		}
		w.set(7, api())
		m := newMesh(w.config(), nft, &fakeHost{})
		m.networks, m.networksKnown = []Network{front}, true
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()

		runs := func() int {
			synctest.Wait()
			nft.mu.Lock()
			defer nft.mu.Unlock()
			return nft.runs
		}
		tasks := []cluster.Endpoint{at(1, "10.213.1.5")}
		before := runs()
		w.set(8, api(tasks...))
		if n := runs() - before; n != 1 {
			t.Errorf("a service's first task: %d transactions, want 1 at once", n)
		}
		before = runs()
		for i := range 10 {
			tasks = append(tasks, at(i+2, fmt.Sprintf("10.213.1.%d", 10+i)))
			w.set(cluster.StoreRev(10+i), api(tasks...))
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(gatherFor)
		if n := runs() - before; n < 2 || n > 4 {
			t.Errorf("ten more tasks in half a second: %d transactions, want 3", n)
		}
		before = runs()
		w.set(30, api(append(tasks, at(99, "10.213.1.99"))...))
		if n := runs() - before; n != 0 {
			t.Errorf("one more task: %d transactions at once", n)
		}
		w.set(31, api(append(tasks[1:], at(99, "10.213.1.99"))...))
		if n := runs() - before; n != 1 {
			t.Errorf("one task more and one lost: %d transactions, want 1 at once", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// TestRestartLeavesTheTableAlone: until the endpoints are known, what an earlier
// process wrote goes on serving.
func TestRestartLeavesTheTableAlone(t *testing.T) {
	w, nft := newWorld(), newFake()
	w.set(1, service("api", "10.212.0.1", []cluster.NetworkName{front.Name}, at(1, "10.213.1.5")))
	if err := ready(w.config(), nft, &fakeHost{}).SetNetworks(t.Context(), []Network{front}); err != nil {
		t.Fatal(err)
	}
	before, runs := nft.Dump(), nft.runs
	w.set(0)
	again := newMesh(w.config(), nft, &fakeHost{})
	for range 2 { // before Run, and within it
		if err := again.SetNetworks(t.Context(), []Network{front}); err != nil {
			t.Fatal(err)
		}
		if err := again.Attach(t.Context(), Container{Task: "t1", Netns: "gone"}); err != nil {
			t.Fatal(err)
		}
		again.running = true
	}
	if nft.Dump() != before || nft.runs != runs || len(w.reported()) != 1 {
		t.Errorf("the table changed, or a revision was reported: %v\n%s", w.reported(), nft.Dump())
	}
}

func TestUDPFlowsToLostTasksAreDropped(t *testing.T) {
	w, nft := newWorld(), newFake()
	vip, lost, kept := netip.MustParseAddr("10.212.0.1"), netip.MustParseAddr("10.213.1.5"), netip.MustParseAddr("10.213.1.6")
	caller, stranger := netip.MustParseAddr("10.213.1.9"), netip.MustParseAddr("10.213.77.9")
	elsewhere := netip.MustParseAddr("192.0.2.1")
	h := &fakeHost{flows: []flow{
		{caller, vip, lost}, {caller, vip, kept}, {stranger, vip, lost}, {caller, elsewhere, elsewhere},
	}}
	m := ready(w.config(), nft, h)
	nets := []cluster.NetworkName{front.Name}
	w.set(1, service("api", vip.String(), nets, at(1, lost.String()), at(2, kept.String())))
	if err := m.SetNetworks(t.Context(), []Network{front}); err != nil || len(h.flows) != 4 {
		t.Fatalf("%v; flows %v", err, h.flows)
	}
	w.set(2, service("api", vip.String(), nets, at(2, kept.String())))
	if err := m.SetNetworks(t.Context(), []Network{front}); err != nil {
		t.Fatal(err)
	}
	// Another cluster on this machine may use the same addresses: its flows stay.
	if want := []flow{{caller, vip, kept}, {stranger, vip, lost}, {caller, elsewhere, elsewhere}}; !slices.Equal(h.flows, want) {
		t.Errorf("flows %v, want %v", h.flows, want)
	}
}

func TestWithoutBridgeFilterCallersAreHidden(t *testing.T) {
	for _, broken := range []bool{false, true} {
		w, nft, h := newWorld(), newFake(), &fakeHost{}
		if broken {
			h.bridges = errors.New("no module")
		}
		m := ready(w.config(), nft, h)
		if err := m.SetNetworks(t.Context(), []Network{front}); err != nil {
			t.Fatal(err)
		}
		rules, err := nft.ListRules(t.Context(), chainPostrouting)
		if err != nil || len(rules) != 3 {
			t.Fatal(rules, err)
		}
		want := "ip saddr . ip daddr @hairpin masquerade"
		if broken {
			want = "iifname @bridges ct original ip daddr 10.212.0.0/16 masquerade"
		}
		if rules[0].Rule != want {
			t.Errorf("broken %v: %s", broken, rules[0].Rule)
		}
	}
}

// What another program switches off is switched on again at the next look, and told of
// where it cannot be.
func TestBridgeFilterIsKept(t *testing.T) {
	h := &fakeHost{}
	var log bytes.Buffer
	m := newMesh(Config{Log: hclog.New(&hclog.LoggerOptions{Output: &log})}, nil, h)
	m.keepFiltering()
	if log.Len() > 0 {
		t.Errorf("it says %s", &log)
	}
	h.bridges = errors.New("no such file")
	m.keepFiltering()
	h.bridges = nil
	m.keepFiltering()
	m.keepFiltering()
	if s := log.String(); strings.Count(s, "do not pass") != 1 || strings.Count(s, "pass address translation again") != 1 {
		t.Errorf("it says %s", s)
	}
	hidden := newMesh(Config{Log: hclog.NewNullLogger()}, nil, &fakeHost{bridges: errors.New("no such file")})
	hidden.keepFiltering() // which was said at the start
}

func TestAttach(t *testing.T) {
	w, nft, h := newWorld(), newFake(), &fakeHost{gateway: front.Gateway}
	m := ready(w.config(), nft, h)
	vip := netip.MustParseAddr("10.212.0.1")
	w.set(1, service("db", vip.String(), []cluster.NetworkName{back.Name}))
	if err := m.SetNetworks(t.Context(), []Network{front, back}); err != nil {
		t.Fatal(err)
	}
	both := []cluster.NetworkName{front.Name, back.Name}
	if err := m.Attach(t.Context(), Container{Task: "t1", Netns: "ns1", Networks: both}); err != nil {
		t.Fatal(err)
	}
	if want := []route{{vip, back.Gateway}}; !slices.Equal(h.routes["ns1"], want) {
		t.Errorf("routes %v", h.routes["ns1"])
	}
	err := m.Attach(t.Context(), Container{Task: "t2", Netns: "gone", Networks: both})
	if cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("a namespace that is gone: %v", err)
	}
	// A new service reaches containers that run; one that is gone holds up nobody.
	second := netip.MustParseAddr("10.212.0.2")
	w.set(2, service("db", vip.String(), []cluster.NetworkName{back.Name}), service("mq", second.String(), []cluster.NetworkName{back.Name}))
	if err := m.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []route{{vip, back.Gateway}, {second, back.Gateway}}; !slices.Equal(h.routes["ns1"], want) {
		t.Errorf("routes %v", h.routes["ns1"])
	}
	m.Detach("t1")
	h.routes = nil
	if err := m.Resync(t.Context()); err != nil || h.routes["ns1"] != nil {
		t.Errorf("%v; a detached container got %v", err, h.routes["ns1"])
	}
}

func TestPrivatePortsRule(t *testing.T) {
	w, nft := newWorld(), newFake()
	if err := ready(w.config(), nft, &fakeHost{}).SetNetworks(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	rules, err := nft.ListRules(t.Context(), chainInput)
	if err != nil || len(rules) != 1 || rules[0].Rule != "iifname @bridges tcp dport { 80, 2379 } reject with tcp reset" {
		t.Errorf("%v %v", rules, err)
	}
}

// After a restart the rules of the process before serve on until all is known that
// they were made of.
func TestNothingIsWrittenBeforeAllIsTold(t *testing.T) {
	w, nft := newWorld(), newFake()
	w.set(1, service("api", "10.212.0.1", []cluster.NetworkName{front.Name}, at(1, "10.213.1.5")))
	cfg := w.config()
	cfg.Peers = true
	m := newMesh(cfg, nft, &fakeHost{})
	m.running = true
	for _, tell := range []func() error{
		func() error { return nil },
		func() error { return m.SetPeers(t.Context(), netip.Addr{}, nil) },
	} {
		if err := errors.Join(tell(), m.Resync(t.Context())); err != nil || len(w.reported()) != 0 {
			t.Fatalf("written before the networks are known: %v, %v", err, w.reported())
		}
	}
	if err := m.SetNetworks(t.Context(), []Network{front}); err != nil || len(w.reported()) != 1 {
		t.Errorf("not written once all is known: %v, %v", err, w.reported())
	}
	m = newMesh(cfg, nft, &fakeHost{})
	m.running = true
	if err := m.SetNetworks(t.Context(), []Network{front}); err != nil || m.applied != nil {
		t.Errorf("written before the peers are known: %v", err)
	}
}

func TestClusterIDMustNameATable(t *testing.T) {
	if _, err := New(Config{Cluster: "a b; flush ruleset"}); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("got %v", err)
	}
}

// A firewall that is loaded anew flushes every table; ours comes back.
func TestATableThatIsGoneComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nft := newWorld(), newFake()
		w.set(1, service("api", "10.212.0.1", []cluster.NetworkName{front.Name}))
		h := &fakeHost{deleted: make(chan struct{})}
		m := newMesh(w.config(), nft, h)
		m.networksKnown = true
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = m.Run(ctx)
		}()
		synctest.Wait()
		before := nft.Dump()
		h.deleted <- struct{}{} // of another table
		time.Sleep(3 * lookEvery)
		synctest.Wait()
		if nft.runs != 1 {
			t.Errorf("%d writes while nothing was wrong", nft.runs-1)
		}
		for i, what := range []func(*knftables.Transaction){
			func(tx *knftables.Transaction) { tx.Delete(&knftables.Table{}) },
			func(tx *knftables.Transaction) { tx.Flush(&knftables.Table{}) },
			func(tx *knftables.Transaction) { tx.Delete(&knftables.Table{}) },
		} {
			tx := nft.NewTransaction()
			what(tx)
			if err := nft.Run(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			if i < 2 { // told at once, else seen at the next look
				h.deleted <- struct{}{}
			} else {
				time.Sleep(lookEvery + time.Second)
			}
			synctest.Wait()
			if got := nft.Dump(); got != before {
				t.Errorf("the kernel has\n%s\nnot\n%s", got, before)
			}
		}
		cancel()
		<-done
	})
}

// A machine without nft gets its service addresses once it is installed.
func TestNftMayComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nft, missing := newWorld(), newFake(), true
		w.set(1, service("api", "10.212.0.1", []cluster.NetworkName{front.Name}))
		m := newMesh(w.config(), nil, &fakeHost{})
		m.networksKnown = true
		m.open = func() (knftables.Interface, error) {
			if missing {
				return nil, errors.New("no nft")
			}
			return nft, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = m.Run(ctx)
		}()
		time.Sleep(time.Minute)
		if len(w.reported()) != 0 {
			t.Error("it serves without nft")
		}
		m.mu.Lock()
		missing = false
		m.mu.Unlock()
		time.Sleep(2 * maxBackoff)
		synctest.Wait()
		if len(w.reported()) != 1 || nft.runs != 1 {
			t.Errorf("reported %v after %d writes", w.reported(), nft.runs)
		}
		cancel()
		<-done
	})
}
