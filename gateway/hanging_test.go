package gateway

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func server(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80)
}

func TestHangingServersArePassedBy(t *testing.T) {
	a, b, c := server(1), server(2), server(3)
	both := [][]netip.AddrPort{{a, b}}
	start := time.Unix(1000, 0)
	type step struct {
		after    time.Duration
		services [][]netip.AddrPort
		dials    []dial
		want     []netip.AddrPort
	}
	const half = hangsAfter / 2
	for name, steps := range map[string][]step{
		"one hangs": {
			{0, both, []dial{{1, a}}, nil},
			{half, both, []dial{{1, a}}, nil},
			{half, both, []dial{{1, a}}, []netip.AddrPort{a}},
			{half, both, []dial{{1, a}}, nil}, // passed by already
			{passedBy, both, []dial{{1, a}}, []netip.AddrPort{a}},
		},
		"busy, not hanging": {
			{0, both, []dial{{1, a}}, nil}, {half, both, []dial{{2, a}}, nil}, {half, both, []dial{{3, a}}, nil}, {half, both, []dial{{1, a}}, nil},
		},
		"all hang":          {{0, both, []dial{{1, a}, {2, b}}, nil}, {hangsAfter, both, []dial{{1, a}, {2, b}}, nil}},
		"the last one left": {{0, both, []dial{{1, a}}, nil}, {hangsAfter, both, []dial{{1, a}, {2, b}}, []netip.AddrPort{a}}, {hangsAfter, both, []dial{{2, b}}, nil}},
		"the only one":      {{0, [][]netip.AddrPort{{a}}, []dial{{1, a}}, nil}, {hangsAfter, [][]netip.AddrPort{{a}}, []dial{{1, a}}, nil}},
		"nobody's":          {{0, both, []dial{{1, c}}, nil}, {hangsAfter, both, []dial{{1, c}}, nil}},
		"the only one of another service": {
			{0, [][]netip.AddrPort{{a, b}, {a}}, []dial{{1, a}}, nil},
			{hangsAfter, [][]netip.AddrPort{{a, b}, {a}}, []dial{{1, a}}, nil},
			{half, [][]netip.AddrPort{{a}, {a, b}}, []dial{{1, a}}, nil},
		},
		"two of three": {
			{0, [][]netip.AddrPort{{a, b, c}}, []dial{{1, a}, {1, c}}, nil}, {hangsAfter, [][]netip.AddrPort{{a, b, c}}, []dial{{1, c}, {1, a}}, []netip.AddrPort{a, c}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h hanging
			now := start
			for i, s := range steps {
				now = now.Add(s.after)
				if got := h.look(s.dials, func() [][]netip.AddrPort { return s.services }, now); !slices.Equal(got, s.want) {
					t.Errorf("look %d: %v, not %v", i, got, s.want)
				}
			}
		})
	}
}

// TestPassingByLaw: whatever hangs, each service keeps a server that does not, or all.
func TestPassingByLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		services := rapid.SliceOfN(rapid.SliceOfNDistinct(rapid.Map(rapid.IntRange(1, 5), server), 1, 4, rapid.ID[netip.AddrPort]), 1, 4).Draw(t, "services")
		var h hanging
		passed := map[netip.AddrPort]time.Time{}
		now := time.Unix(1000, 0)
		since := map[dial]time.Time{}
		for range rapid.IntRange(1, 30).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(1, int(2*dialsEvery)).Draw(t, "later")))
			answered := map[dial]bool{}
			for _, d := range slices.SortedFunc(maps.Keys(since), func(a, b dial) int { return cmp.Or(a.to.Compare(b.to), cmp.Compare(a.from, b.from)) }) {
				if answered[d] = rapid.IntRange(0, 7).Draw(t, "answered") == 0; answered[d] {
					delete(since, d)
				}
			}
			for _, d := range rapid.SliceOfN(rapid.Custom(func(t *rapid.T) dial {
				return dial{uint16(rapid.IntRange(1, 3).Draw(t, "from")), server(rapid.IntRange(1, 5).Draw(t, "to"))}
			}), 0, 4).Draw(t, "dials") {
				// No port is used for the same server again so soon.
				if _, known := since[d]; !known && !answered[d] {
					since[d] = now
				}
			}
			maps.DeleteFunc(passed, func(_ netip.AddrPort, until time.Time) bool { return !now.Before(until) })
			for _, s := range h.look(slices.Collect(maps.Keys(since)), func() [][]netip.AddrPort { return services }, now) {
				if !slices.ContainsFunc(slices.Collect(maps.Keys(since)), func(d dial) bool { return d.to == s && now.Sub(since[d]) >= hangsAfter }) {
					t.Fatalf("%s is passed by and does not hang", s)
				}
				if _, already := passed[s]; already {
					t.Fatalf("%s is passed by twice", s)
				}
				passed[s] = now.Add(passedBy)
			}
			for _, servers := range services {
				if !slices.ContainsFunc(servers, func(s netip.AddrPort) bool { _, by := passed[s]; return !by }) {
					t.Fatalf("all of %v are passed by", servers)
				}
			}
		}
	})
}

func TestServersOfTheTree(t *testing.T) {
	tr := newTree(1)
	at := treeRoot + "/http/services/"
	tr.apply(false, map[string][]byte{
		at + "a/loadBalancer/servers/1/url": []byte("http://10.0.0.1:80"), at + "a/loadBalancer/servers/2/url": []byte("h2c://10.0.0.2:80"),
		at + "a/loadBalancer/passHostHeader": []byte("true"), at + "b/loadBalancer/servers/7/url": []byte("https://[fd00::1]:443"),
		markerKey: []byte(markerPrefix + "7"), treeRoot + "/tcp/services/c/loadBalancer/servers/1/address": []byte("10.0.0.3:80"),
	}, nil)
	got := tr.servers()
	for _, servers := range got {
		slices.SortFunc(servers, netip.AddrPort.Compare)
	}
	slices.SortFunc(got, func(a, b []netip.AddrPort) int { return a[0].Compare(b[0]) })
	if len(got) != 2 || !slices.Equal(got[0], []netip.AddrPort{server(1), server(2)}) || len(got[1]) != 1 {
		t.Errorf("%v", got)
	}
}

// deaf is a listener whose packets are dropped, as those of a node that is gone are.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	h, err := holdPort("tcp", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.release)
	sa, err := unix.Getsockname(h.fd)
	if err != nil {
		t.Fatal(err)
	}
	port := 0
	switch sa := sa.(type) {
	case *unix.SockaddrInet6:
		port = sa.Port
	case *unix.SockaddrInet4:
		port = sa.Port
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
}

func TestOpenDials(t *testing.T) {
	to := deaf(t)
	open := func() int {
		dials, err := openDials()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, d := range dials {
			if d.to == to && d.from != 0 {
				n++
			}
		}
		return n
	}
	if n := open(); n != 0 {
		t.Errorf("%d before one began", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", to.String()); err == nil {
			_ = c.Close()
		}
	}()
	for open() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("it is never seen")
		}
	}
	cancel()
	<-ended
	if n := open(); n != 0 {
		t.Errorf("%d after it ended", n)
	}
}

func BenchmarkOpenDials(b *testing.B) {
	for b.Loop() {
		if _, err := openDials(); err != nil {
			b.Fatal(err)
		}
	}
}
