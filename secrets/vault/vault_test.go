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
	return fakeVaultAway(t, new(atomic.Bool))
}

// fakeVaultAway is one that says nothing of its tokens while it is away.
func fakeVaultAway(t *testing.T, away *atomic.Bool) (url string, logins *atomic.Int32, revoke func()) {
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
		case "/v1/kv/data/other/db":
			reply(403, map[string]any{"errors": []string{"permission denied"}})
		case "/v1/auth/token/lookup-self":
			if away.Load() {
				reply(503, map[string]any{"errors": []string{"Vault is sealed"}})
				return
			}
			reply(200, map[string]any{"data": map[string]any{"ttl": 3600}})
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

// What its policy forbids is no reason for another token: each has a lease, and the
// secret ID may be good for few.
func TestAppRoleKeepsItsTokenWhereItMayNotRead(t *testing.T) {
	var away atomic.Bool
	url, logins, revoke := fakeVaultAway(t, &away)
	c, err := New(role(t, url, "hunter2"), time.Now, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	forbidden := func(kind cluster.Kind, says string) {
		t.Helper()
		if _, err := c.Resolve(t.Context(), ref("kv/other/db#password")); cluster.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
			t.Errorf("%v (%v); want %q", err, cluster.KindOf(err), says)
		}
	}
	for range 3 {
		forbidden(cluster.KindInvalid, "permission denied")
	}
	if logins.Load() != 1 || c.Alarm() != "" {
		t.Errorf("%d logins, alarm %q", logins.Load(), c.Alarm())
	}
	revoke()
	forbidden(cluster.KindInvalid, "permission denied")
	if logins.Load() != 2 {
		t.Errorf("%d logins after a revocation", logins.Load())
	}
	away.Store(true) // nobody knows whether it is the token
	forbidden(cluster.KindTransient, "sealed")
	if logins.Load() != 2 {
		t.Errorf("%d logins while Vault was away", logins.Load())
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

// A renewal that gives no more than what is left anyway must not be followed by
// another at once.
func TestAfterRenewal(t *testing.T) {
	data := func(ttl, creation, period, most string) map[string]any {
		return map[string]any{
			"ttl": json.Number(ttl), "creation_ttl": json.Number(creation), "period": json.Number(period),
			"explicit_max_ttl": json.Number(most), "renewable": true,
		}
	}
	for _, c := range []struct {
		what string
		data map[string]any
		got  int // seconds
		wait time.Duration
		last bool
	}{
		{"renewed for as long as at first", data("1200", "3600", "0", "0"), 3600, time.Second, false},
		{"renewed for less, but for a while", data("1200", "3600", "0", "0"), 1800, time.Second, false},
		{"at its maximum", data("1200", "3600", "0", "0"), 1200, 10 * time.Minute, true},
		{"at its maximum of a month", data("921600", "2764800", "0", "0"), 921600, maxRenew, true},
		{"at its maximum, and short", data("6", "18", "0", "18"), 6, firstRenew, true},
		{"at its maximum, rounded down and then up", data("6", "18", "0", "18"), 7, firstRenew, true},
		{"a period", data("30", "90", "90", "0"), 90, time.Second, false},
		{"a period longer than Vault allows", data("2764800", "2764800", "9000000", "0"), 2764800, maxRenew, false},
		{"a period that became short", data("30", "3600", "30", "0"), 30, 15 * time.Second, false},
		{"a period with a maximum", data("1200", "3600", "3600", "7200"), 1190, 595 * time.Second, true},
		{"an answer that says nothing", data("1200", "3600", "0", "0"), 0, firstRenew, true},
	} {
		if _, due := nextRenewal(&api.Secret{Data: c.data}); !due {
			t.Errorf("%s: it is not due", c.what)
		}
		wait, last := afterRenewal(&api.Secret{Data: c.data}, &api.Secret{Auth: &api.SecretAuth{LeaseDuration: c.got}})
		if wait != c.wait || last != c.last {
			t.Errorf("%s: %v, %v; want %v, %v", c.what, wait, last, c.wait, c.last)
		}
	}
}

// That a token ends is told once for each, and a token that comes to its end is
// renewed no more often for it.
func TestTokenAtItsMaximum(t *testing.T) {
	var renewals atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/auth/token/lookup-self":
			_, _ = w.Write([]byte(`{"data":{"ttl":921600,"creation_ttl":2764800,"explicit_max_ttl":0,"renewable":true}}`))
		case "/v1/auth/token/renew-self":
			renewals.Add(1)
			_, _ = w.Write([]byte(`{"auth":{"client_token":"x","lease_duration":921600,"renewable":true}}`))
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"errors":["permission denied"]}`))
		}
	}))
	defer srv.Close()
	var log strings.Builder
	cfg := config(t, srv.URL, "hunter2")
	c, err := New(cfg, time.Now, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil {
		t.Fatal(err)
	}
	told := func(want int) {
		t.Helper()
		for range 3 {
			if wait := c.renew(t.Context()); wait != maxRenew {
				t.Errorf("the next look is in %v", wait)
			}
			_, _ = c.Resolve(t.Context(), ref("kv/other#x")) // reads the file again
		}
		if n := strings.Count(log.String(), "longest time"); n != want || !strings.Contains(log.String(), "ends_in=256h") || strings.Contains(log.String(), "hunter") {
			t.Errorf("told %d times, want %d: %s", n, want, &log)
		}
	}
	told(1)
	if err := os.WriteFile(cfg.TokenFile, []byte("hunter3"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Resolve(t.Context(), ref("kv/other#x"))
	told(2)
	if n := renewals.Load(); n != 6 {
		t.Errorf("%d renewals", n)
	}
}
