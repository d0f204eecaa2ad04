package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

// A node that has no address yet says nothing of itself: others would take another one for
// it. It says what it has as soon as it has, and whenever that changes.
func TestANodeTellsItsAddressOnceItHasOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		n.change = func(c *Config) { c.Address = "" }
		a, stop := n.start()
		defer stop()
		settleDown(time.Second)
		if got := n.store.described(); got.ID != "" {
			t.Errorf("before it has an address: %+v", got)
		}
		for _, address := range []string{"10.0.0.5", "10.0.0.6"} {
			a.SetAddress(address)
			settleDown(time.Second)
			if got := n.store.described(); got.ID != "n1" || got.Address != address || a.nets.address() != address {
				t.Errorf("at %s: %+v; networks are for %s", address, got, a.nets.address())
			}
		}
		for _, text := range []string{"10.213.0.0/16 (--pool) overlaps with …", ""} {
			a.SetOverlap(text)
			settleDown(time.Second)
			if got := n.store.described(); got.Overlap != text || got.Address != "10.0.0.6" {
				t.Errorf("with overlap %q: %+v", text, got)
			}
		}
	})
}
