package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/need"
)

// forgeHook is a webhook as a forge sends it.
type forgeHook struct {
	name, body string
	header     map[string]string
	sign       func(h http.Header, key, body string)
}

func sum(key, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// forgeHooks are the webhooks of pushes, each with the headers that its forge sends.
func forgeHooks() []forgeHook {
	const pushed = `{"ref": "refs/heads/main", "before": "0000000000000000000000000000000000000000", "commits": []}`
	github := func(h http.Header, key, body string) { h.Set("X-Hub-Signature-256", "sha256="+sum(key, body)) }
	return []forgeHook{
		{"GitHub", pushed, map[string]string{"Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/044aadd", "X-GitHub-Event": "push", "X-GitHub-Delivery": "1"}, github},
		{"GitHub, as a form", url.Values{"payload": {pushed}}.Encode(), map[string]string{"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "GitHub-Hookshot/044aadd", "X-GitHub-Event": "push"}, github},
		{"GitLab", pushed, map[string]string{"Content-Type": "application/json", "User-Agent": "GitLab/17.0.0", "X-Gitlab-Event": "Push Hook"}, func(h http.Header, key, _ string) { h.Set("X-Gitlab-Token", key) }},
		{"Gitea", pushed, map[string]string{"Content-Type": "application/json", "X-Gitea-Event": "push", "X-Gogs-Event": "push", "X-GitHub-Event": "push"}, func(h http.Header, key, body string) {
			h.Set("X-Gitea-Signature", sum(key, body))
			h.Set("X-Gogs-Signature", sum(key, body))
			h.Set("X-Hub-Signature", "sha1=0000000000000000000000000000000000000000")
			h.Set("X-Hub-Signature-256", "sha256="+sum(key, body))
		}},
		{"Gitea, of old", pushed, map[string]string{"Content-Type": "application/json", "X-Gitea-Event": "push"}, func(h http.Header, key, body string) { h.Set("X-Gitea-Signature", sum(key, body)) }},
		{"anything", "", nil, func(h http.Header, key, body string) { h.Set("X-Signature-256", "sha256="+sum(key, body)) }},
	}
}

// TestWebhooks sends the webhooks of each forge to the server's own address, by TLS: what
// the secret signed brings the newest commit, and nothing else does. Then a bare repository
// sends one by the hook that docs/delivery.md shows.
func TestWebhooks(t *testing.T) {
	at := fmt.Sprintf("127.0.0.1:%d", need.Port(t))
	n := start(t, "--listen", at)
	image := n.image()
	f := follow.NewForge(t, n.dir)
	const key = "a-webhook's-secret"
	n.secret("pub/git", f.Password)
	n.secret("pub/hook", key)
	version := 1
	publish := func() string {
		t.Helper()
		return f.Publish(web(image, "pub", fmt.Sprint(version), 1, ""), fmt.Sprintf("version %d", version))
	}
	first := publish()
	n.do("delivery", "create", "pub", f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "24h", "--webhook", "hook")
	n.do("delivery", "create", "deaf", f.URL, "--secret", "git", "--ca", f.CA, "--suspend", "--detach")
	n.eventually(time.Minute, "the first commit", n.delivered("pub", "ready", first, "1"))

	ca := filepath.Join(n.data, "pki", "ca.crt")
	authority, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	cl := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(cl.CloseIdleConnections)
	send := func(delivery string, h forgeHook, sign func(http.Header)) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+at+"/v1/hooks/"+delivery, strings.NewReader(h.body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range maps.All(h.header) {
			req.Header.Set(k, v)
		}
		sign(req.Header)
		res, err := cl.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, h := range forgeHooks() {
		version++
		commit, asked := publish(), n.state("pub").Asked
		for what, wrong := range map[string]struct {
			delivery string
			sign     func(http.Header)
		}{
			"no signature":         {"pub", func(http.Header) {}},
			"another secret":       {"pub", func(hd http.Header) { h.sign(hd, "another", h.body) }},
			"an empty secret":      {"pub", func(hd http.Header) { h.sign(hd, "", h.body) }},
			"another delivery":     {"none", func(hd http.Header) { h.sign(hd, key, h.body) }},
			"one without webhooks": {"deaf", func(hd http.Header) { h.sign(hd, key, h.body) }},
		} {
			if code := send(wrong.delivery, h, wrong.sign); code != http.StatusForbidden {
				t.Errorf("%s, %s: answered with %d", h.name, what, code)
			}
		}
		if h.name != "GitLab" { // whose token signs nothing
			if code := send("pub", h, func(hd http.Header) { h.sign(hd, key, h.body+" ") }); code != http.StatusForbidden {
				t.Errorf("%s, another body: answered with %d", h.name, code)
			}
		}
		if st := n.state("pub"); st.Asked != asked || st.Seen.Revision == commit {
			t.Errorf("%s: a stranger's webhook makes it look: asked %d, then %d", h.name, asked, st.Asked)
		}
		if code := send("pub", h, func(hd http.Header) { h.sign(hd, key, h.body) }); code != http.StatusOK && code != http.StatusNoContent {
			t.Errorf("%s: answered with %d", h.name, code)
			continue
		}
		n.eventually(time.Minute, h.name+" brings a commit", n.delivered("pub", "ready", commit, fmt.Sprint(version)))
	}

	// Git's own hook, as it is written down.
	docs, err := os.ReadFile("../../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, found := strings.Cut(string(docs), "    #!/bin/sh\n")
	script, _, ended := strings.Cut(script, "\n\n")
	if !found || !ended {
		t.Fatal("docs/delivery.md shows no hook of Git's")
	}
	script = strings.NewReplacer("    ", "", "SERVER:7420", at, "/shop", "/pub").Replace(script)
	repository := filepath.Join(n.dir, "git", "pub.git")
	for name, content := range map[string]string{"hooks/post-receive": "#!/bin/sh\n" + script + "\n", "ca.crt": string(authority), "webhook.header": "X-Gitlab-Token: " + key + "\n"} {
		mode := os.FileMode(0o600)
		if strings.HasPrefix(name, "hooks/") {
			mode = 0o700
		}
		if err := os.WriteFile(filepath.Join(repository, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		version++
		commit := publish()
		n.eventually(time.Minute, "a push brings itself", n.delivered("pub", "ready", commit, fmt.Sprint(version)))
	}
	if b, _ := os.ReadFile(filepath.Join(n.dir, "server.log")); strings.Contains(string(b), key) {
		t.Error("the secret is in the log")
	}
}
