package work_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/integration/sshd"
)

func guarded(h http.Handler, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func TestFollowsWhatIsAskedFor(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	one := f.push("the first")
	f.git(f.tree, "tag", "-a", "-m", "release", "v1.0.0")
	f.write("compose.yaml", compose("web:2"))
	two := f.push("the second\n\nwith a body")
	f.git(f.tree, "tag", "v1.2.0")
	f.git(f.tree, "tag", "v2.0.0-rc.1")
	for _, number := range []string{"20240101", "3141592", "v9"} { // dates, short commits, and what is moved
		f.git(f.tree, "tag", number, one)
	}
	f.git(f.tree, "push", "-q", "--tags", "origin")
	f.git(f.tree, "checkout", "-q", "-b", "next")
	f.write("compose.yaml", compose("web:3"))
	three := f.push("the third")
	url, ca := f.https("")
	s := small(t)
	for _, tc := range []struct {
		name, commit, ref, image string
		src                      cluster.SourceSpec
	}{
		{"its own branch", two, "main", "web:2", cluster.SourceSpec{}},
		{"a branch", three, "next", "web:3", cluster.SourceSpec{Branch: "next"}},
		{"an annotated tag", one, "v1.0.0", "web:1", cluster.SourceSpec{Tag: "v1.0.0"}},
		{"a range", two, "v1.2.0", "web:2", cluster.SourceSpec{Semver: "^1"}},
		{"no pre-release", two, "v1.2.0", "web:2", cluster.SourceSpec{Semver: ">=1"}},
		{"a commit below the branches", one, "", "web:1", cluster.SourceSpec{Commit: one}},
	} {
		for _, over := range []string{"file", "https", "ssh"} {
			d := f.local()
			src, key := tc.src, []byte(nil)
			src.Kind, src.URL = d.Source.Kind, d.Source.URL
			switch over {
			case "https":
				src.URL, src.CA = url, ca
			case "ssh":
				src, key = f.ssh(s, src), s.Login
			}
			d.Source = src
			r := f.must(work.Task{Delivery: d, Password: key})
			if r.Origin.Revision != tc.commit || r.Origin.Ref != tc.ref {
				t.Errorf("%s over %s: %+v, want %s at %s", tc.name, over, r.Origin, tc.ref, tc.commit)
			}
			if got := r.Bundle.Services["web"].Task.Image; !strings.Contains(got, tc.image) {
				t.Errorf("%s over %s: image %s, want %s", tc.name, over, got, tc.image)
			}
		}
	}
	r := f.must(work.Task{Delivery: f.local()})
	if r.Origin.Subject != "the second" || r.Origin.Author != "Ann <ann@example.com>" || r.Origin.At.IsZero() {
		t.Errorf("%+v", r.Origin)
	}
	if r := f.must(work.Task{Delivery: f.local(), Known: two}); r.Bundle != nil || r.Origin.Revision != two {
		t.Errorf("nothing is new, and yet %+v", r)
	}
}

// seen is what was seen of a delivery's branch.
func seen(d cluster.Delivery, commit string) *cluster.Origin {
	return &cluster.Origin{URL: d.Source.URL, Ref: "main", Revision: commit}
}

func TestReplacedHistoryIsFollowedAndSaid(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	f.push("the first")
	f.write("compose.yaml", compose("web:2"))
	old := f.push("the second")
	f.write("compose.yaml", compose("web:3"))
	f.push("the third")
	url, ca := f.https("")
	s := small(t)
	sources := []work.Task{{Delivery: f.local()}, {Delivery: f.local()}, {Delivery: f.local(), Password: s.Login}}
	sources[1].Delivery.Source.URL, sources[1].Delivery.Source.CA = url, ca
	sources[2].Delivery.Source = f.ssh(s, sources[2].Delivery.Source)
	for _, task := range sources {
		task.Seen = seen(task.Delivery, old)
		if r := f.must(task); r.Forced {
			t.Errorf("%s: a commit on top is no replaced history", task.Delivery.Source.URL)
		}
	}
	f.git(f.tree, "reset", "-q", "--hard", "HEAD~2")
	f.write("compose.yaml", compose("web:4"))
	other := f.push("another second", "--force")
	for _, task := range sources {
		task.Seen = seen(task.Delivery, old)
		r := f.must(task)
		if !r.Forced || r.Origin.Revision != other || !strings.Contains(r.Bundle.Services["web"].Task.Image, "web:4") {
			t.Errorf("%s: forced %v, %+v", task.Delivery.Source.URL, r.Forced, r.Origin)
		}
	}
	// Nobody replaced the history of a branch, or of a repository, that was not followed before.
	d := f.local()
	for what, s := range map[string]*cluster.Origin{
		"another branch":     {URL: d.Source.URL, Ref: "next", Revision: old},
		"another repository": {URL: url, Ref: "main", Revision: old},
	} {
		if r := f.must(work.Task{Delivery: d, Seen: s}); r.Forced || r.Origin.Revision != other {
			t.Errorf("%s: forced %v, %+v", what, r.Forced, r.Origin)
		}
	}
}

// Whatever is wrong with a commit, what is said of it names it.
func TestWhatIsWrongNamesItsCommit(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	good := f.push("a good one")
	d := f.local()
	d.Package = "pkg"
	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.3\n")
	for _, tc := range []struct {
		name, file, content string
		d                   cluster.Delivery
	}{
		{"no YAML", "compose.yaml", "services: [", f.local()},
		{"a key that is refused", "compose.yaml", "services: {web: {build: .}}", f.local()},
		{"more memory than there is", "pkg/templates/app.yaml", "{{ range until 2000000000 }}{{ end }}", d},
	} {
		f.write(tc.file, tc.content)
		commit := f.push(tc.name)
		r, err := f.run(work.Task{Delivery: tc.d, Known: good})
		if cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: %v", tc.name, err)
		}
		if o := r.Origin; o.Revision != commit || o.Ref != "main" || o.Subject != tc.name || o.Author != "Ann <ann@example.com>" || o.At.IsZero() || r.Bundle != nil {
			t.Errorf("%s: %v of %+v", tc.name, err, r)
		}
	}
	d.Source.Branch = "none"
	if r, err := f.run(work.Task{Delivery: d}); err == nil || r.Origin.Revision != "" {
		t.Errorf("a branch that is not there: %v of %+v", err, r.Origin)
	}
}

func TestHTTPSNeedsItsCertificateAndPassword(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	f.push("the first")
	url, ca := f.https("geheim")
	d := f.local()
	d.Source.URL, d.Source.CA, d.Source.Secret = url, ca, "token"
	f.must(work.Task{Delivery: d, Password: []byte("geheim\n")})
	f.refused(work.Task{Delivery: d, Password: []byte("wrong")}, cluster.KindForbidden, "authentication", "secret")
	f.refused(work.Task{Delivery: d}, cluster.KindForbidden, "authentication")
	d.Source.CA = ""
	f.refused(work.Task{Delivery: d, Password: []byte("geheim")}, cluster.KindForbidden, "certificate")
	d.Source.URL, d.Source.CA = strings.Replace(url, "shop.git", "none.git", 1), ca
	f.refused(work.Task{Delivery: d, Password: []byte("geheim")}, cluster.KindNotFound, "no such repository")
	d.Source.URL = "https://127.0.0.1:1/shop.git"
	f.refused(work.Task{Delivery: d, Password: []byte("geheim")}, cluster.KindTransient, "refused")
}

// A host that takes the connection and says nothing more is not waited for until the
// delivery's deadline.
func TestAHostThatHangsIsGivenUp(t *testing.T) {
	f := newForge(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // connections wait to be accepted, for ever
	key, host := sshd.Key(t)
	known := sshd.Server{Addr: l.Addr().String(), Host: host}.Known()
	var wg sync.WaitGroup
	for _, src := range []cluster.SourceSpec{
		{URL: "https://" + l.Addr().String() + "/shop.git"},
		{URL: "ssh://git@" + l.Addr().String() + "/shop.git", Secret: "key", KnownHosts: known},
	} {
		wg.Go(func() {
			src.Kind = cluster.SourceGit
			d := f.local()
			d.Source, d.Timeout = src, cluster.Duration(10*time.Second)
			_, err := f.run(work.Task{Delivery: d, Password: key})
			if cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), src.URL+": it did not answer within 5s") {
				t.Errorf("%s: %v", src.URL, err)
			}
		})
	}
	wg.Wait()
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	f := newForge(t)
	d := f.local()
	f.refused(work.Task{Delivery: d}, cluster.KindNotFound)
	f.write("compose.yaml", compose("web:1"))
	f.push("the first")
	for _, tc := range []struct {
		src  cluster.SourceSpec
		says string
	}{
		{cluster.SourceSpec{Branch: "none"}, "has no heads/none"},
		{cluster.SourceSpec{Tag: "none"}, "has no tags/none"},
		{cluster.SourceSpec{Semver: "^3"}, "no tag"},
		{cluster.SourceSpec{Commit: strings.Repeat("ab", 20)}, "no such commit"},
	} {
		d := f.local()
		tc.src.Kind, tc.src.URL = d.Source.Kind, d.Source.URL
		d.Source = tc.src
		f.refused(work.Task{Delivery: d}, cluster.KindNotFound, tc.says)
	}
	d.Path = "none"
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "no compose.yaml in none")
}

// What CI builds is named by image:, beside the build: that developers use.
func TestImagesThatAreBuiltElsewhere(t *testing.T) {
	f := newForge(t)
	f.write("base.yaml", "services:\n  web:\n    image: r.io/shop/web:1\n")
	f.write("compose.yaml", `services:
  web:
    extends: {file: base.yaml, service: web}
    build: {context: ./none, additional_contexts: {x: ./y}, platforms: [linux/amd64, linux/arm64], cache_to: [x]}
    pull_policy: build
  api: {image: "r.io/shop/api:1", build: "https://git.example.com/api.git", pull_policy: always}
`)
	f.push("an image and a build")
	r := f.must(work.Task{Delivery: f.local()})
	web, api := r.Bundle.Services["web"].Task, r.Bundle.Services["api"].Task
	if web.Image != "r.io/shop/web:1" || web.PullPolicy != "" || api.Image != "r.io/shop/api:1" || api.PullPolicy != "always" {
		t.Errorf("%+v, %+v", web, api)
	}
	said := strings.Join(r.Warnings, "\n")
	if len(r.Warnings) != 2 || !strings.Contains(said, "compose.yaml:4: services.web.build: nothing is built here") || !strings.Contains(said, `"r.io/shop/api:1" is what was built elsewhere`) {
		t.Errorf("%q", r.Warnings)
	}
}

// What is outside of the source is out of its reach, whatever it says.
func TestASourceSeesNothingOfTheMachine(t *testing.T) {
	f := newForge(t)
	f.write("data/x", "x")
	mounting := func(v string) string { return "services:\n  web:\n    image: a\n    volumes: [\"" + v + "\"]\n" }
	bound := func(opts string) string {
		return mounting("data:/data") + "volumes:\n  data: {\n    driver_opts: " + opts + "}\n"
	}
	secret := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(secret, []byte("geheim"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAIRLEAD_TEST_LEAK", "geheim")
	for _, tc := range []struct{ name, compose, says string }{
		{"a config's file", "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c: {file: " + secret + "}\n", "passwd"},
		{"a file of variables", "services:\n  web:\n    image: a\n    env_file: " + secret + "\n", "passwd"},
		{"an include", "include: [" + secret + "]\nservices:\n  web:\n    image: a\n", "passwd"},
		{"a way up", "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c: {file: ../../../../../../../.." + secret + "}\n", "passwd"},
		{"a build", "services:\n  web:\n    build: .\n", "compose.yaml:3: services.web.build: a delivery builds nothing"},
		{"one of two builds", "services:\n  web:\n    build: .\n  api:\n    image: a\n    build: .\n", "services.web.build: a delivery builds nothing"},
		{"a directory of the source", mounting("./data:/data"), `compose.yaml:4: services.web.volumes: "./data" is a directory of the source, which no node has; use a named volume`},
		{"to read alone", mounting("./data:/data:ro"), `compose.yaml:4: services.web.volumes: "./data" is a directory of the source`},
		{"the source itself", mounting(".:/data"), `compose.yaml:4: services.web.volumes: "." is a directory of the source`},
		{"at home", mounting("~/data:/data"), `"~/data" is a path of a home directory, which a source does not have`},
		{"above it", mounting("../../data:/data"), `"../../data" is not in the source; correct the path`},
		{"what is not there", mounting("./none:/data"), `"./none" is not in the source; correct the path`},
		{"a file to write", mounting("./data/x:/x"), `"./data/x" is a file of the source, which no node has; append :ro`},
		{"a bound volume", bound("{type: none, o: bind, device: ./data}"), `compose.yaml:7: volumes.data.driver_opts.device: "./data" is a directory of the source, which no node has; leave driver_opts out`},
		{"one that is not there", bound("{type: none, o: bind, device: none}"), `compose.yaml:7: volumes.data.driver_opts.device: "none" is a directory of the source`},
		{"with more options", bound("{type: none, o: 'ro,rbind', device: ../data}"), `"../data" is a directory of the source`},
		{"a driver that is named", strings.Replace(bound("{type: none, o: bind, device: data}"), "data: {", "data: {driver: local, ", 1), `"data" is a directory of the source`},
	} {
		f.write("compose.yaml", tc.compose)
		f.push(tc.name)
		for _, single := range []bool{true, false} {
			f.refused(work.Task{Delivery: f.local(), SingleNode: single}, cluster.KindInvalid, tc.says)
		}
	}
	f.write("compose.yaml", "services:\n  web:\n    image: a:${FAIRLEAD_TEST_LEAK:-none}\n")
	f.push("a variable")
	if r := f.must(work.Task{Delivery: f.local()}); strings.Contains(r.Bundle.Rendered, "geheim") {
		t.Error("a variable of the server is in the bundle")
	}
}

// What files of the source are read for is in the app; where they were is not.
func TestNoPathOfTheSourceIsInTheApp(t *testing.T) {
	f := newForge(t)
	for _, name := range []string{"app/c.conf", "app/s.txt", "app/ro.conf", "up.conf"} {
		f.write(name, "x")
	}
	f.write("app/vars.env", "A=1\n")
	f.write("app/labels", "b=2\n")
	f.write("app/seccomp.json", "{}")
	f.write("app/base.yaml", "services:\n  base:\n    image: a\n    env_file: vars.env\n    volumes: [\"./ro.conf:/base:ro\"]\n")
	f.write("app/more.yaml", "services:\n  more: {image: a, volumes: [\"../up.conf:/up:ro\"]}\n")
	f.write("app/compose.yaml", `include: [more.yaml]
services:
  web:
    extends: {file: base.yaml, service: base}
    env_file: [./vars.env]
    label_file: ./labels
    security_opt: [seccomp=./seccomp.json]
    configs: [c]
    secrets: [s]
    volumes: ["./ro.conf:/ro:ro", "data:/data", "/srv/x:/srv"]
    tmpfs: [/run]
    devices: [/dev/fuse]
configs:
  c: {file: ./c.conf}
secrets:
  s: {file: ./s.txt}
volumes:
  data: {driver_opts: {type: none, o: bind, device: /srv/data}}
`)
	f.push("all that is read")
	d := f.local()
	d.Path = "app"
	for _, single := range []bool{true, false} {
		r := f.must(work.Task{Delivery: d, SingleNode: single})
		b, err := json.Marshal(r.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(b), "source-tree-of-a-delivery"); i >= 0 || len(r.Bundle.Services) != 2 {
			t.Errorf("%d services; it says %.300s", len(r.Bundle.Services), b[max(i-200, 0):])
		}
	}
}

func TestLinksThatLeaveTheSourceAreRefused(t *testing.T) {
	f := newForge(t)
	f.write("conf/web.conf", "listen 80")
	f.write("compose.yaml", "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c: {file: link}\n")
	if err := os.Symlink("conf/web.conf", filepath.Join(f.tree, "link")); err != nil {
		t.Fatal(err)
	}
	f.push("a link within")
	if r := f.must(work.Task{Delivery: f.local()}); string(r.Bundle.Configs["c"]) != "listen 80" {
		t.Errorf("%q", r.Bundle.Configs)
	}
	for _, target := range []string{"/etc/passwd", "../../etc/passwd", "conf/../../x"} {
		_ = os.Remove(filepath.Join(f.tree, "link"))
		if err := os.Symlink(target, filepath.Join(f.tree, "link")); err != nil {
			t.Fatal(err)
		}
		f.push("a link out of it to " + target)
		f.refused(work.Task{Delivery: f.local()}, cluster.KindInvalid, "leads out of it")
	}
}

// A link that leads out matters to nobody who does not use it.
func TestLinksThatLeaveTheSourceElsewhere(t *testing.T) {
	f := newForge(t)
	f.write("app/compose.yaml", compose("web:1"))
	f.write("other/x", "x")
	for name, target := range map[string]string{"other/abs": "/etc", "app/up": "../../..", "top": "../x", "app/chain": "up"} {
		if err := os.Symlink(target, filepath.Join(f.tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	f.push("links")
	d := f.local()
	d.Path = "app"
	if r := f.must(work.Task{Delivery: d}); r.Bundle.Services["web"].Task.Image != "web:1" {
		t.Errorf("%+v", r.Bundle)
	}
	use := "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c: {file: %s}\n"
	for what, tc := range map[string]struct{ compose, says string }{
		"a file below one": {fmt.Sprintf(use, "../other/abs/hosts"), `other/abs: it is a link of the source that leads out of it, to "/etc"`},
		"itself":           {fmt.Sprintf(use, "up"), `app/up: it is a link of the source that leads out`},
		"by another link":  {fmt.Sprintf(use, "chain"), "chain"},
		"what need not be": {"services:\n  web:\n    image: a\n    env_file: [{path: ../top, required: false}]\n", "top"},
		"another file":     {"include: [../top]\n", "top: it is a link"},
	} {
		f.write("app/compose.yaml", tc.compose)
		f.push(what)
		f.refused(work.Task{Delivery: d}, cluster.KindInvalid, tc.says)
	}
	f.write("app/compose.yaml", compose("web:1"))
	if err := os.Symlink("../../.env", filepath.Join(f.tree, "app/.env")); err != nil {
		t.Fatal(err)
	}
	f.push("variables")
	f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "app/.env: it is a link of the source that leads out of it")

	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: pkg\nversion: 1.0.0\n")
	f.write("pkg/templates/app.yaml", "services:\n  web:\n    image: 'a:{{ .Files.Get \"x\" | len }}'\n")
	f.push("a package")
	pkg := f.local()
	pkg.Package = "pkg"
	f.must(work.Task{Delivery: pkg, Release: 1})
	if err := os.Symlink("../../x", filepath.Join(f.tree, "pkg/x")); err != nil {
		t.Fatal(err)
	}
	f.push("a link in the package")
	f.refused(work.Task{Delivery: pkg, Release: 1}, cluster.KindInvalid, `pkg/x: it is a link of the source that leads out of it, to "../../x"`)
}

// What Git LFS keeps elsewhere is refused where it is used, and only there.
func TestLargeFilesAreRefused(t *testing.T) {
	const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
	f := newForge(t)
	f.write("big.bin", pointer)
	f.write("compose.yaml", compose("web:1"))
	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: pkg\nversion: 1.0.0\n")
	f.write("pkg/big.bin", strings.Replace(pointer, "4d7a", "d7a4", 1))
	f.write("pkg/templates/app.yaml", compose("web:1"))
	f.push("a large file")
	f.must(work.Task{Delivery: f.local()})
	pkg := f.local()
	pkg.Package = "pkg"
	f.must(work.Task{Delivery: pkg, Release: 1})
	for what, doc := range map[string]string{
		"a config":    "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c: {file: big.bin}\n",
		"a secret":    "services:\n  web:\n    image: a\n    secrets: [c]\nsecrets:\n  c: {file: big.bin}\n",
		"an env file": "services:\n  web:\n    image: a\n    env_file: big.bin\n",
		"an include":  "include: [big.bin]\n",
	} {
		f.write("compose.yaml", doc)
		f.push(what)
		f.refused(work.Task{Delivery: f.local()}, cluster.KindInvalid, "big.bin: it is a large file of Git (LFS)")
	}
	f.write("pkg/templates/app.yaml", "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c:\n    content: |\n{{ .Files.Get \"big.bin\" | indent 6 }}\n")
	f.write("compose.yaml", pointer)
	f.push("in a package")
	f.refused(work.Task{Delivery: pkg, Release: 1}, cluster.KindInvalid, "pkg/big.bin: it is a large file of Git (LFS)")
	f.refused(work.Task{Delivery: f.local()}, cluster.KindInvalid, "compose.yaml: it is a large file of Git (LFS)")
}

// A few kilobytes that become more than is taken.
func TestBombsAreRefused(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", compose("web:1"))
	f.write("zeros", strings.Repeat("\x00", 1<<20))
	f.push("a megabyte")
	f.index("a bomb", 140, func(int) (blob, name string) { return "zeros", "a" })
	url, ca := f.https("")
	for _, at := range []string{"file://" + f.dir, url} {
		d := f.local()
		d.Source.URL, d.Source.CA = at, ca
		f.refused(work.Task{Delivery: d}, cluster.KindInvalid, "larger than 128 MiB")
	}
	f.git(f.tree, "rm", "-q", "-r", "--cached", "many")
	f.index("many files", 20_001, func(i int) (blob, name string) {
		return "compose.yaml", fmt.Sprintf("%s/%c%s", strings.Repeat("x", i%50+1), 'a'+i%26, strings.Repeat("y", i/1000))
	})
	f.refused(work.Task{Delivery: f.local()}, cluster.KindInvalid, "more than 20000 files")
}

// index commits n files below many, each with what another file has, as Git's own plumbing
// does: one blob is enough for all, and none is written here.
func (f *forge) index(message string, n int, file func(i int) (of, name string)) {
	f.t.Helper()
	var list strings.Builder
	blobs := map[string]string{}
	for i := range n {
		of, name := file(i)
		if blobs[of] == "" {
			blobs[of] = f.git(f.tree, "hash-object", of)
		}
		fmt.Fprintf(&list, "100644 %s\tmany/%s-%d\n", blobs[of], name, i)
	}
	update := exec.CommandContext(f.t.Context(), "git", "update-index", "--index-info")
	update.Dir, update.Stdin = f.tree, strings.NewReader(list.String())
	if out, err := update.CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
	f.git(f.tree, "commit", "-q", "-m", message)
	f.git(f.tree, "push", "-q", "origin", "HEAD")
}

func TestLayers(t *testing.T) {
	f := newForge(t)
	f.write("apps/shop/compose.yaml", "services:\n  web:\n    image: web:${TAG}\n    environment: {MODE: \"${MODE}\"}\n")
	f.write("apps/shop/prod.yaml", "services:\n  web:\n    labels: {tier: prod}\n")
	f.write("apps/shop/base.env", "TAG=1\nMODE=base\n")
	f.write("apps/shop/prod.env", "MODE=prod\n")
	f.push("layers")
	d := f.local()
	d.Path, d.Compose = "apps/shop", []string{"compose.yaml", "prod.yaml"}
	d.EnvFiles, d.Env = []string{"base.env", "prod.env"}, map[string]string{"TAG": "7"}
	r := f.must(work.Task{Delivery: d})
	web := r.Bundle.Services["web"].Task
	if !strings.Contains(web.Image, "web:7") || !strings.Contains(r.Bundle.Rendered, "prod") || strings.Contains(r.Bundle.Rendered, "MODE: base") {
		t.Errorf("%s", r.Bundle.Rendered)
	}
}

func TestAPackageInGit(t *testing.T) {
	f := newForge(t)
	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.3\n")
	f.write("pkg/values.yaml", "tag: one\nreplicas: 1\n")
	f.write("pkg/templates/app.yaml", "services:\n  web:\n    image: web:{{ .Values.tag }}-{{ .Values.replicas }}-{{ .Release.Revision }}{{ if .Release.IsInstall }}-new{{ end }}\n")
	f.write("env/prod.yaml", "tag: prod\n")
	commit := f.push("a package")
	d := f.local()
	d.Package, d.Values, d.Set = "pkg", []string{"env/prod.yaml"}, "replicas: 3\n"
	if got := f.must(work.Task{Delivery: d, Release: 2}).Bundle.Services["web"].Task.Image; !strings.Contains(got, "web:prod-3-2-new") {
		t.Errorf("the second try of an installation: %s", got)
	}
	r := f.must(work.Task{Delivery: d, Release: 9, Upgrade: true})
	if got := r.Bundle.Services["web"].Task.Image; !strings.HasSuffix(got, "web:prod-3-9") {
		t.Error(got)
	}
	if p := r.Bundle.Package; p == nil || p.Version != "1.2.3" || !strings.Contains(p.Values, "prod") {
		t.Errorf("%+v", p)
	}
	// The same again is the same, whatever number the next release would have.
	r = f.must(work.Task{Delivery: d, Release: 10, Upgrade: true, AppliedRevision: commit, AppliedRelease: 9, AppliedUpgrade: true})
	if got := r.Bundle.Services["web"].Task.Image; !strings.HasSuffix(got, "web:prod-3-9") {
		t.Error(got)
	}
	again := f.must(work.Task{Delivery: d, Release: 3, Upgrade: true, AppliedRevision: commit, AppliedRelease: 2})
	if got := again.Bundle.Services["web"].Task.Image; !strings.HasSuffix(got, "web:prod-3-2-new") {
		t.Errorf("what was installed, looked at again: %s", got)
	}
	// So is what it was rendered from, until something of that is another.
	was := r.Bundle.Package.Input
	for _, tc := range []struct {
		file, content string
		set           string
		same          bool
	}{
		{"elsewhere/compose.yaml", compose("web:1"), d.Set, true},
		{"env/prod.yaml", "tag: other\n", d.Set, false},
		{"env/prod.yaml", "tag: prod\n", d.Set, true},
		{"env/prod.yaml", "tag: prod\n", "replicas: 4\n", false},
		{"pkg/values.yaml", "tag: one\nreplicas: 2\n", d.Set, false},
	} {
		f.write(tc.file, tc.content)
		f.push(tc.file)
		d := d
		d.Set = tc.set
		r := f.must(work.Task{Delivery: d, Release: 11})
		if is := r.Bundle.Package.Input == was; is != tc.same || was == "" {
			t.Errorf("%+v: from the same is %v", tc, is)
		}
	}
	f.write("pkg/templates/hook.yaml", "services:\n  migrate:\n    image: web:1\n    x-fairlead: {hook: {on: [pre-upgrade, test], weight: 3}}\n")
	f.push("a hook")
	r = f.must(work.Task{Delivery: d, Release: 10})
	if h := r.Bundle.Hooks; len(h) != 1 || h[0].Service != "migrate" || h[0].Weight != 3 || len(h[0].Events) != 2 || len(r.Bundle.Services) != 1 {
		t.Errorf("its hooks are %+v", h)
	}
	f.write("pkg/templates/app.yaml", "{{ range until 2000000000 }}{{ end }}")
	f.push("a loop")
	f.refused(work.Task{Delivery: d, Release: 1}, cluster.KindInvalid, "memory")
	f.write("pkg/templates/app.yaml", "{{ range 1000000000000 }}{{ end }}")
	f.w.Render = 500 * time.Millisecond // which is not counted from the start of the process
	looping := f.push("a loop that takes nothing")
	r, err := f.run(work.Task{Delivery: d, Release: 1})
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(fmt.Sprint(err), "do they loop?") || r.Origin.Revision != looping {
		t.Errorf("a loop: %v, of %+v", err, r.Origin)
	}
}
