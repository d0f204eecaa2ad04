package agent

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/atomicfile"
)

const procTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2
`

func TestSocketsInUse(t *testing.T) {
	const v4, v6 = "sockets: used 30\nTCP: inuse 3 orphan 0 tw 3 alloc 76 mem 0\nUDP: inuse 1 mem 0\n", "TCP6: inuse 12\nUDP6: inuse 0\n"
	for name, c := range map[string]struct {
		text, key string
		want      int
		ok        bool
	}{
		"IPv4":          {v4, "TCP:", 3, true},
		"IPv6":          {v6, "TCP6:", 12, true},
		"not there":     {v6, "TCP:", 0, false},
		"not a number":  {"TCP: inuse x\n", "TCP:", 0, false},
		"another field": {"TCP: orphan 3\n", "TCP:", 0, false},
		"nothing":       {"", "TCP:", 0, false},
	} {
		if n, ok := inUse(c.text, c.key); n != c.want || ok != c.ok {
			t.Errorf("%s: %d, %v, want %d, %v", name, n, ok, c.want, c.ok)
		}
	}
}

func TestInboundCountsClientsOnly(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want int
	}{
		"none":                  {"", 0},
		"a client":              {"   2: 0300D50A:1F91 0100D50A:C001 01 0 0\n", 1},
		"its own check":         {"   2: 0100007F:1F90 0100007F:C001 01 0 0\n", 0},
		"it calls someone":      {"   2: 0300D50A:C001 0400D50A:1F90 01 0 0\n", 0},
		"a client that is gone": {"   2: 0300D50A:1F91 0100D50A:C001 06 0 0\n", 0},
		"mapped client":         {"   2: 0000000000000000FFFF00000300D50A:1F91 0000000000000000FFFF00000100D50A:C001 01 0 0\n", 1},
		"mapped check":          {"   2: 0000000000000000FFFF00000100007F:1F91 0000000000000000FFFF00000100007F:C001 01 0 0\n", 0},
		"IPv6 check":            {"   2: 00000000000000000000000001000000:1F91 00000000000000000000000001000000:C001 01 0 0\n", 0},
	} {
		if got := inbound(bufio.NewScanner(strings.NewReader(procTCP + c.line))); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestAProcessThatIsGoneIsQuiet(t *testing.T) {
	if !quiet(1 << 30) {
		t.Error("a process that is gone must be quiet")
	}
}

func TestFreeSubnetTakesTheLowest(t *testing.T) {
	pool := netip.MustParsePrefix("10.213.0.0/16")
	var used []netip.Prefix
	for i := range 256 {
		p, ok := freeIn(pool, used)
		if want := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte(i), 0}), 24); !ok || p != want {
			t.Fatalf("%d: %s, %v", i, p, ok)
		}
		used = append(used, p)
	}
	if p, ok := freeIn(pool, used); ok {
		t.Errorf("a full pool gave %s", p)
	}
	if p, ok := freeIn(pool, []netip.Prefix{netip.MustParsePrefix("10.213.0.0/17")}); !ok || p.String() != "10.213.128.0/24" {
		t.Errorf("%s, %v", p, ok)
	}
	if p, ok := freeIn(netip.MustParsePrefix("10.0.0.0/15"), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}); !ok || p.String() != "10.1.0.0/24" {
		t.Errorf("%s, %v", p, ok)
	}
	if p, ok := freeIn(netip.MustParsePrefix("255.255.255.0/24"), []netip.Prefix{netip.MustParsePrefix("255.255.255.0/24")}); ok {
		t.Errorf("the last range of all gave %s", p)
	}
}

func TestAwaitExitSeesAProcessEnd(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	done := make(chan bool, 1)
	go func() { done <- awaitExit(t.Context(), cmd.Process.Pid) }()
	select {
	case <-done:
		t.Fatal("it runs")
	case <-time.After(50 * time.Millisecond):
	}
	_ = cmd.Process.Kill()
	if !<-done {
		t.Error("its end was not seen")
	}
	_ = cmd.Wait()

	cmd = exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- awaitExit(ctx, cmd.Process.Pid) }()
	cancel()
	if <-done {
		t.Error("an end was seen that was none")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestDialInsideNeedsAProcess(t *testing.T) {
	if _, err := dialInside(t.Context(), 1<<30, 80); err == nil {
		t.Error("no error")
	}
}

func TestWriteFileReplacesInOneStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, s := range []string{"one", "two"} {
		if err := atomicfile.Write(path, []byte(s)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		st, _ := os.Stat(path)
		if err != nil || string(b) != s || st.Mode().Perm() != 0o600 {
			t.Errorf("%q, %v, %v", b, st.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
