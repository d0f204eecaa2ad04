package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"

	"github.com/fairlead/fairlead/cluster"
)

// fakeVault speaks as much of Vault's protocol as the client uses. It is no
// proof that a real Vault is served: that takes a test with one.
func fakeVault(t *testing.T) (url string, logins *atomic.Int32, revoke func()) {
	t.Helper()
	var n atomic.Int32
	var epoch atomic.Int32
	token := func() string { return fmt.Sprintf("token-%d", epoch.Load()) }
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply := func(status int, v any) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(v)
		}
		if r.URL.Path == "/v1/auth/approle/login" {
			var in map[string]string
			if json.NewDecoder(r.Body).Decode(&in) != nil || in["role_id"] != "role" || in["secret_id"] != "hunter2" {
				reply(400, map[string]any{"errors": []string{"invalid role or secret ID"}})
				return
			}
			n.Add(1)
			reply(200, map[string]any{"auth": map[string]any{"client_token": token()}})
			return
		}
		if got := r.Header.Get("X-Vault-Token"); got != token() && got != "root" {
			reply(403, map[string]any{"errors": []string{"permission denied"}})
			return
		}
		switch r.URL.Path {
		case "/v1/kv/data/shop/db":
			reply(200, map[string]any{"data": map[string]any{
				"data":     map[string]any{"password": "s3cret", "port": 5432},
				"metadata": map[string]any{"version": 1, "created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false},
			}})
		case "/v1/kv/data/down":
			reply(503, map[string]any{"errors": []string{"Vault is sealed"}})
		default:
			reply(404, map[string]any{"errors": []string{}})
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, &n, func() { epoch.Add(1) }
}

func ref(s string) cluster.SecretRecord {
	return cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Provider: "vault", Ref: s}
}

func TestResolveWithToken(t *testing.T) {
	url, _, _ := fakeVault(t)
	c, err := New(config(t, url, "root"), time.Now, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Resolve(t.Context(), ref("kv/shop/db#password"))
	if err != nil || string(v.Reveal()) != "s3cret" {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		ref  string
		kind cluster.Kind
		text string
	}{
		{"kv/shop/db#user", cluster.KindNotFound, `no field "user"`},
		{"kv/shop/db#port", cluster.KindInvalid, "is not text"},
		{"kv/shop/web#x", cluster.KindNotFound, "nothing at kv/shop/web"},
		{"kv/down#x", cluster.KindTransient, "sealed"},
		{"kv", cluster.KindInvalid, "MOUNT/PATH#FIELD"},
		{"kv/a", cluster.KindInvalid, "MOUNT/PATH#FIELD"},
		{"kv#a", cluster.KindInvalid, "MOUNT/PATH#FIELD"},
	} {
		_, err := c.Resolve(t.Context(), ref(bad.ref))
		if cluster.KindOf(err) != bad.kind || !strings.Contains(fmt.Sprint(err), bad.text) || strings.Contains(fmt.Sprint(err), "s3cret") {
			t.Errorf("%s: %v (%v)", bad.ref, err, cluster.KindOf(err))
		}
	}
}

func TestAppRoleLogsInAgain(t *testing.T) {
	url, logins, revoke := fakeVault(t)
	c, err := New(role(t, url, "hunter2"), time.Now, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if i == 2 {
			revoke()
		}
		if _, err := c.Resolve(t.Context(), ref("kv/shop/db#password")); err != nil {
			t.Fatal(err)
		}
	}
	if logins.Load() != 2 {
		t.Errorf("%d logins for one revocation", logins.Load())
	}
	wrong, err := New(role(t, url, "wrong-hunter3"), time.Now, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	_, err = wrong.Resolve(t.Context(), ref("kv/shop/db#password"))
	if cluster.KindOf(err) != cluster.KindInvalid || strings.Contains(err.Error(), "hunter3") {
		t.Errorf("a wrong secret ID: %v", err)
	}
}

func TestVaultAway(t *testing.T) {
	c, err := New(config(t, "http://127.0.0.1:1", "hunter2"), time.Now, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resolve(t.Context(), ref("kv/shop/db#password")); cluster.KindOf(err) != cluster.KindTransient || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	file := written(t, "hunter2")
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{}, "write it as https://"},
		{Config{Address: "vault.example.com:8200", TokenFile: file}, "write it as https://"},
		{Config{Address: "http://vault.example.com:8200", TokenFile: file}, "in clear"},
		{Config{Address: "https://x"}, "give either"},
		{Config{Address: "https://x", TokenFile: file, RoleID: "r", SecretIDFile: file}, "give either"},
		{Config{Address: "https://x", RoleID: "r"}, "--vault-secret-id-file is missing"},
		{Config{Address: "https://x", TokenFile: "/nonexistent/token"}, "/nonexistent/token"},
		{Config{Address: "https://x", RoleID: "r", SecretIDFile: written(t, " \n")}, "is empty"},
		{Config{Address: "https://x", TokenFile: file, CACert: "/nonexistent/ca.pem"}, "/nonexistent/ca.pem"},
	} {
		if _, err := New(c.cfg, time.Now, hclog.NewNullLogger()); cluster.KindOf(err) != cluster.KindInvalid || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v; want %q", c.cfg, err, c.says)
		}
	}
}

func written(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func config(t *testing.T, url, token string) Config {
	t.Helper()
	return Config{Address: url, TokenFile: written(t, token+"\n")}
}

func role(t *testing.T, url, secretID string) Config {
	t.Helper()
	return Config{Address: url, RoleID: "role", SecretIDFile: written(t, secretID)}
}

// A Vault that does not answer is asked again after a pause, and not before: what
// needs no Vault does not wait behind many time limits.
func TestVaultThatDoesNotAnswerIsNotAskedAtOnce(t *testing.T) {
	var asked atomic.Int32
	up := atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"errors":["Vault is sealed"]}`))
			return
		}
		_, _ = w.Write([]byte(`{"data":{"data":{"x":"v"},"metadata":{"version":1,"created_time":"2026-01-01T00:00:00Z","deletion_time":"","destroyed":false}}}`))
	}))
	defer srv.Close()
	now := time.Now()
	c, err := New(config(t, srv.URL, "root"), func() time.Time { return now }, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := c.Resolve(t.Context(), ref("kv/shop#x")); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "sealed") {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if !strings.Contains(c.Alarm(), "sealed") {
		t.Errorf("alarm: %q", c.Alarm())
	}
	up.Store(true)
	now = now.Add(pause)
	if v, err := c.Resolve(t.Context(), ref("kv/shop#x")); err != nil || string(v.Reveal()) != "v" || c.Alarm() != "" {
		t.Errorf("%v, alarm %q", err, c.Alarm())
	}
}

func TestNextRenewal(t *testing.T) {
	for _, c := range []struct {
		what string
		data map[string]any
		wait time.Duration
		due  bool
	}{
		{"a root token", map[string]any{"ttl": json.Number("0"), "renewable": false}, maxRenew, false},
		{"a fresh one of an hour", map[string]any{"ttl": json.Number("3600"), "creation_ttl": json.Number("3600"), "renewable": true}, 40 * time.Minute, false},
		{"two thirds over", map[string]any{"ttl": json.Number("1200"), "creation_ttl": json.Number("3600"), "renewable": true}, 0, true},
		{"not renewable", map[string]any{"ttl": json.Number("10"), "creation_ttl": json.Number("3600"), "renewable": false}, maxRenew, false},
		{"a long period", map[string]any{"ttl": json.Number("2764800"), "period": json.Number("2764800"), "renewable": true}, maxRenew, false},
		{"another period than at its creation", map[string]any{"ttl": json.Number("30"), "creation_ttl": json.Number("10"), "period": json.Number("90"), "renewable": true}, 0, true},
	} {
		if wait, due := nextRenewal(&api.Secret{Data: c.data}); wait != c.wait || due != c.due {
			t.Errorf("%s: %v, %v; want %v, %v", c.what, wait, due, c.wait, c.due)
		}
	}
}
