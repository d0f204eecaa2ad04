package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

// setClock is a machine's clock, which is set while it runs.
type setClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *setClock) set(year int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = time.Date(year, time.June, 1, 0, 0, 0, 0, time.UTC)
}

func (c *setClock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// logged is a log that can be read while it is written.
func logged() (hclog.Logger, func(says string) int) {
	var mu sync.Mutex
	var out bytes.Buffer
	return hclog.New(&hclog.LoggerOptions{Output: &out, Mutex: &mu}), func(says string) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(out.String(), says)
	}
}

// A server whose clock is set while it runs gets good certificates by itself, and says
// once, and in an alarm, what is wrong until then.
func TestAClockThatIsSetRenewsCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &setClock{}
		clock.set(2026)
		dir := t.TempDir()
		host := pki.Host{Node: "n1", Hosts: []string{"10.0.0.1"}}
		if _, err := pki.Open(dir, host, clock.get); err != nil { // the cluster is made
			t.Fatal(err)
		}
		clock.set(1970) // a boot without a battery
		p, err := pki.Open(dir, host, clock.get)
		if err != nil {
			t.Fatal(err)
		}
		log, lines := logged()
		m := &machine{local: local{Config: Config{Log: log}, now: clock.get}, pki: p}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.renew(ctx) }()
		time.Sleep(10 * clockEvery)
		if lines("timedatectl") != 1 || lines("renewed") != 0 || !slices.ContainsFunc(m.alarms.list(), func(s string) bool { return strings.Contains(s, "1970-06-01") }) {
			t.Errorf("while the clock is wrong: alarms %q, said %d times", m.alarms.list(), lines("timedatectl"))
		}
		clock.set(2029) // time has been had from the network; certificates of 2026 have ended
		time.Sleep(2 * clockEvery)
		if got := m.alarms.list(); len(got) > 0 || lines("the clock is set") != 1 || lines("renewed certificates") != 1 {
			t.Errorf("once it is set: alarms %q", got)
		}
		if p.Due() {
			t.Error("the certificates are not good")
		}
		clock.set(2030) // and again, at once
		time.Sleep(time.Duration(renewPause+1) * clockEvery)
		if p.Due() || lines("renewed certificates") != 2 {
			t.Errorf("set again: due %v, renewed %d times", p.Due(), lines("renewed certificates"))
		}
		cancel()
		<-done
	})
}

// A first start waits for a clock that was never set, and says so once; a machine that
// has certificates starts what it ran.
func TestAFirstStartWaitsForTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &setClock{}
		clock.set(1970)
		log, lines := logged()
		cfg := Config{DataDir: t.TempDir(), Log: log}
		done := make(chan error, 1)
		go func() { done <- cfg.awaitClock(t.Context(), clock.get) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("went on: %v", err)
		default:
		}
		if lines("timedatectl") != 1 {
			t.Errorf("said %d times", lines("timedatectl"))
		}
		clock.set(2026)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := pki.Open(filepath.Join(cfg.DataDir, "pki"), pki.Host{Node: "n1"}, clock.get); err != nil {
			t.Fatal(err)
		}
		clock.set(1970)
		if err := cfg.awaitClock(t.Context(), clock.get); err != nil {
			t.Error(err)
		}
	})
}

// A machine that joins before its clock is set waits, as for a server that is away.
func TestAJoinBeforeTheClockIsSetIsTriedAgain(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, time.June, 1, 0, 0, 0, 0, time.UTC)
	refused := cluster.Invalidf("the server's certificate: %w", x509.CertificateInvalidError{Cert: &x509.Certificate{NotBefore: at}, Reason: x509.Expired})
	if err := blameClock(refused, at.AddDate(-1, 0, 0)); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "2025-06-01") || !strings.Contains(err.Error(), "timedatectl") {
		t.Errorf("a year behind: %v", err)
	}
	for _, err := range []error{blameClock(refused, at.AddDate(1, 0, 0)), blameClock(cluster.Invalidf("no"), at)} {
		if cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%v", err)
		}
	}
	if blameClock(nil, at) != nil {
		t.Error("no error is one")
	}
}
