package work_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
	"github.com/fairlead/fairlead/delivery/work"
)

// shelf is a registry in this process that gives tags in pages, and wants a password.
type shelf struct {
	t    *testing.T
	host string
	next http.Handler

	mu       sync.Mutex
	password string
	busy     []string // Retry-After of the next answers; "-": none is given
	page     int
	pages    int // given
	asked    int
	read     int            // manifests and layers that were sent whole
	forged   int            // as many tags are made up
	mute     map[string]int // status of the next answers about a tag's manifest, by method; 0: without its digest
}

// reads is how many manifests and layers were sent whole.
func (s *shelf) reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t: t, next: registry.New(registry.Logger(log.New(io.Discard, "", 0))), page: 3}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	password, busy, forged := s.password, "", s.forged
	if r.Method == http.MethodGet && (strings.Contains(r.URL.Path, "/manifests/") || strings.Contains(r.URL.Path, "/blobs/")) {
		s.read++
	}
	if len(s.busy) > 0 && strings.HasSuffix(r.URL.Path, "/tags/list") {
		busy, s.busy = s.busy[0], s.busy[1:]
	}
	status, mute := s.mute[r.Method]
	mute = mute && strings.Contains(r.URL.Path, "/manifests/")
	s.mu.Unlock()
	if mute {
		if status == 0 {
			status = http.StatusOK
		}
		w.WriteHeader(status)
		return
	}
	if _, got, _ := r.BasicAuth(); password != "" && got != password {
		w.Header().Set("WWW-Authenticate", `Basic realm="shelf"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if busy != "" {
		if busy != "-" {
			w.Header().Set("Retry-After", busy)
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/tags/list") {
		s.next.ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	all := r.Clone(r.Context())
	all.URL.RawQuery = "n=100000"
	s.next.ServeHTTP(rec, all)
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if rec.Code != http.StatusOK || json.Unmarshal(rec.Body.Bytes(), &list) != nil {
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
		return
	}
	for i := range forged {
		list.Tags = append(list.Tags, fmt.Sprintf("z%d", i))
	}
	s.mu.Lock()
	s.pages++
	n := s.page
	s.mu.Unlock()
	begin, _ := strconv.Atoi(r.URL.Query().Get("last"))
	end := min(begin+n, len(list.Tags))
	if list.Tags = list.Tags[begin:end]; len(list.Tags) == n {
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=%d&last=%d>; rel="next"`, r.URL.Path, n, end))
	}
	_ = json.NewEncoder(w).Encode(list)
}

// push puts an image with these tags, and returns its digest.
func (s *shelf) push(repo string, tags ...string) string {
	s.t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := name.NewRepository(s.host + "/" + repo)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, tag := range tags {
		if err := remote.Write(r.Tag(tag), img, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "ci", Password: s.password}))); err != nil {
			s.t.Fatal(err)
		}
	}
	d, err := img.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	return d.String()
}

// policy is one of the shelf's images.
func (s *shelf) policy(text string) cluster.ImagePolicy {
	s.t.Helper()
	n, rest, _ := strings.Cut(text, "=")
	p, err := image.Parse(n + "=" + s.host + "/" + rest)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (f *forge) following(policies ...cluster.ImagePolicy) cluster.Delivery {
	f.t.Helper()
	d := f.local()
	d.Images = policies
	if err := d.Validate(); err != nil {
		f.t.Fatal(err)
	}
	return d
}

// A hook has the image that the services of its repository get: what migrates a database
// is of the version that uses it.
func TestImagesOfHooks(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.2.0")
	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n")
	f.write("pkg/templates/app.yaml", "services:\n  web: {image: \""+s.host+"/shop/web:0.1\"}\n  migrate:\n    image: "+s.host+"/shop/web:0.1\n    x-fairlead: {hook: {on: [pre-upgrade]}}\n")
	f.push("a hook")
	d := f.following(s.policy("web=shop/web semver 1.x"))
	d.Package = "pkg"
	r := f.must(work.Task{Delivery: d, Scan: true, Release: 1})
	want := s.host + "/shop/web:1.2.0"
	if web, hook := r.Bundle.Services["web"].Task.Image, r.Bundle.Hooks[0].Spec.Task.Image; web != want || hook != want {
		t.Errorf("the service has %s, its hook %s, want %s", web, hook, want)
	}
}

func TestImagesOfARegistry(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0", "1.2.0", "1.10.0", "2.0.0", "latest", "main-9", "main-10")
	edge := s.push("shop/api", "edge")
	f.write("compose.yaml", "services:\n  web: {image: \""+s.host+"/shop/web:0.1\"}\n  api: {image: \""+s.host+"/shop/api\"}\n  other: {image: \"other:3\"}\n")
	f.push("the first")
	d := f.following(s.policy("web=shop/web semver 1.x"), s.policy("api=shop/api digest edge"))
	task := work.Task{Delivery: d, Scan: true}
	r := f.must(task)
	images := func(r work.Result) string {
		return fmt.Sprint(r.Bundle.Services["web"].Task.Image, " ", r.Bundle.Services["api"].Task.Image, " ", r.Bundle.Services["other"].Task.Image)
	}
	if want := s.host + "/shop/web:1.10.0 " + s.host + "/shop/api:edge@" + edge + " other:3"; images(r) != want {
		t.Errorf("the images are\n%s, want\n%s", images(r), want)
	}
	if s.pages < 3 {
		t.Errorf("the tags came in %d pages", s.pages)
	}
	st := r.Images[0]
	if len(r.Origin.Images) != 2 || st.Tags != 7 || st.Matching != 3 || st.Digest == "" || st.Chosen.IsZero() || st.Message != "" {
		t.Errorf("%+v, %+v", r.Origin.Images, st)
	}

	// What is known is not asked for again, and not made again.
	asked := s.asked
	task.Scan, task.Chosen, task.Known, task.KnownImages = false, r.Images, r.Origin.Revision, work.ImagesKey(r.Images)
	if again := f.must(task); again.Bundle != nil || s.asked != asked || !slices.Equal(again.Images, r.Images) {
		t.Errorf("%+v, asked %d times", again, s.asked-asked)
	}
	task.Scan = true
	if again := f.must(task); again.Bundle != nil || again.Images[0].Chosen != st.Chosen || !again.Images[0].Scanned.After(st.Scanned) {
		t.Errorf("%+v", again)
	}
	moved := s.push("shop/api", "edge")
	if again := f.must(task); again.Bundle == nil || again.Bundle.Services["api"].Task.Image != s.host+"/shop/api:edge@"+moved {
		t.Errorf("a tag that was moved: %+v", again)
	} else if d.KeyOf(again.Origin) == d.KeyOf(r.Origin) {
		t.Error("another image is not another attempt")
	}

	// Nothing that matches, and a service that is not there, are said, and leave the rest alone.
	task.Delivery.Images = []cluster.ImagePolicy{s.policy("web=shop/web semver 7.x"), s.policy("gone=shop/gone semver 1.x"), s.policy("edge=shop/api digest edge")}
	task.Chosen, task.Known = nil, ""
	f.write("compose.yaml", compose(s.host+"/shop/web:0.1"))
	f.push("without api")
	r = f.must(task)
	for i, want := range []string{"none of 7 tags", "no repository", "no service has an image"} {
		if !strings.Contains(r.Images[i].Message, want) {
			t.Errorf("%q does not say %q", r.Images[i].Message, want)
		}
	}
	if got := r.Bundle.Services["web"].Task.Image; got != s.host+"/shop/web:0.1" || len(r.Origin.Images) > 0 {
		t.Errorf("%s, %v", got, r.Origin.Images)
	}
}

func TestRegistryThatIsShut(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0")
	f.write("compose.yaml", compose(s.host+"/shop/web:0.1"))
	f.push("the first")
	task := work.Task{Delivery: f.following(s.policy("web=shop/web semver 1.x")), Scan: true}
	s.password = "geheim"
	f.refused(task, cluster.KindForbidden, "fairlead image login "+s.host)
	task.Logins = map[string]work.Login{s.host: {User: "ci", Password: []byte("wrong")}}
	f.refused(task, cluster.KindForbidden, "the login that is kept")
	task.Logins[s.host] = work.Login{User: "ci", Password: []byte("geheim")}
	good := f.must(task)
	if good.Images[0].Tag != "1.0.0" {
		t.Fatalf("%+v", good.Images)
	}

	// Once something was chosen, it stays: an app is not changed by what is away.
	task.Chosen = good.Images
	for _, away := range []func(){
		func() { s.password = "another" },
		func() { s.password, s.busy = "geheim", []string{"-"} },
		func() { s.busy = []string{"7200"} },
	} {
		away()
		r := f.must(task)
		if st := r.Images[0]; st.Tag != "1.0.0" || !st.Away || st.Failures != 1 || st.Message == "" || r.Bundle.Services["web"].Task.Image != s.host+"/shop/web:1.0.0" {
			t.Errorf("%+v", r.Images[0])
		}
	}
	s.busy = []string{"3000"}
	if r := f.must(task); r.Waits[s.host] != 3000*time.Second {
		t.Errorf("it wants to be left alone for %v", r.Waits)
	}
	s.busy = []string{"0", "1"}
	if r := f.must(task); r.Images[0].Failures != 0 || len(r.Waits) > 0 {
		t.Errorf("a short wait: %+v, %v", r.Images[0], r.Waits)
	}
	asked := s.asked
	task.Leave = map[string]string{s.host: "not before tomorrow"}
	if r := f.must(task); s.asked != asked || !strings.Contains(r.Images[0].Message, "tomorrow") {
		t.Errorf("it is left alone, and asked %d times: %+v", s.asked-asked, r.Images[0])
	}
	task.Leave, s.page, s.forged = nil, 10_000, 60_000
	if r := f.must(task); !strings.Contains(r.Images[0].Message, "more than 50000 tags") {
		t.Errorf("%+v", r.Images[0])
	}

	// Nothing goes over a network in clear.
	asked = s.asked
	task.Chosen, task.Delivery.Images[0].Repository = nil, outside(t, s)+"/shop/web"
	f.refused(task, cluster.KindForbidden, "speaks no TLS")
	if s.asked != asked {
		t.Error("a registry without TLS is spoken to")
	}
}

// What the engine of this machine trusts, is trusted of that registry, and of no other.
func TestRegistryOfAnAuthorityOfItsOwn(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0")
	srv := httptest.NewUnstartedServer(s)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "https://")
	f.write("compose.yaml", compose(host+"/shop/web:0.1"))
	f.push("the first")
	p := s.policy("web=shop/web semver 1.x")
	p.Repository = host + "/shop/web"
	task := work.Task{Delivery: f.following(p), Scan: true, Certs: t.TempDir()}
	f.refused(task, cluster.KindForbidden, "servers trust what their engines do, in "+filepath.Join(task.Certs, host))
	for _, of := range []string{s.host, host} {
		dir := filepath.Join(task.Certs, of)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644); err != nil {
			t.Fatal(err)
		}
		if of != host {
			f.refused(task, cluster.KindForbidden, "unknown authority")
		}
	}
	if r := f.must(task); r.Images[0].Tag != "1.0.0" || r.Bundle.Services["web"].Task.Image != host+"/shop/web:1.0.0" {
		t.Errorf("%+v", r.Images[0])
	}
}

// outside serves on an address that is not the loopback's.
func outside(t *testing.T, s http.Handler) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip, _, err := net.ParseCIDR(a.String())
		if err != nil || ip.To4() == nil || !ip.IsPrivate() {
			continue
		}
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ip.String(), "0"))
		if err != nil {
			continue
		}
		srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}}
		srv.Start()
		t.Cleanup(srv.Close)
		return l.Addr().String()
	}
	t.Skip("this machine has no address that is not the loopback's")
	return ""
}

func TestImagesAreCommitted(t *testing.T) {
	const marked = "# the shop\r\nservices:\r\n  web: {image: \"%s/shop/web:%s\" }   # {\"fairlead\": \"web\"}\r\n"
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0")
	f.write("deploy/compose.yaml", fmt.Sprintf(marked, s.host, "0.9"))
	f.write("other.yaml", "image: x # {\"fairlead\": \"web\"}\n")
	f.write("deploy/broken.yaml", "a: [\n")
	first := f.push("the first")
	for name, source := range map[string]func() (cluster.SourceSpec, []byte){
		"file":  func() (cluster.SourceSpec, []byte) { return f.local().Source, nil },
		"https": func() (cluster.SourceSpec, []byte) { return f.shut("geheim"), []byte("geheim") },
		"ssh": func() (cluster.SourceSpec, []byte) {
			at := small(t)
			return cluster.SourceSpec{Kind: cluster.SourceGit, URL: fmt.Sprintf("ssh://%s@%s%s", at.User, at.Addr, f.dir), Secret: "key", KnownHosts: at.Known()}, at.Login
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.t, s.t = t, t
			f.git(f.tree, "push", "-q", "-f", "origin", first+":refs/heads/main")
			d := f.following(s.policy("web=shop/web semver 1.x"))
			d.Path, d.ImageWrite = "deploy", cluster.ImageWrite{To: cluster.WriteCommit}
			d.Source, _ = source()
			var password []byte
			d.Source, password = source()
			task := work.Task{Delivery: d, Scan: true, Password: password, Cluster: "harbour"}

			// Without leave it is written nowhere, and seen.
			r := f.must(task)
			want := s.host + "/shop/web:1.0.0"
			if r.Pushed != "" || len(r.Edits) != 1 || r.Origin.Revision != first || r.Bundle.Services["web"].Task.Image != want {
				t.Fatalf("%+v %+v", r.Edits, r.Origin)
			}
			if head := f.git(f.dir, "rev-parse", "main"); head != first {
				t.Fatalf("main is at %s", head)
			}
			task.Commit = true
			r = f.must(task)
			head := f.git(f.dir, "rev-parse", "main")
			if r.Pushed != head || r.Origin.Revision != head || f.git(f.dir, "rev-parse", "main^") != first || r.Bundle.Services["web"].Task.Image != want || len(r.Origin.Images) > 0 {
				t.Fatalf("%+v, main is at %s", r, head)
			}
			if got := f.git(f.dir, "log", "-1", "--format=%an <%ae>%n%B", "main"); got != "Fairlead <fairlead@harbour>\nshop: web 1.0.0\n\n- web: "+s.host+"/shop/web:0.9 → "+want+" (deploy/compose.yaml:3)" {
				t.Errorf("the commit says\n%s", got)
			}
			if got := f.git(f.dir, "diff", "--stat", first, "main"); !strings.Contains(got, "1 file changed, 1 insertion(+), 1 deletion(-)") {
				t.Errorf("it changes\n%s", got)
			}
			f.git(f.tree, "fetch", "-q", "origin")
			if got := f.git(f.tree, "show", "origin/main:deploy/compose.yaml"); got != strings.TrimSpace(fmt.Sprintf(marked, s.host, "1.0.0")) {
				t.Errorf("it is\n%q", got)
			}
			f.git(f.dir, "fsck", "--strict")

			// There is nothing to do again.
			r = f.must(task)
			if r.Pushed != "" || len(r.Edits) > 0 || f.git(f.dir, "rev-parse", "main") != head {
				t.Errorf("committed again: %+v", r)
			}

			// Another branch leaves the source's alone.
			f.git(f.tree, "push", "-q", "-f", "origin", first+":refs/heads/main")
			task.Delivery.ImageWrite = cluster.ImageWrite{To: cluster.WriteCommit, Branch: "bot/" + name, Author: "Bot <bot@example.com>", Message: "{delivery} of {app}: {images}"}
			for range 2 {
				r = f.must(task)
				if r.Origin.Revision != first || r.Bundle.Services["web"].Task.Image != s.host+"/shop/web:0.9" || f.git(f.dir, "rev-parse", "main") != first {
					t.Errorf("%+v", r)
				}
			}
			if got := f.git(f.dir, "log", "-2", "--format=%h %an %s", "bot/"+name); got != f.git(f.dir, "log", "-1", "--format=%h", "bot/"+name)+" Bot shop of shop: web 1.0.0\n"+first[:7]+" Ann the first" {
				t.Errorf("the branch is\n%s", got)
			}
		})
	}
}

// A tag and its digest, each marked, are written together: where a registry does not say what a
// new tag means, what was chosen stays, and what a tag means anew is written by itself.
func TestATagIsNotWrittenBesideAnotherDigest(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	first := s.push("shop/web", "1.0.0")
	f.write("compose.yaml", "services:\n  web:\n    image: "+s.host+"/shop/web:0.9 # {\"fairlead\": \"web\"}\n    labels:\n      digest: sha256:"+strings.Repeat("0", 64)+" # {\"fairlead\": \"web:digest\"}\n")
	f.push("the first")
	d := f.following(s.policy("web=shop/web semver 1.x"))
	d.ImageWrite = cluster.ImageWrite{To: cluster.WriteCommit}
	task := work.Task{Delivery: d, Scan: true, Commit: true, Cluster: "harbour"}
	is := func(what, tag, digest string, r work.Result) {
		t.Helper()
		got := f.git(f.dir, "show", "main:compose.yaml")
		if !strings.Contains(got, "shop/web:"+tag+" ") || !strings.Contains(got, "digest: "+digest+" ") || r.Images[0].Tag != tag || r.Images[0].Digest != digest {
			t.Errorf("%s: %+v, and it is written\n%s", what, r.Images[0], got)
		}
		task.Chosen, task.Known, task.KnownImages = r.Images, r.Origin.Revision, work.ImagesKey(r.Images)
	}
	is("the first", "1.0.0", first, f.must(task))

	second := s.push("shop/web", "1.1.0")
	s.mute = map[string]int{http.MethodHead: http.StatusBadGateway, http.MethodGet: http.StatusBadGateway}
	r := f.must(task)
	if !strings.Contains(r.Images[0].Message, "502") {
		t.Errorf("it says %q", r.Images[0].Message)
	}
	is("it does not say what the tag means", "1.0.0", first, r)
	s.mute = map[string]int{http.MethodHead: 0}
	is("it says it in full alone", "1.1.0", second, f.must(task))

	s.mute = nil
	third := s.push("shop/web", "1.1.0")
	is("pushed anew", "1.1.0", third, f.must(task))
}

// A branch of its own can always be merged: it is one commit on what the source has, made
// anew when that moves on, unless somebody has added to it.
func TestABranchOfItsOwnIsMadeAnew(t *testing.T) {
	for _, over := range []string{"file", "https"} {
		t.Run(over, func(t *testing.T) {
			f, s := newForge(t), newShelf(t)
			s.push("shop/web", "1.0.0")
			service := func(name string) string {
				return "  " + name + ":\n    image: " + s.host + "/shop/web:0.9 # {\"fairlead\": \"web\"}\n"
			}
			f.write("compose.yaml", "services:\n"+service("web"))
			f.push("the first")
			d := f.following(s.policy("web=shop/web semver 1.x"))
			d.ImageWrite = cluster.ImageWrite{To: cluster.WriteCommit, Branch: "bot"}
			task := work.Task{Delivery: d, Scan: true, Commit: true}
			if over == "https" {
				task.Delivery.Source, task.Password = f.shut("geheim"), []byte("geheim")
			}
			pushes := func(want bool) string {
				t.Helper()
				if r := f.must(task); (r.Pushed != "") != want || want && r.Pushed != f.git(f.dir, "rev-parse", "bot") || r.Images[0].Unwritten != "" {
					t.Fatalf("pushed %q, %+v", r.Pushed, r.Images)
				}
				return f.git(f.dir, "log", "--format=%s", "bot")
			}
			pushes(true)
			pushes(false)

			// Merged as one other commit, and more in the source.
			f.git(f.tree, "fetch", "-q", "origin")
			f.git(f.tree, "merge", "-q", "--squash", "origin/bot")
			f.push("web 1.0.0 (#1)")
			f.write("compose.yaml", strings.ReplaceAll("services:\n"+service("web")+service("more"), "web:0.9", "web:1.0.0"))
			f.push("another service")
			pushes(false) // the source has it all
			s.push("shop/web", "1.1.0")
			if got := pushes(true); got != "shop: web 1.1.0\nanother service\nweb 1.0.0 (#1)\nthe first" {
				t.Errorf("the branch is\n%s", got)
			}
			f.git(f.tree, "fetch", "-q", "origin")
			f.git(f.tree, "merge", "-q", "--no-ff", "-m", "try", "origin/bot")
			if got := f.git(f.tree, "show", "HEAD:compose.yaml"); strings.Count(got, "web:1.1.0") != 2 {
				t.Errorf("merged it is\n%s", got)
			}
			f.git(f.tree, "reset", "-q", "--hard", "HEAD^")
			f.write("readme", "words")
			f.push("words")
			if got := pushes(true); !strings.HasPrefix(got, "shop: web 1.1.0\nwords\n") {
				t.Errorf("the branch is\n%s", got)
			}

			// What somebody has added stays, and what comes goes on top.
			f.git(f.tree, "fetch", "-q", "origin")
			f.git(f.tree, "checkout", "-q", "-B", "bot", "origin/bot")
			f.write("more", "by hand")
			f.push("by hand")
			f.git(f.tree, "checkout", "-q", "main")
			f.write("readme", "other words")
			f.push("other words")
			pushes(false)
			for _, v := range []string{"1.2.0", "1.3.0"} {
				s.push("shop/web", v)
				if got := pushes(true); !strings.HasPrefix(got, "shop: web "+v+"\n") || !strings.Contains(got, "by hand\nshop: web 1.1.0\nwords\n") {
					t.Errorf("the branch is\n%s", got)
				}
			}
			f.git(f.dir, "fsck", "--strict")
		})
	}
}

// Two deliveries of one repository write each into its own files; a mark of the other's
// policies is none of its business.
func TestImagesAreCommittedToOwnFiles(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0", "2.0.0")
	marked := "services:\n  %s:\n    image: " + s.host + "/shop/web:0.1 # {\"fairlead\": \"web\"}\n"
	name := func(service string) string { return fmt.Sprintf(marked, service) }
	f.write("one.yaml", "include: [parts/inc.yaml, {path: [parts/long.yaml]}]\n"+name("one")+"    extends: {service: base, file: ./parts/base.yaml}\n  none: {image: a}\n")
	f.write("parts/inc.yaml", name("inc"))
	f.write("parts/long.yaml", name("long"))
	f.write("parts/base.yaml", name("base"))
	f.write("two.yaml", name("two"))
	f.write("three.yaml", strings.Replace(name("three"), `"web"`, `"another"`, 1))
	f.write("deploy/compose.yaml", name("deploy"))
	f.write("deploy/compose.override.yaml", name("deploy"))
	f.write("deploy/extra.yaml", name("extra"))
	f.write("deploy/more.yaml", name("more"))
	f.write("deploy/.env", "COMPOSE_FILE=compose.yaml:compose.override.yaml:extra.yaml\n")
	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n")
	f.write("pkg/values.yaml", "image: "+s.host+"/shop/web:0.1 # {\"fairlead\": \"web\"}\n")
	f.write("pkg/templates/app.yaml", "services:\n  web: {image: \"{{ .Values.image }}\"}\n")
	f.write("prod.yaml", "image: "+s.host+"/shop/web:0.1 # {\"fairlead\": \"web\"}\n")
	f.push("the first")
	commits := cluster.ImageWrite{To: cluster.WriteCommit}
	one, two := f.following(s.policy("web=shop/web semver 1.x")), f.following(s.policy("web=shop/web semver 2.x"))
	one.Compose, one.ImageWrite = []string{"one.yaml"}, commits
	two.Compose, two.ImageWrite = []string{"two.yaml"}, commits
	dir, pkg := two, two
	dir.Compose, dir.Path = nil, "deploy"
	pkg.Compose, pkg.Package, pkg.Values = nil, "pkg", []string{"prod.yaml"}
	for _, tc := range []struct {
		what  string
		d     cluster.Delivery
		files []string
	}{
		{"its files, and what they include and extend", one, []string{"one.yaml", "parts/base.yaml", "parts/inc.yaml", "parts/long.yaml"}},
		{"another one", two, []string{"two.yaml"}},
		{"the first again", one, nil},
		{"the usual files, and what .env names", dir, []string{"deploy/compose.override.yaml", "deploy/compose.yaml", "deploy/extra.yaml"}},
		{"a package", pkg, []string{"pkg/values.yaml", "prod.yaml"}},
		{"the other again", two, nil},
	} {
		r := f.must(work.Task{Delivery: tc.d, Scan: true, Commit: true, Release: 1})
		var files []string
		for _, e := range r.Edits {
			files = append(files, e.File)
		}
		slices.Sort(files)
		if !slices.Equal(files, tc.files) || (r.Pushed != "") != (tc.files != nil) || r.Images[0].Message != "" {
			t.Errorf("%s: %v is written, not %v (%q)", tc.what, files, tc.files, r.Images[0].Message)
		}
	}
}

// Whoever owns a repository on the servers' disk can write there still.
func TestCommitsBelongToTheOwner(t *testing.T) {
	const owner = 12345
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0")
	f.write("a/b/compose.yaml", "services:\n  web:\n    image: "+s.host+"/shop/web:1 # {\"fairlead\": \"web\"}\n")
	f.push("the first")
	d := f.following(s.policy("web=shop/web semver 1.x"))
	d.Path = "a/b"
	each := func(do func(path string, uid uint32) error) {
		t.Helper()
		err := filepath.Walk(f.dir, func(path string, info os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			return do(path, info.Sys().(*syscall.Stat_t).Uid)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	each(func(path string, _ uint32) error { return os.Lchown(path, owner, owner) })
	for _, branch := range []string{"", "bot/x/y"} {
		d.ImageWrite = cluster.ImageWrite{To: cluster.WriteCommit, Branch: branch}
		if r := f.must(work.Task{Delivery: d, Scan: true, Commit: branch == ""}); len(r.Edits) != 1 && branch == "" {
			t.Fatalf("%+v", r)
		}
		s.push("shop/web", "1.1.0")
		if r := f.must(work.Task{Delivery: d, Scan: true, Commit: true}); r.Pushed == "" {
			t.Fatalf("%+v", r)
		}
		s.push("shop/web", "1.2.0")
	}
	each(func(path string, uid uint32) error {
		if uid != owner {
			t.Errorf("%s is %d's", path, uid)
		}
		return nil
	})
	if out := f.git(f.dir, "-c", "safe.directory=*", "log", "--format=%s", "bot/x/y"); !strings.Contains(out, "web 1.2.0\nshop: web 1.1.0\nshop: web 1.0.0") {
		t.Errorf("%s", out)
	}
}

// shut is the forge over https, with a password, where pushes are taken.
func (f *forge) shut(password string) cluster.SourceSpec {
	f.git(f.dir, "config", "http.receivepack", "true")
	url, ca := f.https(password)
	return cluster.SourceSpec{Kind: cluster.SourceGit, URL: url, CA: ca, Secret: "git"}
}

// faster lets somebody commit what is there once, and push it to main while another push is on
// its way.
func (f *forge) faster(message string) (commit string) {
	f.t.Helper()
	f.git(f.tree, "add", "-A")
	f.git(f.tree, "commit", "-q", "--allow-empty", "-m", message)
	commit = f.git(f.tree, "rev-parse", "HEAD")
	f.git(f.tree, "push", "-q", "origin", "HEAD:refs/heads/wait")
	f.hook(fmt.Sprintf("test -e %[1]s/once && exit 0\ntouch %[1]s/once\nunset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\ngit update-ref refs/heads/main %[2]s\nexit 0\n", f.t.TempDir(), commit))
	return commit
}

// hook is run before a push is taken.
func (f *forge) hook(script string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, "hooks", "pre-receive"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

func TestPushesThatAreRefused(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	s.push("shop/web", "1.0.0")
	f.write("compose.yaml", "services:\n  web:\n    image: "+s.host+"/shop/web:1 # {\"fairlead\": \"web\"}\n")
	first := f.push("the first")
	d := f.following(s.policy("web=shop/web semver 1.x"))
	d.ImageWrite.To = cluster.WriteCommit
	d.Source = f.shut("geheim")
	task := work.Task{Delivery: d, Scan: true, Commit: true, Password: []byte("geheim")}
	// What is not taken keeps nothing from being deployed, and is tried again.
	goesOn := func(at, says string) {
		t.Helper()
		r := f.must(task)
		if got := r.Bundle.Services["web"].Task.Image; r.Origin.Revision != at || got != s.host+"/shop/web:1" || r.Pushed != "" || r.Branch != "" || len(r.Edits) > 0 {
			t.Errorf("%s of %+v, with %+v", got, r.Origin, r.Edits)
		}
		if st := r.Images[0]; st.Tag != "1.0.0" || !strings.Contains(st.Unwritten, says) || st.Message != "" || st.Failures != 0 {
			t.Errorf("%+v does not say %q", st, says)
		}
		if head := f.git(f.dir, "rev-parse", "main"); head != at {
			t.Fatalf("main is at %s", head)
		}
		task.Chosen = r.Images
	}
	f.hook("echo not by you; exit 1")
	goesOn(first, "refuses a push to main")
	f.hook("exit 0")
	f.git(f.dir, "config", "http.receivepack", "false")
	f.write("hot.txt", "fixed")
	hot := f.push("a hotfix")
	goesOn(hot, "refuses a push to main")
	task.Delivery.ImageWrite.Branch = "bot"
	goesOn(hot, "refuses a push to bot")
	task.Delivery.ImageWrite.Branch = ""
	f.git(f.dir, "config", "http.receivepack", "true")

	// Somebody is faster, once: what they wrote stays, and ours comes after it.
	f.write("more.txt", "more")
	theirs := f.faster("theirs")
	r := f.must(task)
	if r.Pushed == "" || f.git(f.dir, "rev-parse", "main^") != theirs || f.git(f.dir, "rev-parse", "main") != r.Pushed || r.Images[0].Unwritten != "" {
		t.Errorf("%+v: %s", r, f.git(f.dir, "log", "--format=%h %s", "main"))
	}

	// A branch that is checked out on the servers is not moved under their hands.
	d.Source = cluster.SourceSpec{Kind: cluster.SourceGit, URL: "file://" + f.tree}
	f.write("compose.yaml", "services:\n  web:\n    image: "+s.host+"/shop/web:1 # {\"fairlead\": \"web\"}\n")
	task.Delivery = d
	if r := f.must(task); r.Origin.Revision != theirs || !strings.Contains(r.Images[0].Unwritten, "checked out") {
		t.Errorf("%+v of %+v", r.Images[0], r.Origin)
	}

	// Marks that cannot be followed say where.
	f.write("compose.yaml", "services:\n  web:\n    image: x:1 # {\"fairlead\": \"wbe\"}\n")
	f.git(f.tree, "commit", "-q", "-a", "-m", "a slip")
	f.refused(task, cluster.KindInvalid, "compose.yaml:3", "wbe")
	f.write("compose.yaml", compose("x:1"))
	f.git(f.tree, "commit", "-q", "-a", "-m", "no marks")
	if r := f.must(task); !strings.Contains(r.Images[0].Message, `marked with # {"fairlead": "web"}`) || r.Pushed != "" {
		t.Errorf("%+v", r.Images[0])
	}
}
