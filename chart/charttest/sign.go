package charttest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"helm.sh/helm/v4/pkg/provenance"
)

// Signer signs packages as `helm package --sign` does.
type Signer struct {
	Keyring string // a file with the public key
	Secret  string // one with the secret key

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
	dir := tb.TempDir()
	s := &Signer{Keyring: filepath.Join(dir, "keys.gpg"), Secret: filepath.Join(dir, "secret.gpg"), t: tb, s: provenance.Signatory{Entity: e}}
	var public, secret bytes.Buffer
	if err := errors.Join(e.Serialize(&public), e.SerializePrivate(&secret, nil)); err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(s.Keyring, public.Bytes(), 0o600), os.WriteFile(s.Secret, secret.Bytes(), 0o600)); err != nil {
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
