package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerCerts(api huma.API) {
	handle(api, op(http.MethodGet, "/certs", "list-certs", "certificates", "List certificates"), s.listCerts)
	handle(api, op(http.MethodPut, "/certs/{name}", "add-cert", "certificates", "Add or replace a certificate"), s.addCert)
	handle(api, op(http.MethodDelete, "/certs/{name}", "remove-cert", "certificates", "Remove a certificate"), s.removeCert)
	handle(api, op(http.MethodGet, "/registries", "list-registries", "images", "List logins, without passwords"), s.listRegistries)
	handle(api, op(http.MethodPost, "/registries", "login", "images", "Keep credentials of a registry"), s.login)
	handle(api, op(http.MethodDelete, "/registries/{host}", "logout", "images", "Forget credentials of a registry"), s.logout)
}

// CertPath names a certificate.
type CertPath struct {
	Name string `path:"name" maxLength:"100"`
}

func (s *Server) listCerts(_ context.Context, _ *noInput) ([]v1.CertSummary, error) {
	out := []v1.CertSummary{}
	s.Mirror.Read(func(v store.View) {
		hosts := tlsHosts(v)
		for _, e := range store.All[v1.CertRecord](v, store.CertKey(""), nil) {
			out = append(out, certSummary(e.V, hosts, s.Now()))
		}
	})
	return out, nil
}

// tlsHosts are the hosts of routes that are served with TLS; "" is any host.
func tlsHosts(v store.View) []string {
	var out []string
	for _, svc := range store.Services(v) {
		for _, r := range svc.Spec.Routes {
			if r.TLS || slices.Contains(r.EntryPoints, "websecure") {
				out = append(out, strings.ToLower(r.Host))
			}
		}
	}
	return out
}

// unused reports whether no route with TLS has a host that the certificate is for.
func unused(r v1.CertRecord, hosts []string) bool {
	return !slices.ContainsFunc(hosts, func(h string) bool {
		return h == "" || slices.ContainsFunc(r.Hosts, func(of string) bool {
			of = strings.ToLower(of)
			_, parent, _ := strings.Cut(h, ".")
			return of == h || of == "*."+parent
		})
	})
}

const soon = 21 * 24 * time.Hour

func certSummary(r v1.CertRecord, hosts []string, now time.Time) v1.CertSummary {
	out := v1.CertSummary{
		Name: r.Name, Hosts: r.Hosts, NotBefore: r.NotBefore, NotAfter: r.NotAfter, Added: r.Added, By: r.By,
	}
	if pair, err := parseChain([]byte(r.Chain)); err == nil {
		out.Subject, out.Issuer = pair.Subject.String(), pair.Issuer.String()
	}
	if out.Warning = validity(r, now); out.Warning == "" && unused(r, hosts) {
		out.Warning = "no route of these hosts has tls: true"
	}
	return out
}

// validity says why the certificate is not good for long; "" is that it is.
func validity(r v1.CertRecord, now time.Time) string {
	switch {
	case now.After(r.NotAfter):
		return fmt.Sprintf("expired on %s", r.NotAfter.Format(time.DateOnly))
	case now.Before(r.NotBefore):
		return fmt.Sprintf("not valid before %s", r.NotBefore.Format(time.DateOnly))
	case now.Add(soon).After(r.NotAfter):
		return fmt.Sprintf("expires on %s", r.NotAfter.Format(time.DateOnly))
	}
	return ""
}

// parseChain returns a chain's first certificate.
func parseChain(chain []byte) (*x509.Certificate, error) {
	rest := chain
	for {
		block, more := pem.Decode(rest)
		if block == nil {
			return nil, cluster.Invalidf("the chain holds no PEM certificate")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		rest = more
	}
}

type addCertInput struct {
	CertPath
	Body v1.CertAdd
}

func (s *Server) addCert(ctx context.Context, in *addCertInput) (v1.CertSummary, error) {
	if err := cluster.ValidName("certificate", in.Name); err != nil {
		return v1.CertSummary{}, err
	}
	pair, err := tls.X509KeyPair([]byte(in.Body.Chain), in.Body.Key)
	if err != nil {
		return v1.CertSummary{}, cluster.Invalidf("certificate %s: %s: give the chain as PEM, the server's certificate first, and its private key as PEM", in.Name, strings.TrimPrefix(err.Error(), "tls: "))
	}
	leaf := pair.Leaf
	now := s.Now()
	if now.After(leaf.NotAfter) {
		return v1.CertSummary{}, cluster.Invalidf("certificate %s expired on %s: renew it first", in.Name, leaf.NotAfter.Format(time.DateOnly))
	}
	rec := v1.CertRecord{
		Name: in.Name, Chain: in.Body.Chain, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Added: now.UTC(), By: who(ctx),
		Hosts: slices.Clone(leaf.DNSNames),
	}
	for _, ip := range leaf.IPAddresses {
		rec.Hosts = append(rec.Hosts, ip.String())
	}
	if len(rec.Hosts) == 0 {
		return v1.CertSummary{}, cluster.Invalidf("certificate %s names no host (no subject alternative name): no client would accept it; make one that names its hosts there", in.Name)
	}
	if rec.Sealed, err = s.Keeper.Seal(in.Body.Key, v1.CertContext(in.Name)); err != nil {
		return v1.CertSummary{}, err
	}
	if err := s.replace(ctx, store.CertKey(in.Name), rec); err != nil {
		return v1.CertSummary{}, err
	}
	s.Log.Info("added a certificate", "name", in.Name, "hosts", len(rec.Hosts), "by", who(ctx))
	var hosts []string
	s.Mirror.Read(func(v store.View) { hosts = tlsHosts(v) })
	return certSummary(rec, hosts, now), nil
}

// replace writes a value that stands for itself, over whatever is there.
func (s *Server) replace(ctx context.Context, key string, v any) error {
	return s.decide(ctx, func(ctx context.Context) error {
		st, err := put(key, v, s.rev(key))
		if err != nil {
			return err
		}
		return s.commit(ctx, nil, []step{st})
	})
}

// rev is the revision of a key, 0 when it does not exist.
func (s *Server) rev(key string) int64 {
	var e store.Entry
	s.Mirror.Read(func(v store.View) { e, _ = v.Entry(key) })
	return e.Rev
}

// forget removes a key that must exist.
func (s *Server) forget(ctx context.Context, key string, missing error) error {
	return s.decide(ctx, func(ctx context.Context) error {
		rev := s.rev(key)
		if rev == 0 {
			return missing
		}
		return s.commit(ctx, nil, []step{remove(key, rev)})
	})
}

func (s *Server) removeCert(ctx context.Context, in *CertPath) (nothing, error) {
	if err := cluster.ValidName("certificate", in.Name); err != nil {
		return nothing{}, err
	}
	return nothing{}, s.forget(ctx, store.CertKey(in.Name), cluster.NotFoundf("there is no certificate %q; `fairlead cert ls` lists them", in.Name))
}

func (s *Server) listRegistries(_ context.Context, _ *noInput) ([]v1.RegistrySummary, error) {
	out := []v1.RegistrySummary{}
	s.Mirror.Read(func(v store.View) {
		for _, e := range store.All[v1.RegistryRecord](v, store.RegistryCredentialKey(""), nil) {
			out = append(out, v1.RegistrySummary{Host: e.V.Host, Username: e.V.Username, Added: e.V.Added, By: e.V.By})
		}
	})
	return out, nil
}

var registryRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$`)

func registryHost(host string) (string, error) {
	host = strings.ToLower(host)
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if !registryRE.MatchString(host) {
		return "", cluster.Invalidf("registry %q: write a host name, with a port when it has one (registry.example.com:5000)", host)
	}
	return host, nil
}

type loginInput struct{ Body v1.RegistryLogin }

func (s *Server) login(ctx context.Context, in *loginInput) (v1.RegistrySummary, error) {
	host, err := registryHost(in.Body.Host)
	if err != nil {
		return v1.RegistrySummary{}, err
	}
	rec := v1.RegistryRecord{Host: host, Username: in.Body.Username, Added: s.Now().UTC(), By: who(ctx)}
	if rec.Sealed, err = s.Keeper.Seal(in.Body.Password, v1.RegistryContext(host)); err != nil {
		return v1.RegistrySummary{}, err
	}
	s.Log.Info("kept a login", "registry", host, "by", who(ctx))
	return v1.RegistrySummary{Host: host, Username: rec.Username, Added: rec.Added, By: rec.By},
		s.replace(ctx, store.RegistryCredentialKey(host), rec)
}

type registryPath struct {
	Host string `path:"host" maxLength:"255"`
}

func (s *Server) logout(ctx context.Context, in *registryPath) (nothing, error) {
	host, err := registryHost(in.Host)
	if err != nil {
		return nothing{}, err
	}
	return nothing{}, s.forget(ctx, store.RegistryCredentialKey(host), cluster.NotFoundf("there is no login for %s", host))
}
