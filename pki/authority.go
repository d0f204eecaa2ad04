package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Lifetimes. A certificate is valid from an hour ago, for clocks that differ; a node's, which
// others sign, from the authority's first day on.
const (
	AuthorityLife = 20 * 365 * 24 * time.Hour
	LeafLife      = 365 * 24 * time.Hour
	backdate      = time.Hour
)

// Names of files in the directory.
const (
	caCertFile = "ca.crt"
	caKeyFile  = "ca.key"
)

// Use is what a certificate is for.
type Use string

// Uses.
const (
	UseServer Use = "server" // shown to clients: has the machine's names and addresses
	UsePeer   Use = "peer"   // between members of the embedded etcd, both ways
	UseClient Use = "client" // shown by a client; has no names or addresses, or etcd would look them up
)

// Common names that mean something to etcd or to Fairlead.
const (
	NameRoot = "root"
	NamePeer = "peer"
)

// NodeName is the common name of a node's certificate, and of its etcd user.
func NodeName(id cluster.NodeID) string { return "node:" + string(id) }

// Authority is the cluster's certificate authority.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// openAuthority reads the authority from dir, or makes one. The key is written
// before the certificate: a key alone is what a crash between the two leaves.
func openAuthority(dir string, now time.Time) (*Authority, error) {
	keyPath, certPath := filepath.Join(dir, caKeyFile), filepath.Join(dir, caCertFile)
	certPEM, certErr := read(certPath)
	keyPEM, keyErr := read(keyPath)
	switch {
	case certErr == nil && keyErr == nil:
	case errors.Is(certErr, fs.ErrNotExist) && unset(now) != nil:
		return nil, unset(now)
	case errors.Is(certErr, fs.ErrNotExist) && keyErr == nil:
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		if keyPEM, err = encodeKey(key); err != nil {
			return nil, err
		}
		if err := write(keyPath, keyPEM); err != nil {
			return nil, err
		}
	case certErr == nil && errors.Is(keyErr, fs.ErrNotExist):
		return nil, cluster.Invalidf("%s is missing but %s is there: restore the key, for the cluster trusts that authority", keyPath, certPath)
	default:
		return nil, fmt.Errorf("read the certificate authority: %w", errors.Join(certErr, keyErr))
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, cluster.Invalidf("%s: %w", keyPath, err)
	}
	if certErr != nil {
		if certPEM, err = selfSign(key, now); err != nil {
			return nil, err
		}
		if err := write(certPath, certPEM); err != nil {
			return nil, err
		}
	}
	cert, err := decodeCert(certPEM)
	if err != nil {
		return nil, cluster.Invalidf("%s: %w", certPath, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) || !cert.IsCA {
		return nil, cluster.Invalidf("%s and %s do not belong together", certPath, keyPath)
	}
	return &Authority{cert: cert, key: key, pem: certPEM}, nil
}

func selfSign(key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Fairlead cluster authority " + serial.Text(36)[:8]},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(AuthorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate authority: %w", err)
	}
	return encodeCert(der), nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return a.pem }

// Key is the authority's key as PEM, for a server that joins.
func (a *Authority) Key() ([]byte, error) { return encodeKey(a.key) }

// SaveAuthority keeps the authority of a cluster whose server this machine becomes;
// the certificate, which says that all is there, last.
func SaveAuthority(dir, clusterID string, ca, key []byte) error {
	if !clusterIDRE.MatchString(clusterID) {
		return cluster.Invalidf("the server says that its cluster is %q, which is no cluster ID", clusterID)
	}
	cert, err := decodeCert(ca)
	if err != nil {
		return cluster.Invalidf("the authority's certificate, as it came: %w", err)
	}
	priv, err := decodeKey(key)
	if err != nil || !priv.PublicKey.Equal(cert.PublicKey) || !cert.IsCA {
		return cluster.Invalidf("the authority's certificate and its key, as they came, do not belong together")
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{{clusterIDFile, []byte(clusterID + "\n")}, {caKeyFile, key}, {caCertFile, ca}} {
		if err := write(filepath.Join(dir, f.name), f.b); err != nil {
			return err
		}
	}
	return nil
}

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Fingerprint names the authority: "sha256:" and the hex digest of its certificate.
func (a *Authority) Fingerprint() string { return fingerprint(a.cert.Raw) }

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Request asks for a certificate.
type Request struct {
	Use  Use
	Name string // common name
	// Hosts are the names and IP addresses of a server or peer.
	Hosts []string
	// Key is the public key to sign, when its owner keeps the private one.
	Key crypto.PublicKey
	Now time.Time
	// Always: it is valid from the authority's first day on, by whatever clock it is signed.
	Always bool
}

// Issue signs a certificate and returns its chain, the authority included, as
// PEM; without Request.Key it makes a key and returns it in the same PEM.
func (a *Authority) Issue(r Request) ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	var keyPEM []byte
	pub := r.Key
	if pub == nil {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		if keyPEM, err = encodeKey(key); err != nil {
			return nil, err
		}
		pub = key.Public()
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := r.Now.Add(LeafLife)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	begin := r.Now.Add(-backdate)
	if r.Always {
		begin = a.cert.NotBefore
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: r.Name},
		NotBefore: begin, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: r.Use.extended(),
	}
	t.DNSNames, t.IPAddresses = split(r.Hosts)
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", r.Name, err)
	}
	out := append(encodeCert(der), a.pem...)
	return append(out, keyPEM...), nil
}

func (r Request) validate() error {
	switch {
	case r.Name == "" || r.Now.IsZero():
		return cluster.Invalidf("certificate request without a name or a time")
	case r.Use == UseClient && len(r.Hosts) > 0:
		return cluster.Invalidf("client certificate of %s: it must carry no names or addresses", r.Name)
	case r.Use != UseClient && len(r.Hosts) == 0:
		return cluster.Invalidf("%s certificate of %s without a name or address", r.Use, r.Name)
	case (r.Use == UsePeer) != (r.Name == NamePeer):
		return cluster.Invalidf("%s certificate may not be named %q", r.Use, r.Name)
	}
	return nil
}

func (u Use) extended() []x509.ExtKeyUsage {
	switch u {
	case UsePeer:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case UseServer:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case UseClient:
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}

func split(hosts []string) (names []string, ips []net.IP) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			ips = append(ips, ip)
			continue
		}
		names = append(names, h)
	}
	return names, ips
}
