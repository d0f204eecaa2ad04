package charttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"helm.sh/helm/v4/pkg/provenance"
)

// Signer signs packages as `helm package --sign` does.
type Signer struct {
	Keyring string // a file with the public key

	t testing.TB
	s provenance.Signatory
}

// NewSigner makes a key of that name.
func NewSigner(tb testing.TB, name string) *Signer {
	tb.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.com", nil)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Signer{Keyring: filepath.Join(tb.TempDir(), "keys.gpg"), t: tb, s: provenance.Signatory{Entity: e}}
	f, err := os.Create(s.Keyring)
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.Serialize(f); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return s
}

// Sign returns the signature of an archive, which is called name.
func (s *Signer) Sign(name string, archive []byte) []byte {
	s.t.Helper()
	text, err := s.s.ClearSign(archive, name, []byte("name: signed\n"))
	if err != nil {
		s.t.Fatal(err)
	}
	return []byte(text)
}

// SignFile writes the signature of an archive beside it.
func (s *Signer) SignFile(archive string) {
	s.t.Helper()
	b, err := os.ReadFile(archive) //nolint:gosec // a test's own
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(archive+".prov", s.Sign(filepath.Base(archive), b), 0o600); err != nil { //nolint:gosec // a test's own
		s.t.Fatal(err)
	}
}
