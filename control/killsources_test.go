package control_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/delivery"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/integration/gitd"
	"github.com/fairlead/fairlead/integration/need"
)

// beyond is what a world's app really follows: a Git repository over https and a registry,
// fetched from by processes of their own. A server may be killed with each of their requests.
type beyond struct {
	t          *testing.T
	worker     work.Worker
	bare, tree string
	url, ca    string // of the repository
	host       string // of the registry
	registry   http.Handler

	mu       sync.Mutex
	srv      *mortal // whose requests they are
	newest   string  // tag of the image that is to be chosen; "": none is
	artifact string  // what is followed in place of the repository; "": it is not
}

// newBeyond is not part of any bubble: its servers wait for the world outside.
func newBeyond(t *testing.T, program string) *beyond {
	t.Helper()
	dir := t.TempDir()
	b := &beyond{
		t: t, bare: filepath.Join(dir, "git", "shop.git"), tree: filepath.Join(dir, "tree"), registry: registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		worker: work.Worker{Command: []string{program, work.Command}, Dir: filepath.Join(dir, "work")},
	}
	b.git(dir, "init", "-q", "--bare", "-b", "main", b.bare)
	b.git(b.bare, "config", "http.receivepack", "true")
	b.git(dir, "clone", "-q", b.bare, b.tree)
	b.git(b.tree, "checkout", "-q", "-B", "main")
	env := []string{"GIT_PROJECT_ROOT=" + filepath.Dir(b.bare), "GIT_HTTP_EXPORT_ALL=1"}
	forge := httptest.NewTLSServer(b.gate(&cgi.Handler{Path: gitd.Backend, Env: env, Stderr: io.Discard}))
	t.Cleanup(forge.Close)
	shelf := httptest.NewServer(b.gate(b.registry))
	t.Cleanup(shelf.Close)
	b.url, b.host = forge.URL+"/shop.git", strings.TrimPrefix(shelf.URL, "http://")
	b.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forge.Certificate().Raw}))
	return b
}

// gate lets requests through until the server is killed: with one that does not happen, or
// with one that does, of whose answer half gets there.
func (b *beyond) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		m := b.srv
		b.mu.Unlock()
		happens, answered := m.step()
		if answered {
			next.ServeHTTP(w, r)
			return
		}
		if happens {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			maps.Copy(w.Header(), rec.Header())
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
			_ = http.NewResponseController(w).Flush()
		}
		b.killFetching()
		panic(http.ErrAbortHandler)
	})
}

// killFetching kills the processes that fetch, as the kernel does when their server is killed.
func (b *beyond) killFetching() {
	for _, pid := range b.fetching() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (b *beyond) fetching() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, l := range lists {
		children, _ := os.ReadFile(l)
		for word := range strings.FieldsSeq(string(children)) {
			if exe, _ := os.Readlink("/proc/" + word + "/exe"); exe == b.worker.Command[0] {
				pid, _ := strconv.Atoi(word)
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (b *beyond) git(dir string, args ...string) string {
	b.t.Helper()
	out, err := gitd.Run(b.t.Context(), dir, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// composed is a Compose file whose image, of the registry, is marked.
func (b *beyond) composed(tag string) string {
	return fmt.Sprintf("services:\n  web:\n    image: %s/shop/web:%s # {\"fairlead\": \"web\"}\n    deploy: {replicas: 2, restart_policy: {condition: none}}\n", b.host, tag)
}

// push commits a Compose file with an image of this tag.
func (b *beyond) push(tag, message string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.tree, "compose.yaml"), []byte(b.composed(tag)), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.git(b.tree, "add", "-A")
	b.git(b.tree, "commit", "-q", "-m", message)
	b.git(b.tree, "push", "-q", "origin", "HEAD")
}

// put puts something into the registry, without a request of a server.
func (b *beyond) put(path, kind string, content []byte) string {
	b.t.Helper()
	method := http.MethodPut
	if strings.Contains(path, "/blobs/") {
		method = http.MethodPost
	}
	req := httptest.NewRequestWithContext(b.t.Context(), method, path, bytes.NewReader(content))
	req.Header.Set("Content-Type", kind)
	rec := httptest.NewRecorder()
	b.registry.ServeHTTP(rec, req)
	if rec.Code != http.StatusCreated {
		b.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
	}
	return rec.Header().Get("Docker-Content-Digest")
}

// named is a text with names in the place of what is another one each time.
func (b *beyond) named(text string) string {
	text = strings.ReplaceAll(text, b.host+"/shop/", "")
	for line := range strings.Lines(b.git(b.bare, "log", "--all", "--format=%H %s")) {
		hash, subject, _ := strings.Cut(strings.TrimSpace(line), " ")
		text = strings.ReplaceAll(text, hash, "“"+subject+"”")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.artifact != "" {
		text = strings.ReplaceAll(text, b.artifact, "the artifact")
	}
	return text
}

// unseen is what a delivery has not seen yet.
func (b *beyond) unseen(st cluster.DeliveryState) string {
	b.mu.Lock()
	head, newest := b.artifact, b.newest
	b.mu.Unlock()
	if head == "" {
		head = b.git(b.bare, "rev-parse", "main")
	}
	switch {
	case st.Seen == nil || st.Seen.Revision != head:
		return b.named(head)
	case newest != "" && (len(st.Images) != 1 || st.Images[0].Tag != newest):
		return newest
	}
	return ""
}

// committer acts for deliveries as a server does, fetching and all.
type committer struct {
	follower
	b *beyond
}

// follower is that of a server that was just started.
func (b *beyond) follower(m *mortal, a *api.Server, src *source) control.Deliverer {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.srv = m
	if err := b.worker.Clean(); err != nil {
		b.t.Fatal(err)
	}
	return committer{follower{a, src}, b}
}

func (c committer) Look(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (control.Proposal, error) {
	t := work.Task{Delivery: d, Domain: "example.test", SingleNode: true, Release: 1, Scan: true, Chosen: st.Images, Commit: true, Now: time.Now()}
	t.Seen = st.Seen
	r, err := c.b.worker.Run(ctx, t)
	if err != nil {
		return control.Proposal{}, err
	}
	got := api.Fetched{Origin: r.Origin, Forced: r.Forced, Bundle: *r.Bundle, Images: r.Images}
	p, err := c.api.PlanDelivery(ctx, d, got)
	if err != nil {
		return control.Proposal{}, err
	}
	l := delivery.Look{Origin: r.Origin, Release: p.Release, Forced: r.Forced, Images: r.Images}
	for _, ch := range p.Changes {
		l.Changes = append(l.Changes, fmt.Sprintf("%s %s %s", ch.Action, ch.Object, ch.Name))
	}
	if r.Pushed != "" {
		l.Wrote = "committed as " + r.Pushed
	}
	return control.Proposal{Look: l, Deploy: func(ctx context.Context) (int, error) {
		res, err := c.api.Deliver(ctx, d, got, p.Release)
		return res.Release, err
	}}, nil
}

// reaching is what the server is killed in: something comes from beyond the cluster.
type reaching struct {
	name   string
	follow func(b *beyond) cluster.Delivery
	// brings is what comes: first, then what the server is killed in, and last what shows
	// that no lock is left.
	brings [3]func(b *beyond)
	want   string // what there is in the end, by the names of things
	last   string // what runs at the very last
}

// tag puts an image into the registry.
func tag(name string) func(b *beyond) {
	return func(b *beyond) {
		b.put("/v2/shop/web/manifests/"+name, "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil, `{"schemaVersion": 2, "config": {}, "layers": [], "annotations": {"name": %q}}`, name))
		b.mu.Lock()
		defer b.mu.Unlock()
		b.newest = name
	}
}

// commit pushes a Compose file with an image of this tag.
func commit(tag string) func(b *beyond) {
	return func(b *beyond) { b.push(tag, "version "+tag) }
}

func both(f, g func(b *beyond)) func(b *beyond) {
	return func(b *beyond) { f(b); g(b) }
}

// publish puts the same file into the registry, as an artifact of Docker Compose.
func publish(tag string) func(b *beyond) {
	return func(b *beyond) {
		digest := func(content, kind string) string {
			sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
			b.put("/v2/shop/config/blobs/uploads/?digest="+sum, "application/octet-stream", []byte(content))
			return fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": %d}`, kind, sum, len(content))
		}
		d := b.put("/v2/shop/config/manifests/latest", "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil,
			`{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.docker.compose.project", "config": %s, "layers": [%s]}`,
			digest("{}", "application/vnd.oci.empty.v1+json"), digest(b.composed(tag), "application/vnd.docker.compose.file+yaml")))
		b.mu.Lock()
		defer b.mu.Unlock()
		b.artifact = d
	}
}

func reachings() []reaching {
	fromGit := func(b *beyond) cluster.Delivery {
		return cluster.Delivery{
			App: "shop", OnFailure: cluster.OnFailureRollback, Source: cluster.SourceSpec{Kind: cluster.SourceGit, URL: b.url, CA: b.ca, Branch: "main"},
			Notify: []cluster.Notice{{URL: "https://example.com/"}},
		}
	}
	images := func(w cluster.ImageWrite) func(b *beyond) cluster.Delivery {
		return func(b *beyond) cluster.Delivery {
			d := fromGit(b)
			d.Images, d.ImageWrite = []cluster.ImagePolicy{{Name: "web", Repository: b.host + "/shop/web", Semver: ">=1.0.0-0"}}, w
			return d
		}
	}
	brings := func(second string) [3]func(b *beyond) {
		return [3]func(b *beyond){both(tag("1.0.0"), commit("1.0.0")), tag(second), tag("9.0.0")}
	}
	const is = "web is web:%s, 2 of web=web:%[1]s, complete, uninstalled false; %s at %s, told %s, made from %[3]s; %[5]s"
	const once, twice = "images deployed ready images deployed ready", "images deployed ready images deployed failed rolled-back"
	return []reaching{
		{
			"an image that is committed", images(cluster.ImageWrite{To: cluster.WriteCommit}), brings("1.1.0"),
			fmt.Sprintf(is, "1.1.0", "ready", "“shop: web 1.1.0”", once, "main: shop: web 1.1.0, version 1.0.0"), "9.0.0",
		},
		{
			"an image that is committed, and bad", images(cluster.ImageWrite{To: cluster.WriteCommit}), brings("1.1.0-bad"),
			strings.Replace(fmt.Sprintf(is, "1.0.0", "held", "“shop: web 1.1.0-bad”", twice, "main: shop: web 1.1.0-bad, version 1.0.0"), "made from “shop: web 1.1.0-bad”", "made from “version 1.0.0”", 1), "9.0.0",
		},
		{
			"an image that is committed beside", images(cluster.ImageWrite{To: cluster.WriteCommit, Branch: "bot"}), brings("1.1.0"),
			fmt.Sprintf(is, "1.0.0", "ready", "“version 1.0.0”", "images deployed ready images", "bot: shop: web 1.1.0, version 1.0.0, main: version 1.0.0"), "1.0.0",
		},
		{
			"an image that is released", images(cluster.ImageWrite{}), brings("1.1.0"),
			fmt.Sprintf(is, "1.1.0", "ready", "“version 1.0.0”", once, "main: version 1.0.0"), "9.0.0",
		},
		{
			"an image that is released, and bad", images(cluster.ImageWrite{}), brings("1.1.0-bad"),
			fmt.Sprintf(is, "1.0.0", "held", "“version 1.0.0”", twice, "main: version 1.0.0"), "9.0.0",
		},
		{
			"a commit", fromGit,
			[3]func(b *beyond){commit("1.0.0"), commit("1.1.0"), commit("9.0.0")},
			fmt.Sprintf(is, "1.1.0", "ready", "“version 1.1.0”", "deployed ready deployed ready", "main: version 1.1.0, version 1.0.0"), "9.0.0",
		},
		{
			"an artifact", func(b *beyond) cluster.Delivery {
				d := fromGit(b)
				d.Source = cluster.SourceSpec{Kind: cluster.SourceOCI, URL: "oci://" + b.host + "/shop/config", PlainHTTP: true}
				return d
			},
			[3]func(b *beyond){publish("1.0.0"), publish("1.1.0"), publish("9.0.0")},
			fmt.Sprintf(is, "1.1.0", "ready", "the artifact", "deployed ready deployed ready", ""), "9.0.0",
		},
	}
}

// try runs it in a world of its own; with n > 0 the server is killed with its n-th step
// and another one started.
func (r reaching) try(t *testing.T, program string, n int, after bool) (steps int, wrong string) {
	t.Helper()
	b := newBeyond(t, program)
	const path = "/v1/deliveries/shop"
	inWorldWith(t, b, func(w *world) {
		r.brings[0](b)
		w.must(http.MethodPut, path, v1.DeliverySet{Delivery: r.follow(b)})
		w.srv.killAt(n, after)
		r.brings[1](b)
		code, says := w.ask(http.MethodPost, path+"/reconcile", nil)
		if n == 0 {
			if code != http.StatusOK {
				wrong = fmt.Sprintf("refused: %d %s", code, says)
				return
			}
			wrong = r.ends(w)
			steps = w.srv.writes()
			return
		}
		w.awaitDeath()
		w.start()
		time.Sleep(2 * time.Minute) // the longest that it takes until the source is looked at
		if wrong = r.ends(w); wrong != "" {
			return
		}
		r.brings[2](b) // no lock is left
		if code, says := w.ask(http.MethodPost, path+"/reconcile", nil); code != http.StatusOK {
			wrong = fmt.Sprintf("the next change is refused: %d %s", code, says)
			return
		}
		if wrong = w.settle(); wrong == "" && !strings.HasPrefix(w.follows(), fmt.Sprintf("web is web:%s, 2 of web=web:%[1]s, complete, uninstalled false; ready at ", r.last)) {
			wrong = "after the next one there is " + w.follows()
		}
	})
	if left, _ := os.ReadDir(b.worker.Dir); wrong == "" && len(left) > 0 {
		wrong = fmt.Sprintf("what was fetched is left: %v", left)
	}
	if pids := b.fetching(); wrong == "" && len(pids) > 0 {
		wrong = fmt.Sprintf("the processes %v are left", pids)
	}
	return steps, wrong
}

// ends waits until nothing is on its way, and compares.
func (r reaching) ends(w *world) string {
	if why := w.settle(); why != "" {
		return why
	}
	var branches []string
	for name := range strings.FieldsSeq(w.beyond.git(w.beyond.bare, "branch", "--format=%(refname:short)")) {
		branches = append(branches, name+": "+strings.ReplaceAll(w.beyond.git(w.beyond.bare, "log", "--format=%s", name), "\n", ", "))
	}
	if got := w.follows() + "; " + strings.Join(branches, ", "); got != r.want {
		return fmt.Sprintf("there is %q, not %q", got, r.want)
	}
	return ""
}

// TestKillPointsOfSources kills the server while something comes from beyond the cluster:
// with each request that it makes of a registry or of Git, and with each of its writes.
func TestKillPointsOfSources(t *testing.T) {
	if os.Geteuid() != 0 {
		need.Skip(t, "confining a process takes root")
	}
	if _, err := os.Stat(gitd.Backend); err != nil {
		need.Skip(t, "git's http-backend is needed: %v", err)
	}
	// The race detector's memory would not fit into the limits of what fetches.
	program := filepath.Join(t.TempDir(), "fairlead")
	if err := need.Program(program, "../cmd/fairlead"); err != nil {
		t.Fatal(err)
	}
	for _, r := range reachings() {
		t.Run(r.name, func(t *testing.T) {
			killPoints(t, 2, func(t *testing.T, n int, after bool) (int, string) {
				t.Helper()
				return r.try(t, program, n, after)
			})
		})
	}
}
