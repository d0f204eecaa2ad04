package registryd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	issuer  = "tokens of a test"
	service = "images of a test"
	keyID   = "test"
)

// Tokens is where a registry sends its clients for tokens, as those of Docker Hub, GitHub
// and GitLab do. Who has the password may do all; anybody may pull what is public.
type Tokens struct {
	User, Password string
	Public         string // a repository; "": none

	key *ecdsa.PrivateKey

	mu    sync.Mutex
	realm string
	once  bool
	good  map[string]bool // tokens that are, but at a real registry
	asked []Asked
}

// Asked is one request for a token.
type Asked struct {
	User   string // "": anybody
	Scopes []string
	Given  bool
}

// access is what a token lets its bearer do.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

type claims struct {
	Issuer    string   `json:"iss"`
	Audience  string   `json:"aud"`
	Subject   string   `json:"sub"`
	ID        string   `json:"jti"`
	NotBefore int64    `json:"nbf"`
	IssuedAt  int64    `json:"iat"`
	Expires   int64    `json:"exp"`
	Access    []access `json:"access"`
}

// NewTokens starts one that ends with the test.
func NewTokens(tb testing.TB, user, password, public string) *Tokens {
	tb.Helper()
	s := newTokens(tb, user, password, public)
	srv := httptest.NewServer(s)
	tb.Cleanup(srv.Close)
	// By its name: of addresses, clients take for a realm that of the registry alone.
	s.realm = strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) + "/token"
	return s
}

func newTokens(tb testing.TB, user, password, public string) *Tokens {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &Tokens{User: user, Password: password, Public: public, key: key, good: map[string]bool{}}
}

// Realm is the URL where tokens are asked for.
func (s *Tokens) Realm() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.realm
}

// Name lets the registry give another URL for it.
func (s *Tokens) Name(realm string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realm = realm
}

// Once lets each token be good for one request alone, as if it had expired by the next.
func (s *Tokens) Once(once bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once = once
}

// Expire ends the tokens that were given so far.
func (s *Tokens) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.good)
}

// Asked is what was asked for since the last call.
func (s *Tokens) Asked() []Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked
	s.asked = nil
	return a
}

// ServeHTTP gives tokens.
func (s *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // an OAuth client asks by POST first, and goes on
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	user, password, has := r.BasicAuth()
	a := Asked{User: user, Scopes: r.URL.Query()["scope"]}
	a.Given = r.URL.Query().Get("service") == service && (!has || user == s.User && password == s.Password)
	s.mu.Lock()
	s.asked = append(s.asked, a)
	s.mu.Unlock()
	if !a.Given {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`))
		return
	}
	var may []access
	for scope := range strings.FieldsSeq(strings.Join(a.Scopes, " ")) {
		p := strings.Split(scope, ":")
		if len(p) != 3 { // the repositories of the tests have no port
			continue
		}
		actions := strings.Split(p[2], ",")
		if !has {
			actions = slices.DeleteFunc(actions, func(do string) bool { return do != "pull" || p[1] != s.Public })
		}
		may = append(may, access{p[0], p[1], actions})
	}
	const life = 5 * time.Minute
	token := s.sign(user, may, life)
	s.mu.Lock()
	s.good[token] = true
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": int(life.Seconds())})
}

func (s *Tokens) sign(user string, may []access, life time.Duration) string {
	now := time.Now()
	header, _ := json.Marshal(map[string]string{"alg": "ES256", "typ": "JWT", "kid": keyID})
	body, _ := json.Marshal(claims{issuer, service, user, rand.Text(), now.Add(-time.Minute).Unix(), now.Unix(), now.Add(life).Unix(), may})
	text := encode(header) + "." + encode(body)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		panic(err) // of the system's randomness
	}
	sig := make([]byte, 64)
	a.FillBytes(sig[:32])
	b.FillBytes(sig[32:])
	return text + "." + encode(sig)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// keys is the key, as registries read it.
func (s *Tokens) keys() string {
	point, err := s.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		panic(err) // of a curve that is not P-256
	}
	b, _ := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": keyID, "x": encode(point[1:33]), "y": encode(point[33:]),
	}}})
	return string(b)
}

// lets says whether a token lets its bearer do that; with "" it must be good alone.
func (s *Tokens) lets(token, name, action string) bool {
	p := strings.Split(token, ".")
	if len(p) != 3 {
		return false
	}
	sum := sha256.Sum256([]byte(p[0] + "." + p[1]))
	sig, err := base64.RawURLEncoding.DecodeString(p[2])
	if err != nil || len(sig) != 64 || !ecdsa.Verify(&s.key.PublicKey, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return false
	}
	var c claims
	if body, err := base64.RawURLEncoding.DecodeString(p[1]); err != nil || json.Unmarshal(body, &c) != nil || time.Now().Unix() >= c.Expires {
		return false
	}
	if name != "" && !slices.ContainsFunc(c.Access, func(a access) bool { return a.Name == name && slices.Contains(a.Actions, action) }) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	good := s.good[token]
	if s.once {
		delete(s.good, token)
	}
	return good
}

// Guard stands before a registry of the test's own process, and lets in who has a token.
func (s *Tokens) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, action := strings.TrimPrefix(r.URL.Path, "/v2/"), "pull"
		for _, end := range []string{"/manifests/", "/blobs/", "/tags/"} {
			name, _, _ = strings.Cut(name, end)
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			action = "push"
		}
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if s.lets(token, name, action) {
			next.ServeHTTP(w, r)
			return
		}
		says := fmt.Sprintf("Bearer realm=%q,service=%q", s.Realm(), service)
		if name != "" {
			says += fmt.Sprintf(",scope=%q", "repository:"+name+":"+map[string]string{"pull": "pull", "push": "pull,push"}[action])
		}
		if token != "" {
			says += `,error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", says)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
	})
}
