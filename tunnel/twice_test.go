package tunnel

import (
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
)

// A copy of a machine is refused while the original answers; the original comes back at
// once, and another start of it as soon as the former one does not answer.
func TestACopyIsRefusedWhileTheOriginalAnswers(t *testing.T) {
	hub, r, _ := open(t) // "original" is connected
	err := hub.Claim(t.Context(), "n2", "copy", "10.0.0.9:5000")
	if cluster.KindOf(err) != cluster.KindConflict || !strings.Contains(err.Error(), "10.0.0.9") || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("a copy: %v (kind %v)", err, cluster.KindOf(err))
	}
	if a := hub.Alarms(); len(a) != 1 || a[0] != err.Error() {
		t.Errorf("alarms %q", a)
	}
	for what, c := range map[string]struct {
		node     cluster.NodeID
		instance string
	}{
		"the original, whose link was cut": {"n2", "original"},
		"an agent of an earlier version":   {"n2", ""},
		"another node":                     {"n3", "copy"},
	} {
		if err := hub.Claim(t.Context(), c.node, c.instance, "10.0.0.8:1"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if now, err := hub.Node("n2"); err != nil || now != r {
		t.Errorf("the tunnel was touched: %v", err)
	}
}

// A connection at whose other end nobody answers holds nothing.
func TestASilentConnectionIsNoOriginal(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String()) // never accepted
	if err != nil {
		t.Fatal(err)
	}
	hub := newSilent(t, conn)
	if err := hub.Claim(t.Context(), "n2", "after a reboot", "127.0.0.1:1"); err != nil {
		t.Errorf("%v", err)
	}
	if a := hub.Alarms(); len(a) != 0 {
		t.Errorf("alarms %q", a)
	}
}

func newSilent(t *testing.T, conn net.Conn) *Hub {
	t.Helper()
	hub := NewHub(hclog.NewNullLogger())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = hub.Serve(t.Context(), "n2", "before", conn)
	}()
	t.Cleanup(func() { <-ended })
	eventually(t, "it is connected", func() bool { _, err := hub.Node("n2"); return err == nil })
	return hub
}
