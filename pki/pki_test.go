package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

// base is when the tests begin; certificates are checked at a time of the test's own.
var base = time.Now().Truncate(time.Second)

func at(d time.Duration) func() time.Time { return func() time.Time { return base.Add(d) } }

func open(t *testing.T, dir string, now func() time.Time, hosts ...string) *pki.PKI {
	t.Helper()
	p, err := pki.Open(dir, pki.Host{Node: "n1", Hosts: hosts}, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// files returns the content of every file in dir, by name, and fails on one that others can read.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s, want 0600", path, info.Mode())
		}
		b, err := os.ReadFile(path)
		out[d.Name()] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func leaf(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenIsIdempotent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "pki")
	p := open(t, dir, at(0), "10.0.0.1", "host1")
	before := files(t, dir)
	for _, f := range []string{"ca.crt", "ca.key", "server.pem", "peer.pem", "root.pem", "node.pem"} {
		if before[f] == "" {
			t.Errorf("%s is missing", f)
		}
	}
	again := open(t, dir, at(time.Hour), "host1", "10.0.0.1")
	if d := cmp.Diff(before, files(t, dir)); d != "" {
		t.Errorf("a second Open changed files: %s", d)
	}
	if p.Fingerprint() != again.Fingerprint() || !strings.HasPrefix(p.Fingerprint(), "sha256:") {
		t.Errorf("fingerprints %s and %s", p.Fingerprint(), again.Fingerprint())
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	// A file that was opened to others is closed again.
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, dir, at(0), "host1", "10.0.0.1")
	files(t, dir)
}

func TestOpenAtOnceMakesOneAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	prints := make([]string, 8)
	ids := make([]string, len(prints))
	var wg sync.WaitGroup
	for i := range prints {
		wg.Go(func() {
			p, err := pki.Open(dir, pki.Host{Node: "n1"}, at(0))
			id, ierr := pki.ClusterID(dir)
			if err = errors.Join(err, ierr); err != nil {
				t.Error(err)
				return
			}
			prints[i], ids[i] = p.Fingerprint(), id
		})
	}
	wg.Wait()
	for i := range prints {
		if prints[i] != prints[0] || ids[i] != ids[0] {
			t.Fatalf("%v, %v", prints, ids)
		}
	}
}

func TestCertificatesAreForOneUse(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), at(0), "10.0.0.1", "host1")
	for path, want := range map[string]struct {
		name  string
		hosts bool
		uses  []x509.ExtKeyUsage
	}{
		p.ServerFile(): {"n1", true, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		p.PeerFile():   {"peer", true, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
		p.RootFile():   {"root", false, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		p.NodeFile():   {"node:n1", false, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		c := leaf(t, path)
		if c.Subject.CommonName != want.name || !cmp.Equal(c.ExtKeyUsage, want.uses) || c.IsCA {
			t.Errorf("%s is for %q, %v", path, c.Subject.CommonName, c.ExtKeyUsage)
		}
		for _, h := range []string{"10.0.0.1", "host1", "localhost", "127.0.0.1", "::1"} {
			if (c.VerifyHostname(h) == nil) != want.hosts {
				t.Errorf("%s: valid for %s: %v, want %v", path, h, !want.hosts, want.hosts)
			}
		}
		if c.VerifyHostname("10.0.0.2") == nil {
			t.Errorf("%s is valid for another host", path)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: p.Pool(), KeyUsages: want.uses[:1], CurrentTime: base.Add(-30 * time.Minute)}); err != nil {
			t.Errorf("%s, by a clock that is half an hour slow: %v", path, err)
		}
	}
	for name, r := range map[string]pki.Request{
		"client with hosts":  {Use: pki.UseClient, Name: "a", Hosts: []string{"h"}, Now: base},
		"server without":     {Use: pki.UseServer, Name: "a", Now: base},
		"client named peer":  {Use: pki.UseClient, Name: pki.NamePeer, Now: base},
		"server named peer":  {Use: pki.UseServer, Name: pki.NamePeer, Hosts: []string{"h"}, Now: base},
		"peer of other name": {Use: pki.UsePeer, Name: "a", Hosts: []string{"h"}, Now: base},
		"without a name":     {Use: pki.UseClient, Now: base},
		"without a time":     {Use: pki.UseClient, Name: "a"},
	} {
		if _, err := p.Issue(r); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: error %v, want one of kind invalid", name, err)
		}
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	all := []string{"server.pem", "peer.pem", "root.pem", "node.pem"}
	life := pki.LeafLife
	other := t.TempDir()
	open(t, other, at(0))
	for name, test := range map[string]struct {
		later time.Duration
		hosts []string
		spoil func(dir string) error
		want  []string
	}{
		"fresh":               {},
		"just enough left":    {later: life*2/3 - time.Hour},
		"too little left":     {later: life*2/3 + time.Hour, want: all},
		"ended":               {later: life + time.Hour, want: all},
		"clock was ahead":     {later: -48 * time.Hour, want: all},
		"another address":     {hosts: []string{"10.0.0.9"}, want: []string{"server.pem", "peer.pem"}},
		"missing":             {spoil: func(d string) error { return os.Remove(d + "/node.pem") }, want: []string{"node.pem"}},
		"cut short":           {spoil: func(d string) error { return os.Truncate(d+"/root.pem", 100) }, want: []string{"root.pem"}},
		"another authority's": {spoil: func(d string) error { return os.Rename(other+"/node.pem", d+"/node.pem") }, want: []string{"node.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir, at(0))
			before := files(t, dir)
			if test.spoil != nil {
				if err := test.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			print := p.Fingerprint()
			// What Open finds due it makes; nothing is due after that.
			p = open(t, dir, at(test.later), test.hosts...)
			if p.Fingerprint() != print {
				t.Fatal("the authority is another")
			}
			after := files(t, dir)
			var got []string
			for _, f := range all {
				if before[f] != after[f] {
					got = append(got, f)
				}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("replaced: %s", d)
			}
			if again, err := p.Renew(); err != nil || len(again) != 0 {
				t.Errorf("then replaced %v, %v", again, err)
			}
		})
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(dir string) error{
		"no key":        func(d string) error { return os.Remove(d + "/ca.key") },
		"damaged key":   func(d string) error { return os.WriteFile(d+"/ca.key", []byte("x"), 0o600) },
		"damaged cert":  func(d string) error { return os.WriteFile(d+"/ca.crt", []byte("x"), 0o600) },
		"empty key":     func(d string) error { return os.Truncate(d+"/ca.key", 0) },
		"key of others": func(d string) error { return otherKey(d) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, at(0))
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			before := files(t, dir)
			_, err := pki.Open(dir, pki.Host{Node: "n1"}, at(0))
			if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want one of kind invalid that names the file", err)
			}
			if d := cmp.Diff(before, files(t, dir)); d != "" {
				t.Errorf("changed: %s", d)
			}
		})
	}
	t.Run("ended", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir, at(0))
		if _, err := pki.Open(dir, pki.Host{Node: "n1"}, at(pki.AuthorityLife+time.Hour)); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("error %v", err)
		}
	})
	t.Run("crash between key and certificate", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir, at(0))
		key := files(t, dir)["ca.key"]
		for _, f := range []string{"ca.crt", "server.pem", "peer.pem", "root.pem", "node.pem"} {
			if err := os.Remove(filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		open(t, dir, at(0))
		if files(t, dir)["ca.key"] != key {
			t.Error("the key is another")
		}
	})
}

func otherKey(dir string) error {
	tmp, err := os.MkdirTemp("", "pki")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if _, err := pki.Open(tmp, pki.Host{Node: "n2"}, time.Now); err != nil {
		return err
	}
	return os.Rename(tmp+"/ca.key", dir+"/ca.key")
}

// dial makes a TLS connection over a pipe and returns the client's error, then the server's.
func dial(t *testing.T, server, client *tls.Config, name string) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	client = client.Clone()
	client.ServerName = name
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err != nil {
			_ = a.Close()
		}
		done <- err
	}()
	clientErr = c.HandshakeContext(t.Context())
	if clientErr != nil {
		_ = b.Close()
	} else {
		go func() { _, _ = c.Read(make([]byte, 1)) }() // what the server sends after the handshake
	}
	serverErr = <-done
	return s.ConnectionState(), clientErr, serverErr
}

func TestServerTLS(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), time.Now, "10.0.0.1")
	other := open(t, t.TempDir(), time.Now, "10.0.0.1")
	pinned, err := pki.Pinned(p.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := pki.Pinned(other.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	stranger := p.RootTLS()
	stranger.GetClientCertificate = other.RootTLS().GetClientCertificate
	anonymous := p.RootTLS()
	anonymous.GetClientCertificate = nil
	files, err := pki.ClientTLS(p.CAFile(), p.NodeFile(), p.NodeFile())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		cfg  *tls.Config
		host string
		ok   bool
		user string
	}{
		"root":                 {p.RootTLS(), "10.0.0.1", true, "root"},
		"node":                 {p.NodeTLS(), "localhost", true, "node:n1"},
		"files":                {files, "127.0.0.1", true, "node:n1"},
		"without certificate":  {anonymous, "10.0.0.1", true, ""},
		"pinned":               {pinned, "10.0.0.1", true, ""},
		"another name":         {p.RootTLS(), "10.0.0.2", false, ""},
		"pinned, another name": {pinned, "fairlead.example.com", true, ""},
		"pinned to another":    {wrong, "10.0.0.1", false, ""},
		"another authority":    {other.RootTLS(), "10.0.0.1", false, ""},
		"stranger":             {stranger, "10.0.0.1", false, ""},
	} {
		state, cerr, serr := dial(t, p.ServerTLS(), test.cfg, test.host)
		user := ""
		if len(state.VerifiedChains) > 0 {
			user = state.VerifiedChains[0][0].Subject.CommonName
		}
		if (cerr == nil && serr == nil) != test.ok || user != test.user {
			t.Errorf("%s: client %v, server %v, user %q", name, cerr, serr, user)
		}
	}
	for _, bad := range []string{"", "sha256:12", strings.Repeat("a", 64)} {
		if _, err := pki.Pinned(bad); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("fingerprint %q: %v", bad, err)
		}
	}
	if _, err := pki.ClientTLS(p.CAFile(), p.NodeFile(), p.CAFile()); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestNodeIdentity(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	id, err := pki.NodeIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	content := files(t, dir)
	again, err := pki.NodeIdentity(dir)
	if err != nil || again.String() != id.String() {
		t.Fatalf("another identity, %v", err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := age.Decrypt(&sealed, again); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "node.age")
	damaged := strings.Replace(content["node.age"], "AGE-SECRET-KEY-1", "AGE-SECRET-KEY-2", 1)
	if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = pki.NodeIdentity(dir)
	if cluster.KindOf(err) != cluster.KindInvalid || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("error %v, want one of kind invalid that does not quote the key", err)
	}
	if files(t, dir)["node.age"] != damaged {
		t.Error("a damaged identity was replaced")
	}
}

func TestClusterID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id, err := pki.ClusterID(dir)
	if err != nil || len(id) != 10 {
		t.Fatalf("%q, %v", id, err)
	}
	if again, err := pki.ClusterID(dir); err != nil || again != id {
		t.Fatalf("%q after %q, %v", again, id, err)
	}
	if other, err := pki.ClusterID(t.TempDir()); err != nil || other == id {
		t.Fatalf("two clusters are %q, %v", other, err)
	}
	files(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "cluster-id"), []byte("No Good\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.ClusterID(dir); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("error %v", err)
	}
}
