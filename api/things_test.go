package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// certificate makes a self-signed pair for a host.
func certificate(t *testing.T, until time.Time, hosts ...string) v1.CertAdd {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: hosts,
		NotBefore: until.Add(-1000 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return v1.CertAdd{
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}
}

func TestCerts(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	good := certificate(t, time.Now().Add(24*time.Hour), "shop.test")
	sum, err := b.AddCert(ctx, "shop", good)
	if err != nil || sum.Hosts[0] != "shop.test" || !strings.Contains(sum.Warning, "expires on") {
		t.Fatalf("%+v %v", sum, err)
	}
	rec := get[v1.CertRecord](b, store.CertKey("shop"))
	if key, err := b.key.Open(rec.Sealed, v1.CertContext("shop")); err != nil || string(key) != string(good.Key) {
		t.Errorf("%v", err)
	}
	entry, err := b.store.Get(ctx, store.CertKey("shop"))
	if err != nil || strings.Contains(string(entry.Value), "PRIVATE") {
		t.Errorf("the key is in the store in clear: %v", err)
	}
	long := certificate(t, time.Now().Add(28*24*time.Hour), "*.shop.test")
	if sum, err := b.AddCert(ctx, "long", long); err != nil || !strings.Contains(sum.Warning, "tls: true") {
		t.Errorf("a certificate that nothing uses: %+v %v", sum, err)
	}
	spec := service("web:1")
	spec.Routes = []cluster.Route{{Host: "www.shop.test", Port: 80, TLS: true}}
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
	if sum, err := b.AddCert(ctx, "long", long); err != nil || sum.Warning != "" {
		t.Errorf("a certificate that is used: %+v %v", sum, err)
	}
	if err := b.RemoveCert(ctx, "long"); err != nil {
		t.Fatal(err)
	}
	other := certificate(t, time.Now().Add(24*time.Hour), "other.test")
	for name, bad := range map[string]v1.CertAdd{
		"another key": {Chain: good.Chain, Key: other.Key},
		"no PEM":      {Chain: "x", Key: v1.Plain("y")},
		"expired":     certificate(t, time.Now().Add(-time.Hour), "shop.test"),
		"no host":     certificate(t, time.Now().Add(time.Hour)),
	} {
		if _, err := b.AddCert(ctx, "bad", bad); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.AddCert(ctx, "a b", good); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("hostile name: %v", err)
	}
	if list, err := b.Certs(ctx); err != nil || len(list) != 1 || list[0].Subject != "CN=x" {
		t.Errorf("%+v %v", list, err)
	}
	if err := b.RemoveCert(ctx, "shop"); err != nil {
		t.Error(err)
	}
	if err := b.RemoveCert(ctx, "shop"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Error(err)
	}
}

func TestRegistries(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if _, err := b.Login(ctx, v1.RegistryLogin{Host: "Reg.Example.com:5000", Username: "ann", Password: v1.Plain("hunter2")}); err != nil {
		t.Fatal(err)
	}
	rec := get[v1.RegistryRecord](b, store.RegistryCredentialKey("reg.example.com:5000"))
	if pw, err := b.key.Open(rec.Sealed, v1.RegistryContext(rec.Host)); err != nil || string(pw) != "hunter2" {
		t.Errorf("%q %v", pw, err)
	}
	if list, err := b.Registries(ctx); err != nil || len(list) != 1 || list[0].Username != "ann" {
		t.Errorf("%+v %v", list, err)
	}
	for _, host := range []string{"a/b", "https://x", "../x"} {
		if _, err := b.Login(ctx, v1.RegistryLogin{Host: host, Username: "u", Password: v1.Plain("p")}); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := b.Logout(ctx, "reg.example.com:5000"); err != nil {
		t.Error(err)
	}
	if err := b.Logout(ctx, "reg.example.com:5000"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Error(err)
	}
}

func TestNodes(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	svc := deployWeb(t, b, cluster.RolloutComplete)
	b.run(webID, 1, svc.Version)
	n, err := b.ChangeNode(ctx, "n1", v1.NodeChange{Availability: cluster.Drain, Labels: map[string]string{"zone": "a", "disk": "ssd"}})
	if err != nil || n.Availability != cluster.Drain || n.Tasks != 1 {
		t.Fatalf("%+v %v", n, err)
	}
	if _, err := b.ChangeNode(ctx, "n1", v1.NodeChange{Unset: []string{"disk"}}); err != nil {
		t.Fatal(err)
	}
	want := cluster.NodeSpec{ID: "n1", Availability: cluster.Drain, Labels: map[string]string{"zone": "a"}}
	if diff := cmp.Diff(want, get[cluster.NodeSpec](b, store.NodeSpecKey("n1"))); diff != "" {
		t.Error(diff)
	}
	d, err := b.Node(ctx, "n1")
	if err != nil || len(d.Each) != 1 || d.Labels["zone"] != "a" {
		t.Errorf("%+v %v", d, err)
	}
	if list, err := b.Nodes(ctx); err != nil || len(list) != 1 || !list[0].Alive {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := b.ChangeNode(ctx, "n9", v1.NodeChange{Availability: cluster.Drain}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Error(err)
	}
	if _, err := b.ChangeNode(ctx, "n1", v1.NodeChange{Availability: "asleep"}); cluster.KindOf(err) != cluster.KindInvalid {
		t.Error(err)
	}
	if _, err := b.ChangeNode(ctx, "n1", v1.NodeChange{Labels: map[string]string{"a b": "c"}}); cluster.KindOf(err) != cluster.KindInvalid {
		t.Error(err)
	}
}

func TestAppsAndExposure(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if apps, err := b.Apps(ctx); err != nil || len(apps) != 0 {
		t.Errorf("%+v %v", apps, err)
	}
	s := service("web:1")
	s.Routes = []cluster.Route{{Host: "shop.test", Port: 80, Source: cluster.Source{File: "compose.yaml", Line: 12}}}
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": s}))
	apps, err := b.Apps(ctx)
	if err != nil || len(apps) != 1 || apps[0].State != "deploying" || apps[0].URLs[0] != "http://shop.test/" {
		t.Errorf("%+v %v", apps, err)
	}
	ex, err := b.Exposure(ctx, "")
	if err != nil || len(ex) != 1 || ex[0].String() != "PUBLIC http://shop.test/ → web (compose.yaml:12)" {
		t.Errorf("%+v %v", ex, err)
	}
	svcs, err := b.Services(ctx, "shop")
	if err != nil || len(svcs) != 1 || svcs[0].State != "pending" || svcs[0].Wanted != 2 || svcs[0].Owner != "release" {
		t.Errorf("%+v %v", svcs, err)
	}
}
