package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/follow"
	"github.com/fairlead/fairlead/integration/load"
)

// newShelf is a registry that the cluster logs in to.
func newShelf(t *testing.T, n *node) *follow.Shelf {
	t.Helper()
	s := follow.NewShelf(t)
	login := n.command(t.Context(), "image", "login", s.Host, "-u", s.User)
	login.Stdin = strings.NewReader(s.Password)
	if out, err := login.CombinedOutput(); err != nil {
		t.Fatalf("image login: %v\n%s", err, out)
	}
	return s
}

// startWithShelf starts a server and a registry, whose images the engine does not keep.
func startWithShelf(t *testing.T) (n *node, s *follow.Shelf) {
	t.Helper()
	t.Cleanup(func() { // when its containers are gone
		if s == nil {
			return
		}
		out, _ := n.docker("images", "-q", "--no-trunc", s.Repository()).Output()
		for id := range strings.FieldsSeq(string(out)) {
			_ = n.docker("rmi", "-f", id).Run()
		}
	})
	n = start(t)
	s = newShelf(t, n)
	return n, s
}

// TestImageUpdates goes from a commit over an image that is pushed to a commit that brings
// it, a rollout, and answers of the new version; over an image that is never healthy, and
// back; then the same with releases in place of commits, and with a tag that is moved.
// All of it by itself, under load, of which nothing fails.
func TestImageUpdates(t *testing.T) {
	n, s := startWithShelf(t)
	f := follow.NewForge(t, n.dir)
	n.secret("pub/git", f.Password)
	s.Put("1.0.0", false)
	marked := fmt.Sprintf("# What the shop runs.\nname: pub\nservices:\n  web:\n    image: '%s/shop/web:1.0.0'   # {\"fairlead\": \"web\"}\n", s.Host) +
		`    expose: ["8080"]
    deploy: {replicas: 2, update_config: {parallelism: 2, monitor: 1s}}
    x-fairlead: {health: {port: 8080, http: /health, interval: 1s, timeout: 10s, start_period: 10s}, routes: [{host: pub.example.com, port: 8080}]}
`
	f.Publish(marked, "the first version")
	create := func(more ...string) {
		t.Helper()
		n.do(append([]string{"delivery", "create", "pub", f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "5s", "--on-failure", "rollback"}, more...)...)
	}
	head := func() string { return f.Has("rev-parse", "main") }
	commits := func() string { return f.Has("rev-list", "--count", "main") }
	state := func() deliveryStatus { return get[deliveryStatus](n, "delivery", "get", "pub") }
	is := func(phase, version string) func() error {
		return func() error {
			if d := state(); d.State.Phase != phase {
				return fmt.Errorf("it is %s: %s", d.State.Phase, d.State.Message)
			}
			body, err := n.answer("http://pub.example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		}
	}
	create("--image", "web="+s.Host+"/shop/web semver 1.x", "--image-write", "commit")
	if err := is("ready", "1.0.0")(); err != nil {
		t.Fatal(err)
	}
	l := n.startLoad(load.EveryKind("http://pub.example.com/"))

	// An image that is pushed comes by itself.
	pushed := s.Put("1.1.0", false)
	s.Put("2.0.0", false)
	n.eventually(2*time.Minute, "the pushed image serves", is("ready", "1.1.0"))
	if got := f.Has("show", "main:compose.yaml"); got != strings.TrimSpace(strings.Replace(marked, "web:1.0.0", "web:1.1.0", 1)) {
		t.Errorf("the source says\n%s", got)
	}
	if got := f.Has("log", "-1", "--format=%an %s", "main"); got != "Fairlead pub: web 1.1.0" || commits() != "2" {
		t.Errorf("the newest of %s commits is %q", commits(), got)
	}
	if trace := n.do("trace", "pub/web"); !strings.Contains(trace, head()) || !strings.Contains(trace, "pub: web 1.1.0") || strings.Count(trace, s.Host+"/shop/web@"+pushed) != 2 {
		t.Errorf("trace says\n%s", trace)
	}

	// One that is never healthy is gone back from, and committed once.
	s.Put("1.2.0", true)
	n.eventually(3*time.Minute, "the bad image is held", is("held", "1.1.0"))
	bad := head()
	if out, err := n.try("delivery", "reconcile", "pub"); exitCode(err) != 1 || !strings.Contains(out, "until a new one comes") {
		t.Errorf("it is tried again: %v\n%s", err, out)
	}
	if head() != bad || commits() != "3" {
		t.Errorf("it is committed again: %s", f.Has("log", "--oneline", "main"))
	}
	s.Put("1.3.0", false)
	n.eventually(2*time.Minute, "the good image recovers", is("ready", "1.3.0"))

	// A source that takes no push: what people commit is deployed all the same, and the image
	// comes once it does.
	f.Has("config", "http.receivepack", "false")
	s.Put("1.3.1", false)
	n.eventually(2*time.Minute, "why there is no commit is said", func() error {
		if out := n.do("delivery", "describe", "pub"); !strings.Contains(out, "web 1.3.1 is not committed: ") {
			return errors.New(out)
		}
		return nil
	})
	f.InTree("pull", "-q", "--ff-only", "origin", "main")
	hotfix := f.Publish(strings.Replace(f.Has("show", "main:compose.yaml"), "monitor: 1s", "monitor: 2s", 1)+"\n", "a hotfix")
	n.eventually(2*time.Minute, "the hotfix is deployed", n.delivered("pub", "ready", hotfix, "1.3.0"))
	f.Has("config", "http.receivepack", "true")
	n.eventually(2*time.Minute, "the image is committed then", is("ready", "1.3.1"))
	if f.Has("rev-parse", "main^") != hotfix {
		t.Errorf("there are the commits\n%s", f.Has("log", "--oneline", "main"))
	}
	if out := n.do("delivery", "history", "pub"); strings.Count(out, "not committed: ") != 1 {
		t.Errorf("what was not committed is no event, or many:\n%s", out)
	}

	// Releases in place of commits.
	create("--replace", "--image", "web="+s.Host+"/shop/web semver 1.x", "--image-write", "release")
	at := head()
	s.Put("1.4.0", false)
	if out := n.do("delivery", "diff", "pub"); !strings.Contains(out, "1.3.1") || !strings.Contains(out, "1.4.0") {
		t.Logf("diff, which may have come too late, says\n%s", out)
	}
	n.eventually(2*time.Minute, "the pushed image is released", is("ready", "1.4.0"))
	if trace := n.do("trace", "pub/web"); !strings.Contains(trace, at) || !strings.Contains(trace, "web → "+s.Host+"/shop/web:1.4.0 sha256:") {
		t.Errorf("trace says\n%s", trace)
	}
	s.Put("1.5.0", true)
	n.eventually(3*time.Minute, "the bad image is held", is("held", "1.4.0"))
	release := state().State.Applied.Release
	if out, err := n.try("delivery", "reconcile", "pub"); exitCode(err) != 1 || !strings.Contains(out, "with web 1.5.0") {
		t.Errorf("it is tried again: %v\n%s", err, out)
	}
	if again := state().State.Applied.Release; again != release {
		t.Errorf("the bad image was deployed again, as release %d", again)
	}
	s.Put("1.6.0", false)
	n.eventually(2*time.Minute, "the good image recovers", is("ready", "1.6.0"))

	// A tag that is moved, and a registry that is away.
	first := s.Put("edge-1", false, "edge")
	create("--replace", "--image", "web="+s.Host+"/shop/web digest edge")
	if err := is("ready", "edge-1")(); err != nil {
		t.Error(err)
	}
	second := s.Put("edge-2", false, "edge")
	n.eventually(2*time.Minute, "the moved tag serves", is("ready", "edge-2"))
	n.traced("pub/web", second, first)
	s.Kill()
	n.do("delivery", "reconcile", "pub")
	if out := n.do("delivery", "describe", "pub"); !strings.Contains(out, s.Host+":") || !strings.Contains(out, "refused") {
		t.Errorf("a registry that is away is not said:\n%s", out)
	}
	if err := is("ready", "edge-2")(); err != nil {
		t.Errorf("without a registry: %v", err)
	}
	s.Up()
	l.WantNone(t, "while images were updated")
	if head() != at {
		t.Errorf("releases were committed: %s", f.Has("log", "--oneline", "main"))
	}
	if out := n.do("delivery", "history", "pub"); !strings.Contains(out, "images") || !strings.Contains(out, "committed as") {
		t.Errorf("its history is\n%s", out)
	}
	b, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
	for _, secret := range []string{f.Password, s.Password} {
		if strings.Contains(string(b), secret) {
			t.Error("a password is in the log")
		}
	}
}
