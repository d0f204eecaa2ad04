// Package need says what the integration tests do without what they need: they
// skip, unless FAIRLEAD_MUST_RUN is set, as `make integration` does after it has
// set everything up. A suite that skips must not look like one that passed.
package need

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Skip skips the test because something is missing, or fails it where nothing may be.
func Skip(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("FAIRLEAD_MUST_RUN") != "" {
		tb.Fatalf("cannot run: "+format, args...)
	}
	tb.Skipf(format, args...)
}

const firstPort, ports = 22000, 10000

var lastPort atomic.Int64

func init() { lastPort.Store(rand.Int64N(ports)) }

// Port is a port that nothing listens on now, another one each time. It lies below the
// range of outgoing connections, one of which could have it by the time it is used, and
// above the ports that Traefik listens on.
func Port(tb testing.TB) int {
	tb.Helper()
	for range 200 {
		port := firstPort + int(lastPort.Add(1)%ports)
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	tb.Fatal("no free port")
	return 0
}

// Patience is how many times as long as on a quiet machine a test waits for something
// before it fails: a busy one is slow, and waiting costs only what fails.
const Patience = 3

// Pause is how long to wait before the next look at something, when the last one took
// that long: a look that starts a program must not take the machine from what is waited for.
func Pause(look time.Duration) time.Duration {
	return min(max(50*time.Millisecond, 3*look), time.Second)
}

// Program builds a program of this module, static and stripped.
func Program(path, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Root is the project's directory.
func Root(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
