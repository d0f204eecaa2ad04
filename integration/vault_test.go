package integration

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/vaultd"
	"github.com/fairlead/fairlead/secrets/vault"
)

func atVault(t *testing.T, cfg vault.Config) *vault.Client {
	t.Helper()
	c, err := vault.New(cfg, time.Now, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func inVault(place string) cluster.SecretRecord {
	return cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Provider: "vault", Ref: place}
}

// What the client tells apart, a real Vault does.
func TestVaultAnswers(t *testing.T) {
	v := vaultd.Start(t)
	v.Put("shop/db", map[string]any{"password": "s3cret", "port": 5432})
	v.Put("shop/gone", map[string]any{"x": "y"})
	v.Put("other/db", map[string]any{"password": "not for you"})
	if err := v.Root.KVv2("kv").Delete(t.Context(), "shop/gone"); err != nil {
		t.Fatal(err)
	}
	v.Policy("shop", "shop")
	_, file := v.Token("shop", "1h")
	role, secretID := v.AppRole("fairlead", "shop", "1h")
	for name, cfg := range map[string]vault.Config{
		"token":   {Address: v.Address, CACert: v.CA, TokenFile: file},
		"AppRole": {Address: v.Address, CACert: v.CA, RoleID: role, SecretIDFile: secretID},
	} {
		t.Run(name, func(t *testing.T) {
			c := atVault(t, cfg)
			for _, x := range []struct {
				place, value string
				kind         cluster.Kind
				says         string
			}{
				{place: "kv/shop/db#password", value: "s3cret"},
				{"kv/shop/db#user", "", cluster.KindNotFound, `no field "user"`},
				{"kv/shop/db#port", "", cluster.KindInvalid, "is not text"},
				{"kv/shop/web#x", "", cluster.KindNotFound, "nothing at kv/shop/web"},
				{"kv/shop/gone#x", "", cluster.KindNotFound, "nothing at kv/shop/gone"},
				{"kv/other/db#password", "", cluster.KindInvalid, "permission denied"},
				{"nothere/shop#x", "", cluster.KindInvalid, "permission denied"},
				{place: "kv/shop/db#password", value: "s3cret"},
			} {
				got, err := c.Resolve(t.Context(), inVault(x.place))
				if x.value != "" {
					if err != nil || string(got.Reveal()) != x.value {
						t.Errorf("%s: %v", x.place, err)
					}
					continue
				}
				if cluster.KindOf(err) != x.kind || !strings.Contains(err.Error(), x.says) {
					t.Errorf("%s: %v (%v); want %q", x.place, err, cluster.KindOf(err), x.says)
				}
			}
			if c.Alarm() != "" {
				t.Errorf("alarm: %s", c.Alarm())
			}
		})
	}
}

// Tokens end: that of a role is had anew, that of a file is renewed, and one that was
// revoked is asked for by name.
func TestVaultTokensEnd(t *testing.T) {
	v := vaultd.Start(t)
	v.Put("shop/db", map[string]any{"password": "s3cret"})
	v.Policy("shop", "shop")
	read := func(c *vault.Client) error {
		_, err := c.Resolve(t.Context(), inVault("kv/shop/db#password"))
		return err
	}

	// So long that a machine which stands still for seconds outlasts no token before it is used,
	// or renewed.
	role, secretID := v.AppRole("fairlead", "shop", "5s")
	byRole := atVault(t, vault.Config{Address: v.Address, CACert: v.CA, RoleID: role, SecretIDFile: secretID})
	token, file := v.Token("shop", "18s")
	byToken := atVault(t, vault.Config{Address: v.Address, CACert: v.CA, TokenFile: file})
	go func() { _ = byToken.Run(t.Context()) }()
	for end := time.Now().Add(27 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if err := read(byRole); err != nil {
			t.Fatalf("by AppRole: %v", err)
		}
		if err := read(byToken); err != nil {
			t.Fatalf("by token: %v", err)
		}
	}

	if err := v.Root.Auth().Token().RevokeTree(token); err != nil {
		t.Fatal(err)
	}
	if err := read(byToken); err == nil || !strings.Contains(err.Error(), "not valid any more") || !strings.Contains(byToken.Alarm(), file) {
		t.Errorf("a revoked token: %v; alarm %q", err, byToken.Alarm())
	}
	old := file
	_, file = v.Token("shop", "1h") // the same file
	if file != old {
		t.Fatal(file)
	}
	if err := read(byToken); err != nil || byToken.Alarm() != "" {
		t.Errorf("with another token in the file: %v; alarm %q", err, byToken.Alarm())
	}
	if b, err := os.ReadFile(file); err != nil || strings.Contains(byToken.Alarm(), strings.TrimSpace(string(b))) {
		t.Error(err)
	}
}

// A real Vault renews a token also when it can live no longer: that must not be asked
// for again and again until its end.
func TestVaultTokenAtItsMaximum(t *testing.T) {
	v := vaultd.Start(t)
	v.Put("shop/db", map[string]any{"password": "s3cret"})
	v.Policy("shop", "shop")
	_, file := v.Token("shop", "1h")
	token, err := v.Root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"shop"}, TTL: "18s", ExplicitMaxTTL: "18s", NoParent: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(token.Auth.ClientToken), 0o600); err != nil {
		t.Fatal(err)
	}

	to, err := url.Parse(v.Address)
	if err != nil {
		t.Fatal(err)
	}
	var renewals atomic.Int32
	between := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if strings.HasSuffix(r.In.URL.Path, "/renew-self") {
			renewals.Add(1)
		}
		r.SetURL(to)
	}, Transport: v.Root.CloneConfig().HttpClient.Transport}
	srv := httptest.NewServer(http.Handler(between))
	defer srv.Close()

	c := atVault(t, vault.Config{Address: srv.URL, TokenFile: file})
	go func() { _ = c.Run(t.Context()) }()
	for {
		_, err := c.Resolve(t.Context(), inVault("kv/shop/db#password"))
		if err != nil {
			if !strings.Contains(err.Error(), "not valid any more") {
				t.Error(err)
			}
			break
		}
		time.Sleep(300 * time.Millisecond)
	}
	if n := renewals.Load(); n > 1 { // none, where the machine stood still
		t.Errorf("renewed %d times in the last third of its life", n)
	}
}
