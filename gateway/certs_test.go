package gateway

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestServedCertificates(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	cert := func(name, cn, dns string, from, until time.Duration) readCert {
		return readCert{Cert{Name: name}, &x509.Certificate{
			Subject: pkix.Name{CommonName: cn}, DNSNames: strings.Fields(dns), NotBefore: now.Add(from), NotAfter: now.Add(until),
		}}
	}
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		certs []readCert
		want  string
	}{
		"renewed under another name": {[]readCert{cert("a", "", "x", -80*day, 10*day), cert("b", "", "x", -day, 89*day)}, "b"},
		"the same by its own name":   {[]readCert{cert("a", "", "x", -day, day), cert("b", "", "x", -day, day)}, "a"},
		"made later, ending alike":   {[]readCert{cert("a", "", "x", -2*day, day), cert("b", "", "x", -day, day)}, "b"},
		"not begun":                  {[]readCert{cert("a", "", "x", -day, day), cert("b", "", "x", day, 90*day)}, "a"},
		"begun, ending sooner":       {[]readCert{cert("a", "", "x", day, 90*day), cert("b", "", "x", -day, 2*day)}, "b"},
		"a part of the names":        {[]readCert{cert("a", "", "x", -day, day), cert("b", "", "y X", -day, 2*day)}, "b"},
		"more names":                 {[]readCert{cert("a", "", "x y", -day, day), cert("b", "", "y", -day, 2*day)}, "b a"},
		"a wildcard is no name":      {[]readCert{cert("a", "", "a.x", -day, day), cert("b", "", "*.x", -day, 2*day)}, "b a"},
		"by its common name":         {[]readCert{cert("a", "x", "x", -day, day), cert("b", "", "x", -day, 2*day)}, "b"},
		"one more common name":       {[]readCert{cert("a", "z", "x", -day, day), cert("b", "", "x", -day, 2*day)}, "b a"},
		"two hosts":                  {[]readCert{cert("a", "", "x", -day, day), cert("b", "", "y", -day, 2*day)}, "b a"},
	} {
		for range 2 {
			var got []string
			for _, x := range served(c.certs, now) {
				got = append(got, x.Name)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %v, not %s", name, got, c.want)
			}
			slices.Reverse(c.certs)
		}
	}
}
