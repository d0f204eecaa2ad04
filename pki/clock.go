package pki

import (
	"crypto/x509"
	"errors"
	"path/filepath"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// earliest is before Fairlead was: a clock that says less was never set, and an authority
// that is made by it has ended once it is.
var earliest = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// Certified reports whether dir holds a cluster's authority: of a server, or of a node
// that joined.
func Certified(dir string) bool {
	_, err := read(filepath.Join(dir, caCertFile))
	return err == nil
}

// Clock says why a machine's clock is wrong, by the authority in dir where there is one;
// nil: it may be right. It is KindTransient: it may be set yet.
func Clock(dir string, now time.Time) error {
	b, err := read(filepath.Join(dir, caCertFile))
	if err == nil {
		if c, err := decodeCert(b); err == nil {
			return clock(c, now)
		}
	}
	return unset(now)
}

func unset(now time.Time) error {
	if now.Before(earliest) {
		return cluster.Transientf("this machine's clock says %s, which cannot be: set it (`timedatectl set-ntp true`, or `date -s`); certificates that are made now would have ended once it is", clockText(now))
	}
	return nil
}

func clock(authority *x509.Certificate, now time.Time) error {
	if now.Before(authority.NotBefore) {
		return cluster.Transientf("this machine's clock says %s, and the cluster's certificates begin on %s: until it is set (`timedatectl set-ntp true`, or `date -s`) this machine reaches no other one of the cluster, and none reaches it. If the clock is right, it was wrong when the cluster was made",
			clockText(now), clockText(authority.NotBefore))
	}
	return nil
}

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// NotYet reports whether err is that a certificate's time has not come, by this clock.
func NotYet(err error, now time.Time) bool {
	var e x509.CertificateInvalidError
	return errors.As(err, &e) && e.Reason == x509.Expired && now.Before(e.Cert.NotBefore)
}

// Clock says why this machine's clock is wrong, as the function does.
func (p *PKI) Clock() error { return clock(p.cert, p.now()) }

// Clock says why this machine's clock is wrong, as the function does.
func (m *Member) Clock() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return clock(m.root, m.now())
}

// Due reports whether Renew would replace a certificate for its time: little of its life
// is left, or the clock was set since it was made.
func (p *PKI) Due() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	now := p.now()
	for _, pair := range p.pairs {
		if !timely(pair.Leaf, now) {
			return true
		}
	}
	return false
}

// timely reports whether a certificate is good, and has at least a third of its life left.
func timely(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && c.NotAfter.Sub(now) >= c.NotAfter.Sub(c.NotBefore)/3
}
