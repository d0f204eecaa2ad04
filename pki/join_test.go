package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

func TestJoinToken(t *testing.T) {
	fp := "sha256:" + strings.Repeat("0a", 32)
	tok, err := NewJoinToken(fp)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseJoinToken(" " + tok.Text() + "\n")
	if err != nil || back.Secret != tok.Secret || back.Fingerprint != fp {
		t.Errorf("came back as %q %q: %v", back.Secret, back.Fingerprint, err)
	}
	for _, verb := range []string{"%s", "%v", "%+v", "%q", "%#v"} {
		if s := fmt.Sprintf(verb, tok); strings.Contains(s, tok.Secret) {
			t.Errorf("%s shows it: %s", verb, s)
		}
	}
	for _, bad := range []string{"", "flj_", tok.Text()[4:], tok.Text()[:40], "flj_abc.!!", "fl_abc"} {
		if _, err := ParseJoinToken(bad); cluster.KindOf(err) != cluster.KindInvalid || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestANodeJoinsAndRenews(t *testing.T) {
	server, err := Open(t.TempDir(), Host{Node: "n1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := OpenMember(dir, time.Now); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("before it joined: %v", err)
	}
	csr, err := PrepareMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := PrepareMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	if r2, err := ParseRequest(again); err != nil || r2.Key != r.Key {
		t.Errorf("a second try has another key: %v", err)
	}
	chain, err := server.IssueNode("n2", r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveMember(dir, "abcdefghij", server.PEM(), chain); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMember(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := m.TLS().GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: server.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if id, ok := MemberNode(pair.Leaf.Subject.CommonName); !ok || id != "n2" || pair.Leaf.Subject.CommonName != MemberName("n2", r.Key) {
		t.Errorf("named %s", pair.Leaf.Subject.CommonName)
	}
	if m.Due() {
		t.Error("a new certificate is due")
	}
	m.now = func() time.Time { return time.Now().Add(LeafLife * 3 / 4) }
	if !m.Due() {
		t.Error("an old certificate is not due")
	}
	// A certificate of another's key is not taken.
	other := t.TempDir()
	if _, err := PrepareMember(other); err != nil {
		t.Fatal(err)
	}
	if err := SaveMember(other, "abcdefghij", server.PEM(), chain); err == nil {
		t.Error("kept a certificate of another's key")
	}
}

// A node's certificate is good whatever the clock of the server that signed it says, and is
// renewed in time.
func TestANodesCertificateByAWrongClock(t *testing.T) {
	base := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	now := base
	server, err := Open(t.TempDir(), Host{Node: "n1"}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	now = base.Add(5 * 365 * day)
	for _, ahead := range []time.Duration{0, time.Minute, 3 * time.Hour, 30 * day, 900 * day, -2 * time.Hour} {
		dir := t.TempDir()
		csr, err := PrepareMember(dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRequest(csr)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := server.IssueNode("n2", r, now.Add(ahead))
		if err != nil {
			t.Fatal(err)
		}
		if err := SaveMember(dir, "abcdefghij", server.PEM(), chain); err != nil {
			t.Fatal(err)
		}
		at := now
		m, err := OpenMember(dir, func() time.Time { return at })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.pair.Leaf.Verify(x509.VerifyOptions{Roots: server.Pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s ahead: %v", ahead, err)
		}
		if _, early := m.Begins(); early || m.Due() {
			t.Errorf("%s ahead: begins later %v, due %v", ahead, early, m.Due())
		}
		end := m.pair.Leaf.NotAfter
		for left, due := range map[time.Duration]bool{LeafLife / 2: false, LeafLife/3 + day: false, LeafLife/3 - day: true} {
			if at = end.Add(-left); m.Due() != due {
				t.Errorf("%s ahead, %s left: due %v", ahead, left, m.Due())
			}
		}
	}
}

// A certificate of before, signed by a clock that was ahead, is told apart from a clock of
// this machine's that is behind.
func TestACertificateThatBeginsLater(t *testing.T) {
	base := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	a, err := openAuthority(t.TempDir(), base)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Issue(Request{Use: UseClient, Name: "node:n2:x", Key: key.Public(), Now: base.Add(48 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := decodeCert(chain)
	if err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]bool{-24 * time.Hour: false, time.Hour: true, 46 * time.Hour: true, 47 * time.Hour: false, 72 * time.Hour: false} {
		m := &Member{pair: &tls.Certificate{Leaf: leaf}, root: a.cert, now: func() time.Time { return base.Add(after) }}
		if begins, early := m.Begins(); early != want || !begins.Equal(base.Add(47*time.Hour)) {
			t.Errorf("after %s: %v, %v", after, begins, early)
		}
	}
}

func TestBadRequests(t *testing.T) {
	csr, err := PrepareMember(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(csr)
	forged := append([]byte{}, block.Bytes...)
	forged[len(forged)-1] ^= 1
	for name, b := range map[string][]byte{
		"empty": nil, "no PEM": []byte("x"),
		"forged":         pem.EncodeToMemory(&pem.Block{Type: requestType, Bytes: forged}),
		"a certificate":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"something else": pem.EncodeToMemory(&pem.Block{Type: requestType, Bytes: []byte("x")}),
	} {
		if _, err := ParseRequest(b); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMemberNode(t *testing.T) {
	for name, want := range map[string]cluster.NodeID{"node:n2:ab12": "n2", "node:n2": "", "root": "", "peer": "", "n2:x": ""} {
		if id, ok := MemberNode(name); ok != (want != "") || ok && id != want {
			t.Errorf("%s: %s, %v", name, id, ok)
		}
	}
}

// A server is known by its authority at whatever address, by one who joins and by a node
// that looks for it. Another authority's is none, nor is a node that plays one.
func TestServersAreKnownAtAnyAddress(t *testing.T) {
	server, err := Open(t.TempDir(), Host{Node: "n1", Hosts: []string{"10.0.0.1"}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(t.TempDir(), Host{Node: "n1", Hosts: []string{"10.0.0.1"}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	csr, err := PrepareMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := server.IssueNode("n2", r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveMember(dir, "aaaaaaaaaa", server.PEM(), chain); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMember(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := Pinned(server.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	node := *m.pair
	node.Certificate = append(slices.Clone(node.Certificate), server.cert.Raw) // it can send its authority too
	for name, c := range map[string]struct {
		serves *tls.Config
		ok     bool
	}{
		"the server":              {server.ServerTLS(), true},
		"another authority's":     {other.ServerTLS(), false},
		"a node of the authority": {&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{node}}, false},
	} {
		l, err := tls.Listen("tcp", "127.0.0.9:0", c.serves)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(conn, conn) }()
			}
		}()
		for who, conf := range map[string]*tls.Config{"one who joins": pinned, "a node": m.AnywhereTLS()} {
			conn, err := (&tls.Dialer{Config: conf}).DialContext(t.Context(), "tcp", l.Addr().String())
			if (err == nil) != c.ok {
				t.Errorf("%s, of %s: %v", who, name, err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
		if conn, err := (&tls.Dialer{Config: m.TLS()}).DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
			t.Errorf("%s is taken at another address than its own", name)
			_ = conn.Close()
		}
		_ = l.Close()
	}
}
