package server

import (
	"net"
	"slices"
	"testing"
)

// Containers are kept from the API's port, whichever it is, before any runs.
func TestTheAPIsPortIsPrivateOnceItIsOpen(t *testing.T) {
	m := &machine{local: local{Config: Config{Listen: "127.0.0.1:0"}, private: []uint16{7421}}}
	l, err := m.listenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if !slices.Equal(m.private, []uint16{7421, port}) {
		t.Errorf("private ports %v, the API has %d", m.private, port)
	}
	taken := &machine{local: local{Config: Config{Listen: l.Addr().String()}}}
	if _, err := taken.listenAPI(t.Context()); err == nil {
		t.Error("two servers listen on one port")
	}
	none := &machine{local: local{Config: Config{Listen: "none"}}}
	if l, err := none.listenAPI(t.Context()); err != nil || l != nil || len(none.private) != 0 {
		t.Errorf("%v %v %v", l, err, none.private)
	}
}

func TestWhereOtherMachinesReachTheAPI(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{"none": "", "127.0.0.1:0": "https://127.0.0.1:", ":0": "https://203.0.113.5:"} {
		m := &machine{local: local{Config: Config{Listen: listen}}}
		l, err := m.listenAPI(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if l != nil {
			defer l.Close() //nolint:errcheck // a test's
			_, port, _ := net.SplitHostPort(l.Addr().String())
			want += port
		}
		if got := reachedAt(l, "203.0.113.5"); got != want {
			t.Errorf("%s: %v, want %v", listen, got, want)
		}
	}
}
