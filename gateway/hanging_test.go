package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func server(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 213, 0, byte(n)}), 80)
}

func TestPlanOfDials(t *testing.T) {
	a, b, c := server(1), server(2), server(3)
	now := time.Unix(1000, 0)
	old, young := now.Add(-hangingAfter), now.Add(-hangingAfter+time.Millisecond)
	two := map[string][]netip.AddrPort{"s": {a, b}}
	type list = []netip.AddrPort
	for name, tt := range map[string]struct {
		since    map[dial]time.Time
		refused  list
		services map[string]list
		add, del list
	}{
		"nothing hangs":                              {services: two},
		"one hangs":                                  {since: map[dial]time.Time{{a, 1}: old}, services: two, add: list{a}},
		"not for long enough":                        {since: map[dial]time.Time{{a, 1}: young, {a, 2}: young}, services: two},
		"it is refused already":                      {since: map[dial]time.Time{{a, 1}: old}, refused: list{a}, services: two},
		"the only server":                            {since: map[dial]time.Time{{a, 1}: old}, services: map[string]list{"s": {a}}},
		"a server twice in the list":                 {since: map[dial]time.Time{{a, 1}: old}, services: map[string]list{"s": {a, a}}},
		"all hang":                                   {since: map[dial]time.Time{{a, 1}: old, {b, 2}: old}, services: two},
		"the last one hangs too":                     {since: map[dial]time.Time{{b, 1}: old}, refused: list{a}, services: two, del: list{a}},
		"the others are gone":                        {refused: list{a}, services: map[string]list{"s": {a}}, del: list{a}},
		"it is gone itself":                          {refused: list{a}, services: map[string]list{"s": {b, c}}, del: list{a}},
		"two of three":                               {since: map[dial]time.Time{{b, 1}: old, {a, 2}: old}, services: map[string]list{"s": {a, b, c}}, add: list{a, b}},
		"no server of ours":                          {since: map[dial]time.Time{{c, 1}: old}, services: two},
		"of two services, the only one of one":       {since: map[dial]time.Time{{a, 1}: old}, services: map[string]list{"s": {a, b}, "t": {a}}},
		"of two services, beside others in both":     {since: map[dial]time.Time{{a, 1}: old}, services: map[string]list{"s": {a, b}, "t": {a, c}}, add: list{a}},
		"of two services, in one of which all hang":  {since: map[dial]time.Time{{a, 1}: old, {b, 2}: old}, services: map[string]list{"s": {a, b}, "t": {a, c}}},
		"beside one that cannot be looked at (IPv6)": {since: map[dial]time.Time{{a, 1}: old}, services: map[string]list{"s": {a, {}}}, add: list{a}},
	} {
		d := dials{since: tt.since, refused: map[netip.AddrPort]time.Time{}}
		for _, r := range tt.refused {
			d.refused[r] = now.Add(time.Second)
		}
		add, del := d.plan(now, tt.services)
		if !slices.Equal(add, tt.add) || !slices.Equal(del, tt.del) {
			t.Errorf("%s: refuses %v and not %v, want %v and %v", name, add, del, tt.add, tt.del)
		}
	}
}

// fleet is servers as a gateway meets them: some answer each dial, some none.
type fleet struct {
	dials

	services map[string][]netip.AddrPort
	deaf     map[netip.AddrPort]bool
	under    map[dial]time.Time // started; those to deaf servers last a second
	next     uint64
	now      time.Time
}

// step is one look: what is refused is not dialled, all else is.
func (f *fleet) step(pause time.Duration, perServer int) {
	f.now = f.now.Add(pause)
	maps.DeleteFunc(f.under, func(d dial, t time.Time) bool { return f.deaf[d.to] && f.now.Sub(t) >= time.Second })
	f.see(f.now, slices.Collect(maps.Keys(f.under)))
	maps.DeleteFunc(f.under, func(d dial, _ time.Time) bool { return !f.deaf[d.to] }) // seen once, on their way
	add, del := f.plan(f.now, f.services)
	f.changed(f.now.Add(refuseFor), add, del)
	for _, servers := range f.services {
		for _, a := range servers {
			if _, is := f.refused[a]; a.IsValid() && !is {
				for range perServer {
					f.next++
					f.under[dial{a, f.next}] = f.now
				}
			}
		}
	}
}

// left returns the services that have no server left to ask.
func (f *fleet) left() (none []string) {
	for name, servers := range f.services {
		if !slices.ContainsFunc(servers, func(a netip.AddrPort) bool { _, is := f.refused[a]; return !is }) {
			none = append(none, name)
		}
	}
	return none
}

// Whatever hangs, answers, comes and goes, each service has a server that is not
// refused, none that answers is refused for longer than a mark lasts, and one that
// hangs beside others that answer is refused before long.
func TestDialsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{deaf: map[netip.AddrPort]bool{}, under: map[dial]time.Time{}, now: time.Unix(1000, 0)}
		draw := func() {
			f.services = map[string][]netip.AddrPort{}
			for i := range rapid.IntRange(1, 4).Draw(t, "services") {
				f.services[fmt.Sprint(i)] = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) netip.AddrPort {
					return server(rapid.IntRange(1, 6).Draw(t, "server"))
				}), 1, 4, rapid.ID[netip.AddrPort]).Draw(t, "servers")
			}
		}
		draw()
		answers, hangs := map[netip.AddrPort]time.Time{}, map[netip.AddrPort]time.Time{}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				draw()
				clear(hangs)
			case 1:
				a := server(rapid.IntRange(1, 6).Draw(t, "which"))
				f.deaf[a] = !f.deaf[a]
				clear(hangs)
				delete(answers, a)
			}
			f.step(time.Duration(rapid.IntRange(200, 300).Draw(t, "ms"))*time.Millisecond, rapid.IntRange(1, 20).Draw(t, "dials"))
			if none := f.left(); len(none) > 0 {
				t.Fatalf("all servers of %v are refused: %v", none, f.refused)
			}
			for i := range 6 {
				a := server(i + 1)
				_, is := f.refused[a]
				if f.deaf[a] {
					delete(answers, a)
				} else if _, ok := answers[a]; !ok {
					answers[a] = f.now
				}
				if is && !f.deaf[a] && f.now.Sub(answers[a]) > refuseFor {
					t.Fatalf("%v answers for %v and is refused", a, f.now.Sub(answers[a]))
				}
				sure := false // in a service, and beside one that answers in each
				for _, servers := range f.services {
					if slices.Contains(servers, a) {
						sure = slices.ContainsFunc(servers, func(b netip.AddrPort) bool { return !f.deaf[b] })
						if !sure {
							break
						}
					}
				}
				if is || !f.deaf[a] || !sure {
					delete(hangs, a)
				} else if _, ok := hangs[a]; !ok {
					hangs[a] = f.now
				}
				// A mark of another that answers again has to run out first.
				if at, ok := hangs[a]; ok && f.now.Sub(at) > refuseFor+2*time.Second {
					t.Fatalf("%v hangs for %v and is not refused: %v of %v", a, f.now.Sub(at), f.refused, f.services)
				}
			}
		}
	})
}

// However many dials a server that answers has under way at each look, it is not
// taken for one that hangs.
func TestABusyServerIsNotRefused(t *testing.T) {
	a, b := server(1), server(2)
	f := &fleet{services: map[string][]netip.AddrPort{"s": {a, b}}, deaf: map[netip.AddrPort]bool{b: true}, under: map[dial]time.Time{}, now: time.Unix(1000, 0)}
	refused, marks := 0, 0
	for range 400 {
		_, before := f.refused[b]
		f.step(dialsEvery, 100)
		if _, is := f.refused[a]; is {
			t.Fatal("a server that answers is refused")
		}
		if _, is := f.refused[b]; is {
			refused++
			if !before {
				marks++
			}
		}
	}
	if refused < 300 || marks < 20 {
		t.Errorf("the one that hangs is refused at %d looks of 400, by %d marks", refused, marks)
	}
	f.deaf[b] = false
	for range int(refuseFor/dialsEvery) + 1 {
		f.step(dialsEvery, 100)
	}
	for range 100 {
		f.step(dialsEvery, 100)
		if len(f.refused) > 0 {
			t.Fatal("it answers again and is refused")
		}
	}
}

func TestServersOfTheTree(t *testing.T) {
	tr := newTree(1)
	tr.apply(true, put(
		markerKey, markerPrefix+"7",
		"traefik/http/services/shop_web-80/loadBalancer/servers/1/url", "http://10.213.0.1:80",
		"traefik/http/services/shop_web-80/loadBalancer/servers/2/url", "https://10.213.0.2:80",
		"traefik/http/services/shop_web-80/loadBalancer/serversTransport", "fairlead",
		"traefik/http/services/shop_six-80/loadBalancer/servers/1/url", "h2c://[fd00::1]:80",
		"traefik/http/services/shop_six-80/loadBalancer/servers/2/url", "http://10.213.0.3:80",
		"traefik/tcp/services/shop_db/loadBalancer/servers/1/address", "10.213.0.3:80",
		"traefik/tcp/services/shop_db/loadBalancer/servers/2/address", "10.213.0.1:5432",
		"traefik/http/routers/shop_web-0/service", "shop_web-80",
	), nil)
	got, changed := tr.servers()
	for _, s := range got {
		slices.SortFunc(s, netip.AddrPort.Compare)
	}
	want := map[string][]netip.AddrPort{
		"traefik/http/services/" + markerService:                      {{}},
		"traefik/http/services/shop_web-80":                           {server(1), server(2)},
		"traefik/http/services/shop_six-80":                           {{}, server(3)},
		"traefik/tcp/services/shop_db/loadBalancer/servers/1/address": {server(3)},
		"traefik/tcp/services/shop_db/loadBalancer/servers/2/address": {netip.MustParseAddrPort("10.213.0.1:5432")},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
	tr.apply(false, put("traefik/http/services/shop_web-80/loadBalancer/servers/3/url", "http://10.213.0.4:80"), nil)
	select {
	case <-changed:
	default:
		t.Error("a change is not told")
	}
}

// What is refused stands in the table without a rule written anew, and is gone from
// it when the gateway starts.
func TestRefusedServersAreInTheTable(t *testing.T) {
	g, nft, _ := natGateway(t)
	rule := "tcp dport @hanging"
	if err := g.nat.guard(t.Context(), nil, 21999); err != nil {
		t.Fatal(err)
	}
	if d := nft.Dump(); !strings.Contains(d, rule) {
		t.Errorf("once the ports are closed there is no rule:\n%s", d)
	}
	g.state.Current = &process{Generation: 1, Ports: map[string]int{EntryWeb: 21001}, APIPort: 21000}
	if err := g.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := nft.Dump(); strings.Count(d, rule) != 1 {
		t.Errorf("once the ports are mapped there is not one rule:\n%s", d)
	}
	a, b := server(1), server(2)
	for _, s := range []struct {
		add, del []netip.AddrPort
		anew     bool
		want     []string
	}{
		{[]netip.AddrPort{a}, nil, false, []string{"10.213.0.1 . 80"}},
		{[]netip.AddrPort{b}, []netip.AddrPort{a}, false, []string{"10.213.0.2 . 80"}},
		{nil, []netip.AddrPort{a, b}, false, nil}, // also one whose time is over
		{[]netip.AddrPort{b}, nil, false, []string{"10.213.0.2 . 80"}},
		{[]netip.AddrPort{a}, nil, true, []string{"10.213.0.1 . 80"}},
	} {
		if err := g.nat.refuse(t.Context(), s.add, s.del, s.anew); err != nil {
			t.Fatal(err)
		}
		elements, err := nft.ListElements(t.Context(), "set", setHanging)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range elements {
			got = append(got, strings.Join(e.Key, " . "))
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("after %+v there are %v", s, got)
		}
		if !g.nat.intact(t.Context()) {
			t.Error("the rules are taken for changed")
		}
	}
}

// listen has a server on the loopback; one that is deaf drops what is sent to it, as
// a node does that has lost its power.
func listen(tb testing.TB, deaf bool) netip.AddrPort {
	tb.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		drop := &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}}
		return errors.Join(c.Control(func(fd uintptr) {
			if deaf {
				err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, drop)
			}
		}), err)
	}}
	l, err := lc.Listen(tb.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort() //nolint:forcetypeassert // of TCP
}

// The kernel tells of dials that hang, each by a number that stays, and of no
// connection that was answered.
func TestTheKernelTellsOfHangingDials(t *testing.T) {
	silent, answers := listen(t, true), listen(t, false)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", answers.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	for range 2 {
		go func() {
			if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", silent.String()); err == nil {
				_ = c.Close()
			}
		}()
	}
	var got []dial
	look := func() {
		all, err := dialsUnderWay()
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, d := range all { // others may dial on this machine
			if d.to == silent || d.to == answers {
				got = append(got, d)
			}
		}
		slices.SortFunc(got, func(a, b dial) int {
			if a.id < b.id {
				return -1
			}
			return 1
		})
	}
	for end := time.Now().Add(20 * time.Second); len(got) != 2; look() {
		if time.Now().After(end) {
			t.Fatalf("seen: %v", got)
		}
		time.Sleep(time.Millisecond)
	}
	before := got
	if look(); !slices.Equal(got, before) || got[0].to != silent || got[1].to != silent || got[0].id == got[1].id {
		t.Errorf("two dials to %v are %v, then %v", silent, before, got)
	}
}

// BenchmarkDialsUnderWay says what one look costs, which a gateway takes four times a second.
func BenchmarkDialsUnderWay(b *testing.B) {
	for _, conns := range []int{0, 5000} {
		b.Run(fmt.Sprintf("connections=%d", conns), func(b *testing.B) {
			to := listen(b, false)
			for range conns {
				c, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", to.String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close() //nolint:errcheck // nothing was written
			}
			for b.Loop() {
				if _, err := dialsUnderWay(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
