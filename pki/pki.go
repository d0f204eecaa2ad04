package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/fairlead/fairlead/cluster"
)

// Host is the machine that certificates are for.
type Host struct {
	Node cluster.NodeID
	// Hosts are the names and addresses others reach it by; localhost,
	// 127.0.0.1 and ::1 are always added.
	Hosts []string
}

// PKI is the authority and this machine's certificates, in a directory.
type PKI struct {
	*Authority
	dir  string
	host Host
	now  func() time.Time

	mu    sync.RWMutex
	pairs map[string]*tls.Certificate // by file
}

// Names of the certificates' files; each holds chain and key.
const (
	serverFile = "server.pem"
	peerFile   = "peer.pem"
	rootFile   = "root.pem"
	nodeFile   = "node.pem"
)

// Open reads what is in dir and makes what is missing or due (Renew). It may be
// called any number of times, by several processes.
func Open(dir string, host Host, now func() time.Time) (_ *PKI, err error) {
	if err := cluster.ValidName("node", string(host.Node)); err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	a, err := openAuthority(dir, now())
	if err = errors.Join(err, unlock()); err != nil {
		return nil, err
	}
	if !now().Before(a.cert.NotAfter) {
		return nil, cluster.Invalidf("the cluster's certificate authority in %s ended on %s, or this machine's clock is wrong", dir, a.cert.NotAfter.Format(time.DateOnly))
	}
	p := &PKI{Authority: a, dir: dir, host: host, now: now, pairs: map[string]*tls.Certificate{}}
	if _, err := p.Renew(); err != nil {
		return nil, err
	}
	return p, nil
}

// NodeOf says whose certificates are in a server's directory: the node's name when it last
// ran; "" where none are.
func NodeOf(dir string) cluster.NodeID {
	b, err := read(filepath.Join(dir, nodeFile))
	if err != nil {
		return ""
	}
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return ""
	}
	name, is := strings.CutPrefix(pair.Leaf.Subject.CommonName, NodeName(""))
	if !is || cluster.ValidName("node", name) != nil {
		return ""
	}
	return cluster.NodeID(name)
}

func lockDir(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of certificates: %w", err)
	}
	l, err := fileutil.LockFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory of certificates: %w", err)
	}
	return l.Close, nil
}

// Renew replaces each certificate that is missing, damaged, of another
// authority, lacks one of the host's names, is not good yet, or has less than a third
// of its life left. It returns the files it replaced. What serves already (the TLS
// configurations of this PKI, the embedded etcd) uses them from its next connection.
func (p *PKI) Renew() (replaced []string, err error) {
	unlock, err := lockDir(p.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	hosts := slices.Clone(p.host.Hosts)
	hosts = append(hosts, "localhost", "127.0.0.1", "::1")
	slices.Sort(hosts)
	hosts = slices.DeleteFunc(slices.Compact(hosts), func(h string) bool { return h == "" })
	now := p.now()
	for _, f := range []struct {
		file string
		req  Request
	}{
		{serverFile, Request{Use: UseServer, Name: string(p.host.Node), Hosts: hosts, Now: now}},
		{peerFile, Request{Use: UsePeer, Name: NamePeer, Hosts: hosts, Now: now}},
		{rootFile, Request{Use: UseClient, Name: NameRoot, Now: now}},
		{nodeFile, Request{Use: UseClient, Name: NodeName(p.host.Node), Now: now}},
	} {
		made, err := p.ensure(f.file, f.req)
		if err != nil {
			return replaced, fmt.Errorf("certificate %s: %w", filepath.Join(p.dir, f.file), err)
		}
		if made {
			replaced = append(replaced, f.file)
		}
	}
	return replaced, nil
}

func (p *PKI) ensure(file string, r Request) (made bool, err error) {
	path := filepath.Join(p.dir, file)
	b, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	pair, perr := tls.X509KeyPair(b, b)
	if err != nil || perr != nil || p.due(pair.Leaf, r) {
		made = true
		if b, err = p.Issue(r); err != nil {
			return false, err
		}
		if err := write(path, b); err != nil {
			return false, err
		}
		if pair, err = tls.X509KeyPair(b, b); err != nil {
			return false, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pairs[file] = &pair
	return made, nil
}

// due reports whether a certificate must be replaced to satisfy r.
func (p *PKI) due(c *x509.Certificate, r Request) bool {
	names, ips := split(r.Hosts)
	return c.CheckSignatureFrom(p.cert) != nil || c.Subject.CommonName != r.Name || !timely(c, r.Now) ||
		!slices.Equal(c.DNSNames, names) || !slices.EqualFunc(c.IPAddresses, ips, net.IP.Equal)
}

// CAFile is the path of the authority's certificate.
func (p *PKI) CAFile() string { return filepath.Join(p.dir, caCertFile) }

// ServerFile is the path of the certificate and key for clients.
func (p *PKI) ServerFile() string { return filepath.Join(p.dir, serverFile) }

// PeerFile is the path of the certificate and key among etcd's members.
func (p *PKI) PeerFile() string { return filepath.Join(p.dir, peerFile) }

// RootFile is the path of the control plane's client certificate and key.
func (p *PKI) RootFile() string { return filepath.Join(p.dir, rootFile) }

// NodeFile is the path of the node's client certificate and key.
func (p *PKI) NodeFile() string { return filepath.Join(p.dir, nodeFile) }

func (p *PKI) pair(file string) *tls.Certificate {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.pairs[file]
}

// ServerTLS serves the API: clients may show a certificate of the authority, and
// are then known by its common name, or none.
func (p *PKI) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ClientCAs: p.Pool(), ClientAuth: tls.VerifyClientCertIfGiven,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.pair(serverFile), nil },
	}
}

// NodesTLS serves those alone who show a certificate of the authority.
func (p *PKI) NodesTLS() *tls.Config {
	c := p.ServerTLS()
	c.MinVersion, c.ClientAuth = tls.VersionTLS13, tls.RequireAndVerifyClientCert
	return c
}

// RootTLS is the control plane as a client of etcd and of other servers.
func (p *PKI) RootTLS() *tls.Config { return p.clientTLS(rootFile) }

// NodeTLS is this machine's node as a client of etcd and of servers.
func (p *PKI) NodeTLS() *tls.Config { return p.clientTLS(nodeFile) }

func (p *PKI) clientTLS(file string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: p.Pool(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.pair(file), nil },
	}
}

// ClientTLS is a configuration for an etcd, or server, that Fairlead's authority
// did not make: PEM files of its authority and, when certFile is set, of a
// client certificate and its key.
func ClientTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		b, err := os.ReadFile(caFile) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, fmt.Errorf("read the authority's certificate: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(b) {
			return nil, cluster.Invalidf("%s holds no certificate in PEM", caFile)
		}
	}
	if certFile == "" && keyFile == "" {
		return cfg, nil
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, cluster.Invalidf("client certificate %s with key %s: %w", certFile, keyFile, err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	// Read again for each connection: others renew these files.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return cfg, nil
}

// Pinned trusts the servers of the one authority with this fingerprint, at whatever address:
// who joins may know a name or a forwarded port that no certificate has. The server must send
// its authority with its certificate, as ServerTLS does.
func Pinned(fp string) (*tls.Config, error) {
	if rest, ok := strings.CutPrefix(fp, "sha256:"); !ok || len(rest) != 64 {
		return nil, cluster.Invalidf("fingerprint %q: sha256: and 64 hex digits were expected", fp)
	}
	return anywhere(func(certs []*x509.Certificate) error {
		for _, c := range certs {
			if !strings.EqualFold(fingerprint(c.Raw), fp) || !c.IsCA {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(c)
			if err := ofServer(certs[0], roots); err != nil {
				return cluster.Invalidf("the server's certificate: %w", err)
			}
			return nil
		}
		return cluster.Invalidf("the server's certificate is not of the authority %s", fp)
	}), nil
}

// anywhere has check decide on a server's certificates, in which no name is looked for.
func anywhere(check func(certs []*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies
		VerifyConnection:   func(cs tls.ConnectionState) error { return check(cs.PeerCertificates) },
	}
}

// ofServer checks that an authority signed a certificate, and for a server: a node's is none.
func ofServer(c *x509.Certificate, roots *x509.CertPool) error {
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}
