package sealed

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
)

// Key is the cluster's master key. Keep it as a pointer; it prints as "[key]".
type Key struct {
	aead cipher.AEAD
	id   [idSize]byte
}

var (
	_ secrets.Keeper   = (*Key)(nil)
	_ secrets.Resolver = (*Key)(nil)
)

// A sealed value is: version, key ID, nonce, ciphertext with its tag.
const (
	version    = 1
	idSize     = 8
	headerSize = 1 + idSize + chacha20poly1305.NonceSizeX
	filePrefix = "fairlead-secrets-key-1:"
)

// NewKey makes a key of 32 bytes.
func NewKey(raw []byte) (*Key, error) {
	aead, err := chacha20poly1305.NewX(raw)
	if err != nil {
		return nil, cluster.Invalidf("a secrets key has %d bytes, not %d", chacha20poly1305.KeySize, len(raw))
	}
	k := &Key{aead: aead}
	sum := sha256.Sum256(append([]byte("fairlead secrets key id\x00"), raw...))
	copy(k.id[:], sum[:])
	return k, nil
}

// Format implements fmt.Formatter: no verb prints the key.
func (*Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[key]")) }

// Seal implements secrets.Keeper.
func (k *Key) Seal(plain []byte, context string) ([]byte, error) {
	if len(plain) > secrets.MaxSecret {
		return nil, cluster.Invalidf("the value has %d bytes; the most is %d", len(plain), secrets.MaxSecret)
	}
	out := make([]byte, headerSize, headerSize+len(plain)+k.aead.Overhead())
	out[0] = version
	copy(out[1:], k.id[:])
	if _, err := rand.Read(out[1+idSize:]); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	return k.aead.Seal(out, out[1+idSize:headerSize], plain, k.bind(context)), nil
}

// Open implements secrets.Keeper.
func (k *Key) Open(sealed []byte, context string) ([]byte, error) {
	switch {
	case len(sealed) < headerSize+k.aead.Overhead():
		return nil, cluster.Invalidf("%s: the sealed value is cut short", context)
	case sealed[0] != version:
		return nil, cluster.Invalidf("%s: the value was sealed in format %d, which this release does not know", context, sealed[0])
	case string(sealed[1:1+idSize]) != string(k.id[:]):
		return nil, cluster.Invalidf("%s: the value was sealed with another key than this server's secrets.key: restore that file, or set the value again", context)
	}
	plain, err := k.aead.Open(nil, sealed[1+idSize:headerSize], sealed[headerSize:], k.bind(context))
	if err != nil {
		return nil, cluster.Invalidf("%s: the sealed value was changed, or belongs to something else: set it again", context)
	}
	return plain, nil
}

// bind ties the ciphertext to its context and to this format.
func (k *Key) bind(context string) []byte { return []byte("fairlead/v1\x00" + context) }

// Resolve implements secrets.Resolver.
func (k *Key) Resolve(_ context.Context, rec cluster.SecretRecord) (cluster.Secret, error) {
	b, err := k.Open(rec.Sealed, secrets.RecordContext(rec.SecretRef, rec.Version))
	if err != nil {
		return cluster.Secret{}, err
	}
	return cluster.NewSecret(b), nil
}

// LoadOrCreate reads the key file, or makes a new key when there is none.
func LoadOrCreate(path string) (*Key, error) {
	k, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	raw := make([]byte, chacha20poly1305.KeySize)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	if err := writeNew(path, filePrefix+base64.StdEncoding.EncodeToString(raw)+"\n"); err != nil {
		return nil, fmt.Errorf("write a new secrets key: %w", err)
	}
	return Load(path) // the one that is there, should another process have been faster
}

// Load reads the key file. A file that others can read is refused.
func Load(path string) (*Key, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("secrets key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, cluster.Invalidf("%s can be read by others (mode %04o): run chmod 600 on it, and think of its secrets as known", path, st.Mode().Perm())
	}
	b, err := os.ReadFile(path) //nolint:gosec // the operator's own path
	if err != nil {
		return nil, fmt.Errorf("secrets key: %w", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(b)), filePrefix)
	if !ok {
		return nil, cluster.Invalidf("%s is not a secrets key: it must start with %q", path, filePrefix)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil { // the cause would quote the key
		return nil, cluster.Invalidf("%s is not a secrets key: what follows %q is not base64", path, filePrefix)
	}
	return NewKey(raw)
}

// writeNew writes a file that is whole or not there, and never replaces one.
func writeNew(path, text string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".secrets-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir) //nolint:gosec // the operator's own path
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
