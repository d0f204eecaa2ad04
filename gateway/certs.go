package gateway

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Cert is a certificate with its key. Traefik picks one by the names in it.
type Cert struct {
	Name    string
	CertPEM []byte
	KeyPEM  cluster.Secret
}

// WriteCertificates replaces the certificates that Traefik serves.
func WriteCertificates(c Config, certs []Cert) error {
	if err := prepareDynamic(c, len(certs) > 0); err != nil {
		return err
	}
	read := make([]readCert, 0, len(certs))
	for _, x := range certs {
		// One pair that does not load would keep Traefik from reading the file.
		pair, err := tls.X509KeyPair(x.CertPEM, x.KeyPEM.Reveal())
		if err != nil {
			return cluster.Invalidf("gateway: certificate %s: %w", x.Name, err)
		}
		read = append(read, readCert{x, pair.Leaf})
	}
	list := make([]object, 0, len(certs))
	for _, x := range served(read, c.Now()) {
		list = append(list, object{"certFile": string(x.CertPEM), "keyFile": string(x.KeyPEM.Reveal())})
	}
	return certificatesFile.write(c, list, nil, len(list) > 0)
}

type readCert struct {
	Cert
	leaf *x509.Certificate
}

// served are the certificates that Traefik gets. Of several for the same names it serves the
// first, however soon it ends, and where one has a part of another's it draws. So one whose
// names another has that has begun and ends later is left out: a renewed certificate serves
// at once, also under another name of its own.
func served(certs []readCert, now time.Time) []readCert {
	certs = slices.Clone(certs)
	begun := func(c readCert) int {
		if c.leaf.NotBefore.After(now) {
			return 1
		}
		return 0
	}
	slices.SortFunc(certs, func(a, b readCert) int {
		return cmp.Or(begun(a)-begun(b), b.leaf.NotAfter.Compare(a.leaf.NotAfter), b.leaf.NotBefore.Compare(a.leaf.NotBefore), strings.Compare(a.Name, b.Name))
	})
	var out []readCert
	for _, x := range certs {
		if !slices.ContainsFunc(out, func(later readCert) bool { return begun(later) == 0 && covers(later.leaf, x.leaf) }) {
			out = append(out, x)
		}
	}
	return out
}

// covers reports whether a has every name of b.
func covers(a, b *x509.Certificate) bool {
	has := names(a)
	return !slices.ContainsFunc(names(b), func(n string) bool { return !slices.Contains(has, n) })
}

func names(c *x509.Certificate) []string {
	out := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses)+1)
	for _, n := range c.DNSNames {
		out = append(out, strings.ToLower(n))
	}
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	if c.Subject.CommonName != "" { // Traefik takes it for a name, too
		out = append(out, strings.ToLower(c.Subject.CommonName))
	}
	return out
}
