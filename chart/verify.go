package chart

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	pgp "github.com/ProtonMail/go-crypto/openpgp/errors"

	"github.com/fairlead/fairlead/cluster"
)

// Signature is what a key says of an archive.
type Signature struct {
	File string // the archive
	By   string // the owner, as the key names them
	Key  string // its fingerprint
}

// archived is a package as it was fetched.
type archived struct {
	name string // of the file
	data []byte // nil: it is what is there already
	prov []byte // its signature
	said Validator
}

// verify refuses an archive that no key of the transfer's keyring signed; ref is for errors.
func (a archived) verify(ref string, t Transfer) error {
	s, err := openKeyring(t.Keyring, "gpg --export")
	if err != nil {
		return err
	}
	if a.prov == nil {
		return cluster.Invalidf("%s is not signed: there is no %s.prov", ref, a.name)
	}
	v, err := s.Verify(a.data, a.prov, a.name)
	switch {
	case err != nil && v.SignedBy != nil: // the signature holds
		return cluster.Invalidf("%s is another archive than the one that was signed: %w", ref, err)
	case errors.Is(err, pgp.ErrUnknownIssuer):
		return cluster.Invalidf("%s is signed, but by none of the keys of %s", ref, t.Keyring)
	case err != nil:
		return cluster.Invalidf("%s: its signature does not hold: %w", ref, err)
	}
	if t.Signed != nil {
		names := []string{}
		for n := range v.SignedBy.Identities {
			names = append(names, n)
		}
		slices.Sort(names)
		t.Signed(Signature{a.name, strings.Join(names, ", "), strings.ToUpper(hex.EncodeToString(v.SignedBy.PrimaryKey.Fingerprint))})
	}
	return nil
}
