package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
)

// Config of a Vault. Set TokenFile, or RoleID and SecretIDFile. Both files are read
// again whenever a token is needed, so that another program may replace them.
type Config struct {
	Address      string // "https://vault.example.com:8200"
	Namespace    string // of Vault Enterprise; "" is the root
	CACert       string // PEM file; "" trusts the system's
	TokenFile    string
	RoleID       string
	SecretIDFile string
	AppRole      string // mount of the AppRole method; "" is "approle"
}

// Validate refuses a configuration that cannot work. It names the server's flags.
func (c Config) Validate() error {
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return cluster.Invalidf("--vault %q: write it as https://vault.example.com:8200", c.Address)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return cluster.Invalidf("--vault %s: secrets would pass the network in clear; use https", c.Address)
	case (c.TokenFile != "") == (c.RoleID != ""):
		return cluster.Invalidf("--vault %s: give either --vault-token-file, or --vault-role-id and --vault-secret-id-file", c.Address)
	case c.RoleID != "" && c.SecretIDFile == "":
		return cluster.Invalidf("--vault-role-id: its --vault-secret-id-file is missing")
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Client resolves secrets from one Vault.
type Client struct {
	cfg    Config
	now    func() time.Time
	log    hclog.Logger
	asked  chan struct{} // one question at a time; it guards what follows
	vault  *api.Client
	ready  bool      // has a token
	ending bool      // its end was told
	away   error     // what the last question failed with, while asking again is too early
	until  time.Time // when it is not any more

	mu    sync.Mutex
	alarm string
}

var _ secrets.Resolver = (*Client)(nil)

const (
	timeout = 10 * time.Second
	// pause is for how long a Vault that did not answer is not asked: what needs
	// no Vault must not wait for it.
	pause = 5 * time.Second
)

// New makes a client. It does not talk to Vault yet. Vault's own environment
// variables are not read: two sources of one setting surprise.
func New(cfg Config, now func() time.Time, log hclog.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.AppRole == "" {
		cfg.AppRole = "approle"
	}
	c := &Client{cfg: cfg, now: now, log: log, asked: make(chan struct{}, 1)}
	if _, err := c.credential(); err != nil {
		return nil, err
	}
	conf := &api.Config{Address: cfg.Address, HttpClient: &http.Client{Timeout: timeout}, MaxRetries: 0, Timeout: timeout}
	conf.HttpClient.Transport = http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	if cfg.CACert != "" {
		if err := conf.ConfigureTLS(&api.TLSConfig{CACert: cfg.CACert}); err != nil {
			return nil, cluster.Invalidf("--vault-ca %s: %w", cfg.CACert, err)
		}
	}
	var err error
	if c.vault, err = api.NewClient(conf); err != nil {
		return nil, cluster.Invalidf("--vault %s: %w", cfg.Address, err)
	}
	c.vault.ClearToken()
	if cfg.Namespace != "" {
		c.vault.SetNamespace(cfg.Namespace)
	}
	return c, nil
}

// credential reads the token, or the secret ID.
func (c *Client) credential() (string, error) {
	flag, file := "--vault-token-file", c.cfg.TokenFile
	if c.cfg.RoleID != "" {
		flag, file = "--vault-secret-id-file", c.cfg.SecretIDFile
	}
	b, err := os.ReadFile(file) //nolint:gosec // root names the file
	if err != nil {
		return "", cluster.Invalidf("%s: %w", flag, err)
	}
	v := strings.TrimSpace(string(b))
	if v == "" {
		return "", cluster.Invalidf("%s: %s is empty", flag, file)
	}
	return v, nil
}

// Alarm says what is wrong with Vault; "" when its last answer was one.
func (c *Client) Alarm() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alarm
}

func (c *Client) setAlarm(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch text {
	case c.alarm:
	case "":
		c.log.Info("Vault answers again", "address", c.cfg.Address)
	default:
		c.log.Error(text)
	}
	c.alarm = text
}

// Resolve implements secrets.Resolver.
func (c *Client) Resolve(ctx context.Context, rec cluster.SecretRecord) (cluster.Secret, error) {
	ref, err := cluster.ParseVaultRef(rec.Ref)
	if err != nil {
		return cluster.Secret{}, err
	}
	kv, err := c.ask(ctx, ref)
	if err != nil {
		return cluster.Secret{}, err
	}
	if kv.Data == nil {
		return cluster.Secret{}, cluster.NotFoundf("vault %s: nothing at %s/%s any more: its newest version was deleted", c.cfg.Address, ref.Mount, ref.Path)
	}
	switch v := kv.Data[ref.Field].(type) {
	case string:
		return cluster.NewSecret([]byte(v)), nil
	case nil:
		return cluster.Secret{}, cluster.NotFoundf("vault %s: %s/%s has no field %q", c.cfg.Address, ref.Mount, ref.Path, ref.Field)
	default:
		return cluster.Secret{}, cluster.Invalidf("vault %s: field %q of %s/%s is not text", c.cfg.Address, ref.Field, ref.Mount, ref.Path)
	}
}

// ask reads a secret, with a new token where the one there is has run out.
func (c *Client) ask(ctx context.Context, ref cluster.VaultRef) (*api.KVSecret, error) {
	select {
	case c.asked <- struct{}{}:
		defer func() { <-c.asked }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.away != nil && c.now().Before(c.until) {
		return nil, c.away
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	kv, err := c.read(ctx, ref)
	if refused(err) && c.ready {
		var anew bool
		if anew, err = c.anew(ctx, err); anew {
			c.ready = false
			kv, err = c.read(ctx, ref)
		}
	}
	c.away = nil
	if err == nil {
		c.setAlarm("")
		return kv, nil
	}
	err = c.explain(err, ref.Mount+"/"+ref.Path)
	switch {
	case cluster.KindOf(err) == cluster.KindTransient:
		c.away, c.until = err, c.now().Add(pause)
		c.setAlarm(err.Error() + "; tasks that need a secret from it wait, what runs goes on")
	case !c.ready:
		c.setAlarm(err.Error())
	case c.cfg.TokenFile != "" && refused(err) && refused(c.lookup(ctx)):
		err = cluster.Invalidf("vault %s: the token is not valid any more; put another one into %s", c.cfg.Address, c.cfg.TokenFile)
		c.setAlarm(err.Error())
	default:
		c.setAlarm("")
	}
	return nil, err
}

func (c *Client) read(ctx context.Context, ref cluster.VaultRef) (*api.KVSecret, error) {
	if !c.ready {
		if err := c.login(ctx); err != nil {
			return nil, err
		}
	}
	return c.vault.KVv2(ref.Mount).Get(ctx, ref.Path)
}

// login gets a token: from its file, or for the AppRole.
func (c *Client) login(ctx context.Context) error {
	v, err := c.credential()
	if err != nil {
		return err
	}
	if c.cfg.RoleID == "" {
		c.ending = c.ending && v == c.vault.Token()
		c.vault.SetToken(v)
		c.ready = true
		return nil
	}
	c.vault.ClearToken()
	s, err := c.vault.Logical().WriteWithContext(ctx, "auth/"+c.cfg.AppRole+"/login", map[string]any{
		"role_id": c.cfg.RoleID, "secret_id": v,
	})
	if err != nil {
		return fmt.Errorf("log in with AppRole at auth/%s: %w", c.cfg.AppRole, err)
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return cluster.Invalidf("log in with AppRole at auth/%s: the answer has no token", c.cfg.AppRole)
	}
	c.vault.SetToken(s.Auth.ClientToken)
	c.ready = true
	return nil
}

// anew reports whether to try again with another token after a refusal; else what to
// say. A file may have another one, which costs nothing to see. A login makes a token
// and a lease, and may use up the secret ID: it takes a token that is refused as such,
// and not for what it may read.
func (c *Client) anew(ctx context.Context, refusal error) (bool, error) {
	if c.cfg.RoleID == "" {
		return true, refusal
	}
	err := c.lookup(ctx)
	if err == nil || refused(err) {
		return err != nil, refusal
	}
	return false, err
}

// lookup asks for the token itself.
func (c *Client) lookup(ctx context.Context) error {
	_, err := c.vault.Auth().Token().LookupSelfWithContext(ctx)
	return err
}

func refused(err error) bool {
	var re *api.ResponseError
	return errors.As(err, &re) && re.StatusCode == http.StatusForbidden
}

// explain gives the error its kind and says where it happened.
func (c *Client) explain(err error, path string) error {
	var re *api.ResponseError
	switch {
	case cluster.KindOf(err) == cluster.KindInvalid:
		return fmt.Errorf("vault %s: read %s: %w", c.cfg.Address, path, err)
	case errors.Is(err, api.ErrSecretNotFound):
		return cluster.NotFoundf("vault %s: nothing at %s", c.cfg.Address, path)
	case errors.As(err, &re) && re.StatusCode < http.StatusInternalServerError && re.StatusCode != http.StatusTooManyRequests:
		return cluster.Invalidf("vault %s: read %s: %w", c.cfg.Address, path, err)
	}
	return cluster.Transientf("vault %s: read %s: %w", c.cfg.Address, path, err)
}
