package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The kernel's module for the nodes' bridges changes nothing of the machine's own, and a
// kernel without it is no reason to make no lab.
func TestTheMachinesBridgesAreSpared(t *testing.T) {
	off := map[string]string{"bridge-nf-call-iptables": "0", "bridge-nf-call-ip6tables": "0", "bridge-nf-call-arptables": "0", "bridge-nf-filter-vlan-tagged": "1"}
	on := map[string]string{}
	for name := range off {
		on[name] = "1"
	}
	for _, c := range []struct {
		what          string
		before, after map[string]string // nil: no such directory
		loaded        map[string]string
		fails         error
	}{
		{what: "not loaded", loaded: on, after: off},
		{what: "loaded, and switched on", before: on, loaded: off, after: on},
		{what: "loaded, and switched off", before: off, loaded: on, after: off},
		{what: "a kernel without it", fails: errors.New("not found")},
		{what: "loaded without a switch", loaded: map[string]string{}, after: map[string]string{}},
		{what: "an older kernel's", loaded: map[string]string{"bridge-nf-call-iptables": "1"}, after: map[string]string{"bridge-nf-call-iptables": "0"}},
	} {
		dir := filepath.Join(t.TempDir(), "bridge")
		write := func(switches map[string]string) {
			if switches == nil {
				return
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, v := range switches {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(v+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(c.before)
		err := spareBridges(dir, func() error {
			write(c.loaded)
			return c.fails
		})
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		entries, err := os.ReadDir(dir)
		if (err == nil) != (c.after != nil) || len(entries) != len(c.after) {
			t.Errorf("%s: %v, %v", c.what, entries, err)
		}
		for name, want := range c.after {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s: %s is %q, want %q: %v", c.what, name, b, want, err)
			}
		}
	}
}

// What cannot be switched off is told, since it changes the machine.
func TestBridgesThatCannotBeSparedAreTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bridge")
	err := spareBridges(dir, func() error { return os.MkdirAll(filepath.Join(dir, "bridge-nf-call-iptables"), 0o700) })
	if err == nil || !strings.Contains(err.Error(), "bridge-nf-call-iptables") {
		t.Error(err)
	}
}
