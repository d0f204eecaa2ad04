package gateway

import (
	"crypto/tls"
	"slices"
	"strings"

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
	certs = slices.Clone(certs)
	slices.SortFunc(certs, func(a, b Cert) int { return strings.Compare(a.Name, b.Name) })
	list := make([]object, 0, len(certs))
	for _, x := range certs {
		// One pair that does not load would keep Traefik from reading the file.
		if _, err := tls.X509KeyPair(x.CertPEM, x.KeyPEM.Reveal()); err != nil {
			return cluster.Invalidf("gateway: certificate %s: %w", x.Name, err)
		}
		list = append(list, object{"certFile": string(x.CertPEM), "keyFile": string(x.KeyPEM.Reveal())})
	}
	return certificatesFile.write(c, list, nil, len(list) > 0)
}
