package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// sopsFile is a file that sops itself made, or the key it is encrypted to.
func sopsFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(need.Root(t), "delivery", "sops", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sealed is text, encrypted by age to the key of the sops files.
func sealed(t *testing.T, text string) string {
	t.Helper()
	ids, err := age.ParseIdentities(strings.NewReader(sopsFile(t, "key.txt")))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, ids[0].(*age.X25519Identity).Recipient())
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSecretsInGit lets an app follow a repository with encrypted files: its containers
// have the values, and nothing else has; a changed value restarts them, without a failed
// request; and what must not be deployed leaves the app as it was.
func TestSecretsInGit(t *testing.T) {
	n := start(t)
	image := n.image()
	f := follow.NewForge(t, n.dir)
	const password, first, second = "hunter2-in-env", "the-first-of-tokens", "the-second-of-tokens"
	n.secret("pub/git", f.Password)
	n.secret("pub/age", sopsFile(t, "key.txt"))
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.Tree, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	app := strings.Replace(web(image, "pub", "1", 2, "secrets:\n  password: {environment: PASSWORD}\n  token: {file: token}\n"),
		"    x-fairlead: {", "    secrets: [token]\n    x-fairlead: {secret_env: {PASSWORD: password}, ", 1)
	write("prod.enc.env", sopsFile(t, "all.env"))
	write("token.age", sealed(t, first))
	f.Publish(app, "with secrets")
	create := []string{"delivery", "create", "pub", f.URL, "--secret", "git", "--ca", f.CA, "--interval", "1h", "--env-file", "prod.enc.env"}
	if out, err := n.try(create...); exitCode(err) != 1 || !strings.Contains(out, "prod.enc.env") || !strings.Contains(out, "--decrypt") {
		t.Errorf("without a key: %v\n%s", err, out)
	}
	n.do(append(create, "--replace", "--decrypt", "age")...)
	has := func(token string) func() error {
		return func() error {
			for at, want := range map[string]string{"env?name=PASSWORD": password, "file?name=/run/secrets/token": token} {
				body, err := n.answer("http://pub.example.com/" + at)
				if err == nil && body != want {
					err = fmt.Errorf("%s is %q", at, body)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	n.eventually(time.Minute, "the containers have their secrets", has(first))
	var shown strings.Builder
	show := func(args ...string) string {
		out, _ := n.try(args...)
		shown.WriteString(out)
		return out
	}
	if out, err := n.try("delivery", "diff", "pub", "--exit-code"); err != nil {
		t.Errorf("the same again is a change: %v\n%s", err, out)
	}

	// Another value, under load.
	l := n.startLoad(load.EveryKind("http://pub.example.com/"))
	write("token.age", sealed(t, second))
	f.Publish(app, "another token")
	if out := show("delivery", "diff", "pub"); !strings.Contains(out, "token") {
		t.Errorf("the changed value is no change:\n%s", out)
	}
	shown.WriteString(n.do("delivery", "reconcile", "pub"))
	n.eventually(2*time.Minute, "the containers have the new value", has(second))
	l.WantNone(t, "while a secret changed in Git")

	// In clear, and tampered with.
	refused := func(why string, words ...string) {
		t.Helper()
		f.Publish(app, why)
		out, err := n.try("delivery", "reconcile", "pub")
		shown.WriteString(out)
		for _, w := range words {
			if exitCode(err) != 1 || !strings.Contains(out, w) {
				t.Errorf("%s: %v, without %q:\n%s", why, err, w, out)
			}
		}
		if err := has(second)(); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
	good := app
	app = strings.Replace(good, "environment: {", "environment: {DB: 'db://${PASSWORD}@x', ", 1)
	refused("a value in clear", "services.web.environment.DB", "prod.enc.env: PASSWORD", "secret_env")
	app = good
	write("prod.enc.env", strings.Replace(sopsFile(t, "all.env"), "HOST_unencrypted=db", "HOST_unencrypted=evil", 1))
	refused("tampered with", "prod.enc.env", "MAC")
	write("prod.enc.env", sopsFile(t, "all.env"))
	f.Publish(strings.Replace(app, `VERSION: "1"`, `VERSION: "2"`, 1), "a good one")
	n.do("delivery", "reconcile", "pub")
	n.eventually(time.Minute, "the good one", func() error {
		body, err := n.answer("http://pub.example.com/")
		if err == nil && !strings.HasPrefix(body, "2 ") {
			err = fmt.Errorf("it answers %q", body)
		}
		return err
	})

	// Nothing of it is shown, kept or written in clear.
	for _, args := range [][]string{{"delivery", "describe", "pub"}, {"delivery", "get", "pub", "-o", "json"}, {"delivery", "history", "pub"}, {"history", "pub", "--release", "1"}, {"inspect", "pub/web"}, {"explain", "pub/web"}, {"trace", "pub/web"}} {
		show(args...)
	}
	serverLog, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	_, identity, _ := strings.Cut(sopsFile(t, "key.txt"), "\nAGE-SECRET-KEY-")
	values := []string{password, first, second, strings.TrimSpace(identity)}
	for _, v := range values { // as JSON has bytes
		values = append(values, base64.StdEncoding.EncodeToString([]byte(v)))
	}
	for _, value := range values {
		if strings.Contains(shown.String(), value) {
			t.Errorf("%s is shown", value)
		}
		if bytes.Contains(serverLog, []byte(value)) {
			t.Errorf("%s is in the log", value)
		}
		if out, err := exec.Command("grep", "-rlF", value, n.data).CombinedOutput(); exitCode(err) != 1 {
			t.Errorf("%s is on disk (%v): %s", value, err, out)
		}
	}
	if !strings.Contains(shown.String(), "prod.enc.env") || !strings.Contains(shown.String(), "secret_env") {
		t.Errorf("nothing was shown: %s", shown.String())
	}
}
