package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/sshd"
)

// secret sets a secret of an app.
func (n *node) secret(ref, value string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	cmd := n.command(ctx, "secret", "set", ref)
	cmd.Stdin = strings.NewReader(value)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("secret set: %v\n%s", err, out)
	}
}

// hook sends a webhook as GitHub does, and returns the answer's status.
func (n *node) hook(delivery, key string) (int, error) {
	body := `{"ref": "refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, "http://fairlead/v1/hooks/"+delivery, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	cl := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(n.run, "fairlead.sock"))
	}}}
	defer cl.CloseIdleConnections()
	res, err := cl.Do(req)
	if err != nil {
		return 0, err
	}
	_ = res.Body.Close()
	return res.StatusCode, nil
}

type deliveryStatus struct {
	State struct {
		Phase   string `json:"phase"`
		Message string `json:"message"`
		Applied struct {
			Release int `json:"release"`
			Origin  struct {
				Revision string `json:"revision"`
			} `json:"origin"`
		} `json:"applied"`
	} `json:"state"`
}

// TestDelivery lets an app follow a Git repository: a first commit, one that a webhook
// brings, one that fails and is gone back from, one that recovers, changes by hand, and
// a server that is killed in between; under load, of which nothing fails.
func TestDelivery(t *testing.T) {
	n := start(t)
	image := n.image()
	f, news, slack := follow.NewForge(t, n.dir), follow.NewInbox(t), follow.NewInbox(t)
	n.secret("pub/git", f.Password)
	n.secret("pub/hook", "signed")
	n.secret("pub/slack", slack.URL)
	first := f.Publish(web(image, "pub", "1", 2, ""), "the first version")
	n.do("delivery", "create", "pub", f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "1h",
		"--on-failure", "rollback", "--webhook", "hook", "--notify", news.URL, "--notify-slack", "secret:slack")
	serves := func(version string) func() error {
		return func() error {
			body, err := n.answer("http://pub.example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		}
	}
	at := func(phase, commit string) func() error {
		return func() error {
			d := get[deliveryStatus](n, "delivery", "get", "pub")
			if d.State.Phase != phase || d.State.Applied.Origin.Revision != commit {
				return fmt.Errorf("it is %s at %s: %s", d.State.Phase, d.State.Applied.Origin.Revision, d.State.Message)
			}
			return nil
		}
	}
	if err := serves("1")(); err != nil {
		t.Fatal(err)
	}
	if err := at("ready", first)(); err != nil {
		t.Fatal(err)
	}
	l := n.startLoad(load.EveryKind("http://pub.example.com/"))

	// A webhook brings the next one, and a stranger's brings none.
	second := f.Publish(web(image, "pub", "2", 2, ""), "the second version")
	if code, err := n.hook("pub", "another"); err != nil || code != http.StatusForbidden {
		t.Errorf("a webhook with another signature is answered with %d, %v", code, err)
	}
	if err := at("ready", first)(); err != nil {
		t.Errorf("after a stranger's webhook: %v", err)
	}
	if code, err := n.hook("pub", "signed"); err != nil || code != http.StatusOK {
		t.Fatalf("a webhook is answered with %d, %v", code, err)
	}
	n.eventually(2*time.Minute, "the second commit serves", at("ready", second))
	n.eventually(time.Minute, "version 2", serves("2"))

	// One that is never healthy is gone back from, and stays away.
	bad := strings.Replace(web(image, "pub", "3", 2, ""), `VERSION: "3"`, `VERSION: "3", BROKEN: health`, 1)
	third := f.Publish(bad, "a bad one")
	out, err := n.try("delivery", "reconcile", "pub")
	if exitCode(err) != 1 || !strings.Contains(out, "back at "+second[:8]) {
		t.Errorf("a bad commit exits with %v:\n%s", err, out)
	}
	n.eventually(time.Minute, "it is held", at("held", third))
	n.eventually(time.Minute, "version 2 serves again", serves("2"))
	n.traced("pub/web", second, third)
	n.eventually(time.Minute, "it was told", func() error {
		if err := slack.Has(`{"text":"*pub* rolled-back ` + second[:8]); err != nil {
			return err
		}
		return news.Has(`"event":"failed"`, third, "Ann", "a bad one")
	})
	release := get[deliveryStatus](n, "delivery", "get", "pub").State.Applied.Release
	if out, err := n.try("delivery", "reconcile", "pub"); exitCode(err) != 1 || !strings.Contains(out, "until a new one comes") {
		t.Errorf("it is tried again: %v\n%s", err, out)
	}
	if again := get[deliveryStatus](n, "delivery", "get", "pub").State.Applied.Release; again != release {
		t.Errorf("the bad commit was deployed again, as release %d", again)
	}

	// What is changed by hand meanwhile is as it was, too.
	if out := n.do("rollback", "pub", "1"); !strings.Contains(out, "makes release ") || !strings.Contains(out, ", the last good one, again at its next look") {
		t.Errorf("a change by hand is answered with\n%s", out)
	}
	n.eventually(time.Minute, "version 1, by hand", serves("1"))
	if out, err := n.try("delivery", "reconcile", "pub"); exitCode(err) != 1 || !strings.Contains(out, "stays at "+second[:8]) {
		t.Errorf("after a change by hand: %v\n%s", err, out)
	}
	if err := serves("2")(); err != nil {
		t.Errorf("held, after a change by hand: %v", err)
	}
	if out := n.do("delivery", "get", "pub"); !strings.Contains(out, second[:8]) || strings.Contains(out, "main "+third[:8]) {
		t.Errorf("it is shown as\n%s", out)
	}
	n.eventually(time.Minute, "it was told", func() error { return news.Has(`"event":"drift"`, "corrected: ") })

	// The server is killed while the next one is on its way.
	fourth := f.Publish(web(image, "pub", "4", 2, ""), "a good one")
	n.do("delivery", "reconcile", "pub", "--detach")
	n.stop(syscall.SIGKILL)
	n.up()
	n.eventually(2*time.Minute, "the good one", at("ready", fourth))
	n.eventually(time.Minute, "version 4", serves("4"))
	l.WantNone(t, "while it was delivered")

	trace := n.do("trace", "pub/web")
	for _, want := range []string{fourth, "a good one", "Ann <ann@example.com>", f.URL, "delivery pub", image, "sha256:"} {
		if !strings.Contains(trace, want) {
			t.Errorf("trace does not say %q:\n%s", want, trace)
		}
	}
	if out := n.do("history", "pub"); !strings.Contains(out, "delivery pub") || !strings.Contains(out, "a good one") {
		t.Errorf("the releases are\n%s", out)
	}
	if out := n.do("delivery", "history", "pub"); !strings.Contains(out, "rolled-back") {
		t.Errorf("its history is\n%s", out)
	}

	// What is changed by hand is seen, and corrected.
	n.do("rollback", "pub", "1")
	if out, err := n.try("delivery", "diff", "pub", "--exit-code"); exitCode(err) != 10 || !strings.Contains(out, "env.VERSION") {
		t.Errorf("diff exits with %v:\n%s", err, out)
	}
	n.do("delivery", "reconcile", "pub")
	if err := serves("4")(); err != nil {
		t.Errorf("after a change by hand: %v", err)
	}

	// Suspended, it does nothing.
	n.do("delivery", "suspend", "pub")
	fifth := f.Publish(web(image, "pub", "5", 2, ""), "not now")
	if code, err := n.hook("pub", "signed"); err != nil || code != http.StatusOK {
		t.Errorf("a webhook is answered with %d, %v", code, err)
	}
	if _, err := n.try("delivery", "reconcile", "pub"); exitCode(err) != 2 {
		t.Errorf("a suspended delivery is reconciled: %v", err)
	}
	if err := serves("4")(); err != nil {
		t.Errorf("suspended: %v", err)
	}
	n.do("delivery", "resume", "pub")
	n.eventually(2*time.Minute, "the fifth commit serves", at("ready", fifth))

	// One that cannot be read at all is told of by its own name.
	broken := f.Publish("services: [", "no YAML")
	if out, err := n.try("delivery", "reconcile", "pub"); exitCode(err) != 1 || !strings.Contains(out, "compose.yaml:1") {
		t.Errorf("a file that is none exits with %v:\n%s", err, out)
	}
	n.eventually(time.Minute, "it was told by its name", func() error {
		return news.Has(`"event":"failed"`, broken, "Ann", "no YAML")
	})
	if out := n.do("delivery", "describe", "pub"); !strings.Contains(out, broken[:8]+" “no YAML” by Ann") {
		t.Errorf("it is described as\n%s", out)
	}
	if b, _ := os.ReadFile(filepath.Join(n.dir, "server.log")); strings.Contains(string(b), f.Password) {
		t.Error("the password is in the log")
	}
	n.do("delivery", "rm", "pub")
	if err := serves("5")(); err != nil {
		t.Errorf("without its delivery: %v", err)
	}
}

// TestDeliveryOverSSH lets an app follow a repository that OpenSSH guards, by a key of the
// secret store: a server with another key of its own is not spoken to.
func TestDeliveryOverSSH(t *testing.T) {
	n := start(t)
	image := n.image()
	f, s := follow.NewForge(t, n.dir), sshd.Start(t)
	url := fmt.Sprintf("ssh://%s@%s%s", s.User, s.Addr, filepath.Join(n.dir, "git", "pub.git"))
	n.secret("pub/key", string(s.Login))
	n.secret("pub/hook", "signed")
	first := f.Publish(web(image, "pub", "1", 1, ""), "the first version")
	create := []string{"delivery", "create", "pub", url, "--secret", "key", "--branch", "main", "--interval", "1h", "--webhook", "hook"}
	if out, err := n.try(create...); exitCode(err) != 2 || !strings.Contains(out, "--known-hosts") {
		t.Errorf("without known hosts it exits with %v:\n%s", err, out)
	}
	ready := func(commit, version string) func() error {
		return func() error {
			if d := get[deliveryStatus](n, "delivery", "get", "pub"); d.State.Phase != "ready" || d.State.Applied.Origin.Revision != commit {
				return fmt.Errorf("it is %s at %s: %s", d.State.Phase, d.State.Applied.Origin.Revision, d.State.Message)
			}
			body, err := n.answer("http://pub.example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		}
	}
	stranger := s
	_, stranger.Host = sshd.Key(t)
	out, err := n.try(append(create, "--known-hosts", n.write("strangers", stranger.Known()))...)
	if exitCode(err) != 1 || !strings.Contains(out, "another key") {
		t.Errorf("to a stranger it exits with %v:\n%s", err, out)
	}
	if out := n.do("ls"); strings.Contains(out, "pub") {
		t.Errorf("something of a stranger's runs:\n%s", out)
	}
	n.do("delivery", "rm", "pub")

	n.do(append(create, "--known-hosts", n.write("hosts", s.Known()))...)
	n.eventually(time.Minute, "the first commit serves", ready(first, "1"))
	second := f.Publish(web(image, "pub", "2", 1, ""), "the second version")
	if code, err := n.hook("pub", "signed"); err != nil || code != http.StatusOK {
		t.Fatalf("a webhook is answered with %d, %v", code, err)
	}
	n.eventually(time.Minute, "the second commit serves", ready(second, "2"))
	if trace := n.do("trace", "pub/web"); !strings.Contains(trace, url) || !strings.Contains(trace, second) {
		t.Errorf("trace says\n%s", trace)
	}
	if b, _ := os.ReadFile(filepath.Join(n.dir, "server.log")); strings.Contains(string(b), "PRIVATE KEY") {
		t.Error("the key is in the log")
	}
}

// traced waits until trace leads to what is wanted, and to nothing else: a container that is
// being stopped is still led to its own.
func (n *node) traced(service, want, other string) {
	n.t.Helper()
	n.eventually(time.Minute, "trace leads to "+want+" alone", func() error {
		if out := n.do("trace", service); !strings.Contains(out, want) || strings.Contains(out, other) {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
}
