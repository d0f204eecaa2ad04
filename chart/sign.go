package chart

import (
	"bytes"
	"os"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"helm.sh/helm/v4/pkg/provenance"
	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/cluster"
)

// Signer signs archives as Helm does.
type Signer struct {
	by *provenance.Signatory
}

// NewSigner takes the key of an owner from a keyring that has secret keys. A part of the
// owner's name is enough where no other key has it, and none at all where there is one
// key. Passphrase is asked for if the key is locked.
func NewSigner(keyring, owner string, passphrase func(owner string) ([]byte, error)) (*Signer, error) {
	s, err := openKeyring(keyring, "gpg --export-secret-keys")
	if err != nil {
		return nil, err
	}
	var found, exact []*openpgp.Entity
	names := []string{}
	for _, e := range s.KeyRing {
		for n := range e.Identities {
			names = append(names, n)
			if n == owner {
				exact = append(exact, e)
			}
			if strings.Contains(n, owner) && !slices.Contains(found, e) {
				found = append(found, e)
			}
		}
	}
	slices.Sort(names)
	if len(exact) > 0 {
		found = exact
	}
	switch has := "it has those of " + strings.Join(names, ", "); {
	case len(found) == 0:
		return nil, cluster.Invalidf("--keyring %s: no key is %q's; %s", keyring, owner, has)
	case len(found) > 1 && owner == "":
		return nil, cluster.Invalidf("--sign: with which key? --key NAME says it, and %s has those of %s", keyring, strings.Join(names, ", "))
	case len(found) > 1:
		return nil, cluster.Invalidf("--key %q is more than one in %s: %s", owner, keyring, has)
	case found[0].PrivateKey == nil:
		return nil, cluster.Invalidf("--keyring %s has only public keys: `gpg --export-secret-keys NAME >FILE` writes what signs", keyring)
	}
	s.Entity = found[0]
	wrong := false
	err = s.DecryptKey(func(name string) ([]byte, error) {
		b, err := passphrase(name)
		wrong = err == nil
		return b, err
	})
	switch {
	case wrong && err != nil:
		return nil, cluster.Invalidf("--keyring %s: the passphrase does not open the key: %w", keyring, err)
	case err != nil:
		return nil, err
	}
	return &Signer{s}, nil
}

// Sign returns the signature of an archive of these files, which is called name. It
// belongs beside it, as name.prov.
func (s *Signer) Sign(name string, archive []byte, files []File) ([]byte, error) {
	c, err := load(files)
	if err != nil {
		return nil, cluster.Invalidf("%w", err)
	}
	meta, err := yaml.Marshal(c.Metadata)
	if err != nil {
		return nil, err
	}
	text, err := s.by.ClearSign(archive, name, meta)
	return []byte(text), err
}

// openKeyring reads a file of keys, as the command writes them.
func openKeyring(file, command string) (*provenance.Signatory, error) {
	ring, err := os.ReadFile(file) //nolint:gosec // which the user names
	switch {
	case err != nil:
		return nil, cluster.Invalidf("--keyring: %w", err)
	case bytes.HasPrefix(bytes.TrimSpace(ring), []byte("-----BEGIN PGP")):
		return nil, cluster.Invalidf("--keyring %s: it is armored: `%s NAME >FILE` without --armor, or `gpg --dearmor`, makes one that is read", file, command)
	}
	s, err := provenance.NewFromKeyring(file, "")
	if err != nil {
		return nil, cluster.Invalidf("--keyring %s: no keys that can be read, as `%s NAME >FILE` writes them: %w", file, command, err)
	}
	return s, nil
}
