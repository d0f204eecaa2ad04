package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/vaultd"
)

// Secrets that are in a real Vault: as a file and in the environment, changed there,
// and with the Vault away and sealed.
func TestSecretsInVault(t *testing.T) {
	v := vaultd.Start(t)
	v.Put("shop/db", map[string]any{"password": "from-the-vault", "user": "ann"})
	v.Policy("shop", "shop")
	role, secretID := v.AppRole("fairlead", "shop", "1h")
	n := start(t, "--vault", v.Address, "--vault-ca", v.CA, "--vault-role-id", role, "--vault-secret-id-file", secretID)
	image := n.image()
	file := func(place string) string {
		return n.write("vaulted.yaml", fmt.Sprintf(`
name: vaulted
services:
  web:
    image: %s
    healthcheck: %s
    expose: ["8080"]
    secrets: [password, user]
    x-fairlead: {routes: [{host: vaulted.example.com}], secret_env: {DB_USER: user}}
secrets:
  password: {external: true, x-fairlead: {vault: %q}}
  user: {external: true}
`, image, healthcheck, place))
	}
	value := func(url, want string) func() error {
		return func() error {
			got, err := n.answer("http://vaulted.example.com" + url)
			if err == nil && got != want {
				err = fmt.Errorf("%s answers %q; want %q", url, got, want)
			}
			return err
		}
	}
	const inFile, inEnv = "/file?name=/run/secrets/password", "/env?name=DB_USER"

	// What is not there, or not to be read, is refused before anything is deployed.
	for place, says := range map[string]string{
		"kv/shop/db#pasword":  `no field "pasword"`,
		"kv/shop/dbx#x":       "nothing at kv/shop/dbx",
		"kv/secret/db#x":      "permission denied",
		"kv/shop/db":          "MOUNT/PATH#FIELD",
		"kv/shop/../boss#pin": "MOUNT/PATH#FIELD",
	} {
		if out, err := n.try("deploy", "-f", file(place)); err == nil || !strings.Contains(out, says) || !strings.Contains(out, "vaulted.yaml:1") {
			t.Errorf("deployed with %s: %v\n%s", place, err, out)
		}
	}
	if out := n.do("ls"); strings.Contains(out, "vaulted") {
		t.Fatalf("a refused app is there:\n%s", out)
	}

	n.do("secret", "set", "vaulted/user", "--vault", "kv/shop/db#user")
	if out := n.do("plan", "-f", file("kv/shop/db#password")); !strings.Contains(out, "from Vault, kv/shop/db#password") {
		t.Errorf("plan:\n%s", out)
	}
	n.do("deploy", "-f", file("kv/shop/db#password"))
	n.eventually(20*time.Second, "the values arrive", value(inFile, "from-the-vault"))
	n.eventually(20*time.Second, "the values arrive", value(inEnv, "ann"))
	if out := n.do("deploy", "-f", file("kv/shop/db#password")); !strings.Contains(out, "no change") && !strings.Contains(out, "nothing") {
		t.Logf("a second deploy says:\n%s", out)
	}
	if out := n.do("secret", "ls", "vaulted"); !strings.Contains(out, "vault kv/shop/db#password") || strings.Contains(out, "from-the-vault") {
		t.Errorf("secret ls:\n%s", out)
	}

	// A change there is rolled out on request.
	v.Put("shop/db", map[string]any{"password": "changed-there", "user": "ann"})
	n.do("secret", "set", "vaulted/password", "--vault", "kv/shop/db#password")
	n.eventually(30*time.Second, "the changed value arrives", value(inFile, "changed-there"))
	n.eventually(30*time.Second, "the task with the old value is gone", func() error {
		if got := n.containers("vaulted"); len(got) != 1 {
			return fmt.Errorf("there are the containers %q", got)
		}
		return nil
	})

	// A sealed Vault: what runs goes on, what is new waits and says for what.
	v.Restart()
	n.do("scale", "vaulted/web=2")
	n.eventually(30*time.Second, "the new task waits for Vault", func() error {
		if out := n.do("explain", "vaulted/web"); !strings.Contains(out, "sealed") {
			return fmt.Errorf("explain says:\n%s", out)
		}
		return nil
	})
	if out := n.do("status"); !strings.Contains(out, "vault "+v.Address) {
		t.Errorf("status does not say it:\n%s", out)
	}
	if out, err := n.try("secret", "set", "vaulted/user", "--vault", "kv/shop/db#password"); err == nil || !strings.Contains(out, "sealed") {
		t.Errorf("set with a sealed Vault: %v\n%s", err, out)
	}
	if err := value(inFile, "changed-there")(); err != nil {
		t.Error(err)
	}
	v.Unseal()
	n.eventually(time.Minute, "both tasks run once Vault is open", func() error {
		if got := len(n.ready("vaulted")); got != 2 {
			return fmt.Errorf("%d tasks are ready", got)
		}
		return nil
	})
	n.eventually(20*time.Second, "the alarm is gone", func() error {
		if out := n.do("status"); strings.Contains(out, "vault "+v.Address) {
			return fmt.Errorf("status says:\n%s", out)
		}
		return nil
	})

	// Vault away and the server started anew: it starts, and what runs goes on.
	v.Stop()
	n.stop(syscall.SIGTERM)
	n.up()
	if s, err := n.client(false).Get("http://vaulted.example.com/"); err != nil || s.StatusCode != http.StatusOK {
		t.Errorf("with Vault away: %v", err)
	} else {
		s.Body.Close()
	}
}
