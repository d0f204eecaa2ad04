package secrets

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"filippo.io/age"

	"github.com/fairlead/fairlead/cluster"
)

// Resolver turns what the store keeps of a secret into its value. Errors are of
// KindTransient when trying again may help, else KindInvalid or KindNotFound.
type Resolver interface {
	Resolve(ctx context.Context, rec cluster.SecretRecord) (cluster.Secret, error)
}

// Keeper encrypts with a key that only servers have. The context names what is
// sealed ("cert/example.com"); opening needs the same one, so that a sealed
// value cannot be moved to another key of the store.
type Keeper interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
}

// Names of providers.
const (
	ProviderSealed = "sealed"
	ProviderVault  = "vault"
)

// Providers resolves each record by the provider it names.
type Providers map[string]Resolver

var _ Resolver = Providers(nil)

// Resolve implements Resolver.
func (p Providers) Resolve(ctx context.Context, rec cluster.SecretRecord) (cluster.Secret, error) {
	r, ok := p[rec.Provider]
	if !ok && rec.Provider == ProviderVault {
		return cluster.Secret{}, cluster.Invalidf("secret %s is in Vault, and the servers know none: start them with --vault", rec.SecretRef)
	}
	if !ok {
		return cluster.Secret{}, cluster.Invalidf("secret %s comes from provider %q, which this server is not set up for", rec.SecretRef, rec.Provider)
	}
	v, err := r.Resolve(ctx, rec)
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("secret %s: %w", rec.SecretRef, err)
	}
	return v, nil
}

// RecordContext names one version of a secret as the thing that is sealed.
func RecordContext(r cluster.SecretRef, version int) string {
	return "secret/" + r.String() + "/" + strconv.Itoa(version)
}

// UserListContext names a user list as the thing that is sealed.
func UserListContext(u cluster.UserList) string { return "users/" + string(u.App) + "/" + u.ID }

// SealUsers returns u with the users sealed in it.
func SealUsers(k Keeper, u cluster.UserList, a cluster.Auth) (cluster.UserList, error) {
	plain, err := json.Marshal(a)
	if err != nil {
		return u, fmt.Errorf("seal users: %w", err)
	}
	u.Sealed, err = k.Seal(plain, UserListContext(u))
	return u, err
}

// OpenUsers returns the users of a list.
func OpenUsers(k Keeper, u cluster.UserList) (cluster.Auth, error) {
	var a cluster.Auth
	plain, err := k.Open(u.Sealed, UserListContext(u))
	if err == nil {
		err = json.Unmarshal(plain, &a)
	}
	return a, err
}

// SealRecord returns rec with the value sealed in it.
func SealRecord(k Keeper, rec cluster.SecretRecord, value cluster.Secret) (cluster.SecretRecord, error) {
	b, err := k.Seal(value.Reveal(), RecordContext(rec.SecretRef, rec.Version))
	if err != nil {
		return rec, fmt.Errorf("seal secret %s: %w", rec.SecretRef, err)
	}
	rec.Provider, rec.Sealed, rec.Ref = ProviderSealed, b, ""
	return rec, nil
}

// MaxSecret is the most bytes in a secret's value.
const MaxSecret = 512 << 10

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// Generate makes a random value of n characters that are safe in URLs, files
// and shells: 6 bits of chance each.
func Generate(n int) (cluster.Secret, error) {
	if n < 1 || n > 4096 {
		return cluster.Secret{}, cluster.Invalidf("a generated secret has 1 to 4096 characters, not %d", n)
	}
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return cluster.Secret{}, fmt.Errorf("read random bytes: %w", err)
	}
	for i := range b {
		b[i] = alphabet[b[i]%byte(len(alphabet))] // 64 divides 256: no bias
	}
	return cluster.NewSecret(b), nil
}

// SealPayload encrypts a payload to a node's public key (an age X25519 recipient).
func SealPayload(p cluster.Payload, publicKey string) ([]byte, error) {
	plain, err := p.Encode()
	if err != nil {
		return nil, err
	}
	return SealTo(plain, publicKey)
}

// SealTo encrypts to a node's public key.
func SealTo(plain []byte, publicKey string) ([]byte, error) {
	to, err := age.ParseX25519Recipient(publicKey)
	if err != nil {
		return nil, cluster.Invalidf("the node's public key is not an age recipient: %w", err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt to a node: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypt to a node: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt to a node: %w", err)
	}
	return out.Bytes(), nil
}

// maxSealed bounds what OpenSealed reads.
const maxSealed = 16 << 20

// OpenSealed opens what SealTo encrypted to this node.
func OpenSealed(id age.Identity, data []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		return nil, cluster.Invalidf("it was not encrypted to this node's key: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxSealed))
	if err != nil {
		return nil, cluster.Invalidf("what was encrypted to this node is damaged: %w", err)
	}
	return plain, nil
}
