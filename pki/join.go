package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

const requestType = "CERTIFICATE REQUEST"

// MemberName is the common name of a joined node's certificate, and of its etcd
// user. It carries the key: a node that was removed and joins again under its
// name is another user, and its old certificate stays refused.
func MemberName(id cluster.NodeID, key string) string {
	return NodeName(id) + ":" + key[:min(len(key), 16)]
}

// MemberNode returns the node that a common name of MemberName is of.
func MemberNode(name string) (cluster.NodeID, bool) {
	rest, ok := strings.CutPrefix(name, "node:")
	id, _, keyed := strings.Cut(rest, ":")
	return cluster.NodeID(id), ok && keyed
}

// KeyID names a public key: the hex SHA-256 of it.
func KeyID(pub any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// NodeRequest is a node's request for a certificate, checked.
type NodeRequest struct {
	// Key is the KeyID of the node's public key.
	Key string
	pub any
}

// ParseRequest reads a request in PEM and checks that its sender has the key.
func ParseRequest(csr []byte) (NodeRequest, error) {
	block, _ := pem.Decode(csr)
	if block == nil || block.Type != requestType {
		return NodeRequest{}, cluster.Invalidf("the certificate request is not in PEM")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return NodeRequest{}, cluster.Invalidf("the certificate request is not valid: %w", err)
	}
	if _, ok := r.PublicKey.(*ecdsa.PublicKey); !ok {
		return NodeRequest{}, cluster.Invalidf("the certificate request has a key of another kind than ECDSA")
	}
	key, err := KeyID(r.PublicKey)
	return NodeRequest{Key: key, pub: r.PublicKey}, err
}

// IssueNode signs the certificate of a node that joins, or renews its own. By a clock that is
// ahead it would be none to anybody until that day, and could not be renewed either.
func (a *Authority) IssueNode(id cluster.NodeID, r NodeRequest, now time.Time) ([]byte, error) {
	return a.Issue(Request{Use: UseClient, Name: MemberName(id, r.Key), Key: r.pub, Now: now, Always: true})
}

// JoinToken is what a new node shows: the secret, and the authority it may trust.
type JoinToken struct {
	Secret      string
	Fingerprint string // as Authority.Fingerprint has it
}

const joinPrefix = "flj_"

// NewJoinToken makes a token for the cluster with this authority.
func NewJoinToken(fingerprint string) (JoinToken, error) {
	var b [18]byte
	if _, err := rand.Read(b[:]); err != nil {
		return JoinToken{}, fmt.Errorf("make a join token: %w", err)
	}
	return JoinToken{Secret: base64.RawURLEncoding.EncodeToString(b[:]), Fingerprint: fingerprint}, nil
}

// Format keeps tokens out of logs; Text is the token.
func (t JoinToken) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(joinPrefix + "…")) }

// Text is the token as people copy it.
func (t JoinToken) Text() string {
	raw, _ := hex.DecodeString(strings.TrimPrefix(t.Fingerprint, "sha256:"))
	return joinPrefix + t.Secret + "." + base64.RawURLEncoding.EncodeToString(raw)
}

// ParseJoinToken reads Text. Its error does not quote the token.
func ParseJoinToken(text string) (JoinToken, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), joinPrefix)
	secret, fp, both := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(fp)
	if !ok || !both || secret == "" || err != nil || len(raw) != sha256.Size {
		return JoinToken{}, cluster.Invalidf("that is not a whole join token: copy the line that `fairlead node invite` prints")
	}
	return JoinToken{Secret: secret, Fingerprint: "sha256:" + hex.EncodeToString(raw)}, nil
}

// Member is a joined node's certificate and the authority it trusts, in a directory.
type Member struct {
	dir string
	now func() time.Time

	mu   sync.RWMutex
	pair *tls.Certificate
	pool *x509.CertPool
	root *x509.Certificate // the authority
}

// memberKeyFile is kept from before the first join on, so that a join whose
// answer was lost can be tried again.
const memberKeyFile = "member.key"

// PrepareMember makes or reads the node's key in dir and returns a request for a
// certificate.
func PrepareMember(dir string) (csr []byte, err error) {
	keyPEM, err := once(filepath.Join(dir, memberKeyFile), func() ([]byte, error) {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		return encodeKey(key)
	})
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, cluster.Invalidf("%s: %w; remove it to join as a new node", filepath.Join(dir, memberKeyFile), err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "fairlead node"}}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestType, Bytes: der}), nil
}

// SetAsideKey makes the next PrepareMember make another key: the one of a node that was
// removed may be known to others. settle ends it: the new one is taken, or the former
// one comes back.
func SetAsideKey(dir string) (settle func(taken bool) error, err error) {
	path := filepath.Join(dir, memberKeyFile)
	old := path + ".old"
	if err := os.Rename(path, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return func(taken bool) error {
		var err error
		if taken {
			err = os.Remove(old)
		} else {
			err = os.Rename(old, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}, nil
}

// SaveMember keeps what the server answered to a request: the cluster's ID, the
// authority's certificate and, last, the node's.
func SaveMember(dir, clusterID string, ca, chain []byte) error {
	if !clusterIDRE.MatchString(clusterID) {
		return cluster.Invalidf("the server says that its cluster is %q, which is no cluster ID", clusterID)
	}
	key, err := read(filepath.Join(dir, memberKeyFile))
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return fmt.Errorf("the server signed another key than this node's: %w", err)
	}
	if err := write(filepath.Join(dir, clusterIDFile), []byte(clusterID+"\n")); err != nil {
		return err
	}
	if err := write(filepath.Join(dir, caCertFile), ca); err != nil {
		return err
	}
	return write(filepath.Join(dir, nodeFile), append(append([]byte{}, chain...), key...))
}

// IsAuthority reports whether dir holds a cluster's authority: it is a server's.
func IsAuthority(dir string) bool {
	_, err := read(filepath.Join(dir, caKeyFile))
	return err == nil
}

// OpenMember reads a joined node's certificate; KindNotFound when it never joined.
func OpenMember(dir string, now func() time.Time) (*Member, error) {
	m := &Member{dir: dir, now: now}
	return m, m.Reload()
}

// Reload reads the files again: connections from now on use them.
func (m *Member) Reload() error {
	path := filepath.Join(m.dir, nodeFile)
	b, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cluster.NotFoundf("this node has not joined a cluster")
	}
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return cluster.Invalidf("%s: %w; remove it to join again", path, err)
	}
	ca, err := read(filepath.Join(m.dir, caCertFile))
	if err != nil {
		return err
	}
	root, err := decodeCert(ca)
	if err != nil {
		return cluster.Invalidf("%s: %w; remove %s to join again", filepath.Join(m.dir, caCertFile), err, path)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pair, m.pool, m.root = &pair, pool, root
	return nil
}

// Fingerprint names the authority that the node trusts, as Authority.Fingerprint does.
func (m *Member) Fingerprint() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return fingerprint(m.root.Raw)
}

// Ended returns when the certificate ended; false while it is good, or not yet.
func (m *Member) Ended() (time.Time, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	end := m.pair.Leaf.NotAfter
	return end, m.now().After(end)
}

// Begins returns when the certificate begins; true while that is to come though the
// authority's time has: it was signed by a clock that was ahead, unless this one is behind.
func (m *Member) Begins() (time.Time, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	begin, now := m.pair.Leaf.NotBefore, m.now()
	return begin, now.Before(begin) && clock(m.root, now) == nil
}

// Due reports whether less than a third of what a certificate is given is left.
func (m *Member) Due() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := m.pair.Leaf
	return c.NotAfter.Sub(m.now()) < min(LeafLife, c.NotAfter.Sub(c.NotBefore))/3
}

// TLS shows the node's certificate, to servers of its cluster's authority alone.
func (m *Member) TLS() *tls.Config {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.pool, GetClientCertificate: m.shown}
}

// AnywhereTLS is TLS to a server at an address that its certificate need not have, as a
// person gives it who has the node join.
func (m *Member) AnywhereTLS() *tls.Config {
	m.mu.RLock()
	defer m.mu.RUnlock()
	pool := m.pool
	c := anywhere(func(certs []*x509.Certificate) error { return ofServer(certs[0], pool) })
	c.GetClientCertificate = m.shown
	return c
}

func (m *Member) shown(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.pair, nil
}
