package chart_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// TestSigner: what a key signs is what --verify takes, whether it is locked, alone in its
// keyring, or named; anything else is refused before a signature is made.
func TestSigner(t *testing.T) {
	dir := t.TempDir()
	entity := func(name string) *openpgp.Entity {
		e, err := openpgp.NewEntity(name, "", name+"@example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	written := func(name string, write func(*bytes.Buffer) error) string {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ann, anna := entity("ann"), entity("anna")
	public := written("public", func(b *bytes.Buffer) error { return errors.Join(ann.Serialize(b), anna.Serialize(b)) })
	alone := written("alone", func(b *bytes.Buffer) error { return ann.SerializePrivate(b, nil) })
	both := written("both", func(b *bytes.Buffer) error {
		return errors.Join(ann.SerializePrivate(b, nil), anna.SerializePrivate(b, nil))
	})
	locked := written("locked", func(b *bytes.Buffer) error {
		if err := ann.EncryptPrivateKeys([]byte("geheim"), nil); err != nil {
			return err
		}
		return ann.SerializePrivateWithoutSigning(b, nil)
	})
	armored := written("armored", func(b *bytes.Buffer) error {
		_, err := b.WriteString("-----BEGIN PGP PRIVATE KEY BLOCK-----\n")
		return err
	})
	archive := archiveOf(t, "shop", "1.3.0")
	files, err := chart.ReadArchive("shop", bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	asked := errors.New("the passphrase was asked for")
	for _, c := range []struct {
		ring, owner, passphrase string
		by, refused             string
	}{
		{ring: alone, by: "ann"},
		{ring: alone, owner: "@example", by: "ann"},
		{ring: both, owner: "ann <ann@example.com>", by: "ann"},
		{ring: both, owner: "anna", by: "anna"},
		{ring: locked, passphrase: "geheim", by: "ann"},
		{ring: locked, passphrase: "falsch", refused: "does not open the key"},
		{ring: locked, refused: asked.Error()},
		{ring: both, refused: "with which key? --key NAME says it"},
		{ring: both, owner: "ann", refused: "more than one"},
		{ring: both, owner: "eve", refused: `no key is "eve"'s; it has those of ann <ann@example.com>, anna <anna@example.com>`},
		{ring: public, owner: "anna", refused: "only public keys"},
		{ring: armored, refused: "it is armored"},
		{ring: filepath.Join(dir, "none"), refused: "no such file"},
	} {
		s, err := chart.NewSigner(c.ring, c.owner, func(string) ([]byte, error) {
			if c.passphrase == "" {
				return nil, asked
			}
			return []byte(c.passphrase), nil
		})
		what := filepath.Base(c.ring) + " " + c.owner
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v; want %s", what, err, c.refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		prov, err := s.Sign("shop-1.3.0.tgz", archive, files)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		file := written("shop-1.3.0.tgz", func(b *bytes.Buffer) error { _, err := b.Write(archive); return err })
		written("shop-1.3.0.tgz.prov", func(b *bytes.Buffer) error { _, err := b.Write(prov); return err })
		var said []chart.Signature
		_, err = chart.Repositories{}.Fetch(t.Context(), file, "", chart.Transfer{Keyring: public, Signed: func(s chart.Signature) { said = append(said, s) }})
		if err != nil || len(said) != 1 || !strings.HasPrefix(said[0].By, c.by+" ") {
			t.Errorf("%s: verified as by %v: %v", what, said, err)
		}
		changed := append(bytes.Clone(archive), 0)
		written("shop-1.3.0.tgz", func(b *bytes.Buffer) error { _, err := b.Write(changed); return err })
		if _, err := (chart.Repositories{}).Fetch(t.Context(), file, "", chart.Transfer{Keyring: public}); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: a changed archive: %v", what, err)
		}
		if !strings.Contains(string(prov), "version: 1.3.0") {
			t.Errorf("%s: Chart.yaml is not in the signature:\n%s", what, prov)
		}
	}
}
