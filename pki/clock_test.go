package pki_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

func on(year int, month time.Month, day int) func() time.Time {
	return func() time.Time { return time.Date(year, month, day, 0, 0, 0, 0, time.UTC) }
}

// An authority that is made before the clock is set would have ended once it is.
func TestNoAuthorityByAClockThatWasNeverSet(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]func() time.Time{"no clock at all": on(1970, 1, 1), "a board's": on(2017, 3, 1)} {
		dir := filepath.Join(t.TempDir(), "pki")
		_, err := pki.Open(dir, pki.Host{Node: "n1"}, now)
		if cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "timedatectl") || !strings.Contains(err.Error(), now().Format(time.DateOnly)) {
			t.Errorf("%s: %v", name, err)
		}
		if pki.Certified(dir) || pki.IsAuthority(dir) {
			t.Errorf("%s: an authority was made", name)
		}
		if err := pki.Clock(dir, now()); cluster.KindOf(err) != cluster.KindTransient {
			t.Errorf("%s: %v", name, err)
		}
		open(t, dir, on(2026, 6, 1)) // once it is set
		if !pki.Certified(dir) || pki.Clock(dir, on(2026, 6, 2)()) != nil {
			t.Errorf("%s: %v", name, pki.Clock(dir, on(2026, 6, 2)()))
		}
	}
}

// A clock that is behind while the server starts, and is set later: what it says, and
// that the certificates are good afterwards without a restart.
func TestCertificatesFollowTheClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, on(2026, 6, 1), "10.0.0.1")
	for _, c := range []struct {
		name     string
		start    func() time.Time
		set      func() time.Time
		wrong    bool // at the start: before the authority
		due      bool // once it is set
		replaced int  // by the start
	}{
		{"a good clock", on(2026, 6, 2), on(2026, 6, 3), false, false, 0},
		{"never set", on(1970, 1, 1), on(2029, 6, 3), true, true, 4},
		{"a year behind", on(2028, 6, 3), on(2029, 6, 3), false, true, 4},
		{"a year ahead", on(2030, 6, 3), on(2029, 6, 3), false, true, 4},
	} {
		now := c.start
		before := files(t, dir)
		p := open(t, dir, func() time.Time { return now() }, "10.0.0.1")
		replaced := 0
		for name, b := range files(t, dir) {
			if b != before[name] {
				replaced++
			}
		}
		err := p.Clock()
		if (err != nil) != c.wrong || c.wrong && (cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "1970-01-01") || !strings.Contains(err.Error(), "2026-05-31")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if replaced != c.replaced || p.Due() {
			t.Errorf("%s: the start replaced %d files, and more are due: %v", c.name, replaced, p.Due())
		}
		if again, err := p.Renew(); err != nil || len(again) > 0 {
			t.Errorf("%s: replaced over and over: %v, %v", c.name, again, err)
		}
		now = c.set
		if p.Clock() != nil || p.Due() != c.due {
			t.Errorf("%s: once the clock is set: %v, due %v", c.name, p.Clock(), p.Due())
		}
		if _, err := p.Renew(); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{p.ServerFile(), p.PeerFile(), p.RootFile(), p.NodeFile()} {
			if l := leaf(t, f); now().Before(l.NotBefore) || l.NotAfter.Sub(now()) < 30*24*time.Hour || p.Due() {
				t.Errorf("%s: %s is from %s to %s, due %v", c.name, f, l.NotBefore, l.NotAfter, p.Due())
			}
		}
	}
}

// A node says the same of its clock, before and after it joined.
func TestANodesClock(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), at(0), "127.0.0.1")
	dir := t.TempDir()
	csr, err := pki.PrepareMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pki.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueNode("n2", r, base)
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.SaveMember(dir, "aaaaaaaaaa", a.PEM(), chain); err != nil {
		t.Fatal(err)
	}
	now := at(-365 * 24 * time.Hour)
	m, err := pki.OpenMember(dir, func() time.Time { return now() })
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Clock(); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "timedatectl") {
		t.Errorf("a year behind: %v", err)
	}
	if m.Due() {
		t.Error("another certificate is asked for")
	}
	now = at(time.Minute)
	if err := m.Clock(); err != nil {
		t.Errorf("set: %v", err)
	}

	// What TLS says of a server whose time has not come is told apart.
	pinned, err := pki.Pinned(a.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	future := open(t, t.TempDir(), at(1000*time.Hour), "127.0.0.1")
	early, err := pki.Pinned(future.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		server, client *tls.Config
		notYet         bool
	}{{a.ServerTLS(), pinned, false}, {future.ServerTLS(), early, true}} {
		_, err, _ := dial(t, c.server, c.client, "127.0.0.1")
		if (err != nil) != c.notYet || pki.NotYet(err, base) != c.notYet || pki.NotYet(err, base.Add(2000*time.Hour)) {
			t.Errorf("%v; not yet: %v", err, pki.NotYet(err, base))
		}
	}
	if pki.NotYet(os.ErrNotExist, base) {
		t.Error("another error is a clock's")
	}
}
