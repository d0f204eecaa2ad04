package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Secret is a secret value in memory. It redacts itself in every formatting
// verb and in JSON; Reveal is the only way to the bytes. They are behind a
// pointer because fmt asks no method for the verb %p, and prints fields.
type Secret struct{ b *[]byte }

// NewSecret wraps a value.
func NewSecret(b []byte) Secret { return Secret{&b} }

// Reveal returns the value; nil for a zero Secret.
func (s Secret) Reveal() []byte {
	if s.b == nil {
		return nil
	}
	return *s.b
}

// Format implements fmt.Formatter: every verb prints the same word.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalJSON never writes the value.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"[secret]"`), nil }

// UnmarshalJSON reads a value from a request body.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var v string
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*s = NewSecret([]byte(v))
	return nil
}

// SecretRef points at a secret of an app; it never holds the value.
type SecretRef struct {
	App  AppName `json:"app"`
	Name string  `json:"name"`
}

func (r SecretRef) String() string { return string(r.App) + "/" + r.Name }

// SecretRecord is what the store keeps of a secret: sealed bytes or a reference
// to another provider. Source: API.
type SecretRecord struct {
	SecretRef
	// Version counts from 1; a new value makes a new version.
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`
	// Provider is "sealed" (Sealed holds the ciphertext) or "vault" (Ref says where it is).
	Provider  string `json:"provider"`
	Sealed    []byte `json:"sealed,omitempty"`
	Ref       string `json:"ref,omitempty"`
	Generated bool   `json:"generated,omitempty"`
	// Release is the one whose deploy brought the value; 0: it was set by itself.
	Release int `json:"release,omitempty"`
	// Of is the version whose value it has again, after a way back.
	Of int `json:"of,omitempty"`
	// Older are the values before it, newest first, for tasks of earlier versions.
	Older []OldSecret `json:"older,omitempty"`
}

// OldSecret is an earlier value of a secret, as in its SecretRecord.
type OldSecret struct {
	Version  int    `json:"version"`
	Provider string `json:"provider"`
	Sealed   []byte `json:"sealed,omitempty"`
	Ref      string `json:"ref,omitempty"`
}

// Bounds of what is kept of a secret's earlier values.
const (
	keptSecrets     = 5
	keptSecretBytes = 768 << 10 // with the present one: a record is one value of the store
)

// After returns r as the successor of old, whose values it keeps as far as there is room.
func (r SecretRecord) After(old SecretRecord) SecretRecord {
	r.Older = nil
	if old.Version == 0 {
		return r
	}
	size := len(r.Sealed)
	for _, o := range append([]OldSecret{{old.Version, old.Provider, old.Sealed, old.Ref}}, old.Older...) {
		size += len(o.Sealed)
		if len(r.Older) == keptSecrets || size > keptSecretBytes {
			break
		}
		r.Older = append(r.Older, o)
	}
	return r
}

// At returns the record as it was at an earlier version, and whether that is kept.
func (r SecretRecord) At(version int) (SecretRecord, bool) {
	for _, o := range r.Older {
		if o.Version == version {
			r.Version, r.Provider, r.Sealed, r.Ref, r.Of, r.Older = o.Version, o.Provider, o.Sealed, o.Ref, 0, nil
			return r, true
		}
	}
	return r, r.Version == version
}

// VaultRef says where a value is in Vault: a field of a secret of the key/value
// engine, version 2, that is mounted at Mount.
type VaultRef struct{ Mount, Path, Field string }

// ParseVaultRef reads "MOUNT/PATH#FIELD".
func ParseVaultRef(s string) (VaultRef, error) {
	where, field, ok := strings.Cut(s, "#")
	mount, path, ok2 := strings.Cut(where, "/")
	if !ok || !ok2 || mount == "" || path == "" || field == "" || len(s) > 1024 ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) ||
		slices.ContainsFunc(strings.Split(where, "/"), func(p string) bool { return p == "" || p == "." || p == ".." }) {
		return VaultRef{}, Invalidf("%.100q is no place in Vault: write MOUNT/PATH#FIELD, as in kv/shop/db#password", s)
	}
	return VaultRef{mount, path, field}, nil
}

// Config is a non-secret file of an app. Source: API.
type Config struct {
	App     AppName `json:"app"`
	Name    string  `json:"name"`
	Content []byte  `json:"content"`
	// Hash is the hex SHA-256 of Content, its first 16 digits.
	Hash string `json:"hash"`
}

// Sealed is what the broker writes for one task: an age message encrypted to
// the node's public key; the plain text is the JSON of Payload.
type Sealed struct {
	Task TaskID `json:"task"`
	Node NodeID `json:"node"`
	Data []byte `json:"data"`
	// Key is the public key that Data is encrypted to.
	Key string `json:"key,omitempty"`
}

// Payload is the plain text of a Sealed: the content of the files a task mounts
// and the values its environment takes. It exists in memory only.
type Payload struct {
	Secrets map[string][]byte `json:"secrets,omitempty"` // by secret name
	Configs map[string][]byte `json:"configs,omitempty"` // by config name
}

// Format implements fmt.Formatter: a payload that slips into a log line shows nothing.
func (Payload) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[payload]")) }
