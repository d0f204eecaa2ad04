// Package vaultd runs a real Vault of a test's own: with TLS, on loopback, its data
// on disk, so that it is sealed after a start, as a Vault of a company is.
package vaultd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/proc"
)

// Vault is one server.
type Vault struct {
	// Root is a client that may do everything.
	Root *api.Client
	// Address and CA are what others need to reach it.
	Address, CA string

	t         testing.TB
	dir       string
	unsealKey string
	cmd       *exec.Cmd
	ended     <-chan error
}

// Start starts a Vault with the key/value engine at kv and the AppRole method.
func Start(tb testing.TB) *Vault {
	tb.Helper()
	out, err := exec.Command("bash", filepath.Join(need.Root(tb), "scripts/vault")).Output()
	if err != nil {
		need.Skip(tb, "needs Vault: scripts/vault: %v", err)
	}
	v := &Vault{t: tb, dir: tb.TempDir()}
	addr, peer := fmt.Sprintf("127.0.0.1:%d", need.Port(tb)), fmt.Sprintf("127.0.0.1:%d", need.Port(tb))
	v.Address, v.CA = "https://"+addr, filepath.Join(v.dir, "ca.pem")
	v.certificate()
	v.must(os.WriteFile(filepath.Join(v.dir, "vault.hcl"), fmt.Appendf(nil, `
		disable_mlock = true
		storage "raft" {
			path = %q
			node_id = "one"
		}
		api_addr = %q
		cluster_addr = %q
		listener "tcp" {
			address = %q
			tls_cert_file = %q
			tls_key_file = %q
		}`, v.dir, v.Address, "https://"+peer, addr, v.CA, filepath.Join(v.dir, "key.pem")), 0o600))
	v.cmd = exec.Command(strings.TrimSpace(string(out)))
	tb.Cleanup(func() { v.Stop() })

	conf := &api.Config{Address: v.Address, Timeout: 30 * time.Second}
	v.must(conf.ConfigureTLS(&api.TLSConfig{CACert: v.CA}))
	v.Root, err = api.NewClient(conf)
	v.must(err)
	v.run()
	init, err := v.Root.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	v.must(err)
	v.unsealKey = init.KeysB64[0]
	v.Root.SetToken(init.RootToken)
	v.Unseal()
	v.must(v.Root.Sys().Mount("kv", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}))
	v.must(v.Root.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}))
	return v
}

func (v *Vault) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatalf("vault: %v", err)
	}
}

func (v *Vault) certificate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	v.must(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault of a test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	v.must(err)
	v.must(os.WriteFile(v.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	kder, err := x509.MarshalPKCS8PrivateKey(key)
	v.must(err)
	v.must(os.WriteFile(filepath.Join(v.dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}), 0o600))
}

// run starts the program and waits until it answers, sealed.
func (v *Vault) run() {
	v.t.Helper()
	log, err := os.OpenFile(filepath.Join(v.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	v.must(err)
	defer log.Close()
	v.cmd = exec.Command(v.cmd.Path, "server", "-config", filepath.Join(v.dir, "vault.hcl"))
	v.cmd.Stdout, v.cmd.Stderr = log, log
	v.ended, err = proc.StartTied(v.cmd)
	v.must(err)
	v.await("answers", func(ctx context.Context) (bool, error) {
		_, err := v.Root.Sys().SealStatusWithContext(ctx)
		return err == nil, err
	})
}

func (v *Vault) await(what string, f func(ctx context.Context) (bool, error)) {
	v.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		ok, err := f(v.t.Context())
		if ok {
			return
		}
		over := time.Now().After(deadline)
		select {
		case <-v.ended:
			over = true
		default:
		}
		if over {
			b, _ := os.ReadFile(filepath.Join(v.dir, "log"))
			v.t.Fatalf("vault: it never %s: %v\n%s", what, err, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Unseal opens the Vault, and waits until it serves.
func (v *Vault) Unseal() {
	v.t.Helper()
	_, err := v.Root.Sys().Unseal(v.unsealKey)
	v.must(err)
	v.await("serves", func(ctx context.Context) (bool, error) {
		h, err := v.Root.Sys().HealthWithContext(ctx)
		return err == nil && h.Initialized && !h.Sealed && !h.Standby, err
	})
}

// Stop kills the program; its data stays.
func (v *Vault) Stop() {
	if v.cmd == nil || v.cmd.Process == nil {
		return
	}
	_ = v.cmd.Process.Kill()
	<-v.ended
}

// Restart starts it again: it is sealed.
func (v *Vault) Restart() {
	v.t.Helper()
	v.Stop()
	v.run()
}

// Put writes fields of a secret of the engine at kv.
func (v *Vault) Put(path string, fields map[string]any) {
	v.t.Helper()
	_, err := v.Root.KVv2("kv").Put(v.t.Context(), path, fields)
	v.must(err)
}

// Policy lets tokens read what is below a path of kv.
func (v *Vault) Policy(name, below string) {
	v.t.Helper()
	v.must(v.Root.Sys().PutPolicy(name, fmt.Sprintf("path \"kv/data/%s/*\" { capabilities = [\"read\"] }\n", below)))
}

// Token returns a file with a token of a policy; ttl "1h".
func (v *Vault) Token(policy, ttl string) (token, file string) {
	v.t.Helper()
	s, err := v.Root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{policy}, TTL: ttl, NoParent: true})
	v.must(err)
	return s.Auth.ClientToken, v.file("token", s.Auth.ClientToken)
}

// AppRole returns the role ID of a new role, and a file with its secret ID. Its tokens
// live for ttl.
func (v *Vault) AppRole(name, policy, ttl string) (roleID, secretIDFile string) {
	v.t.Helper()
	at := "auth/approle/role/" + name
	_, err := v.Root.Logical().Write(at, map[string]any{"token_policies": policy, "token_ttl": ttl, "token_max_ttl": ttl})
	v.must(err)
	id, err := v.Root.Logical().Read(at + "/role-id")
	v.must(err)
	secret, err := v.Root.Logical().Write(at+"/secret-id", nil)
	v.must(err)
	return id.Data["role_id"].(string), v.file("secret-id", secret.Data["secret_id"].(string))
}

func (v *Vault) file(name, content string) string {
	path := filepath.Join(v.dir, name)
	v.must(os.WriteFile(path, []byte(content+"\n"), 0o600))
	return path
}
