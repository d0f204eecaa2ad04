package cli_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cli"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// In an app's directory a service's own name comes first, also one that reads as
// Swarm's name of another app's service.
func TestAServiceWithAnUnderscoreInItsDirectory(t *testing.T) {
	h := newHub(t)
	h.write("compose.yaml", "name: shop\nservices:\n  my_db: {image: a}\n")
	h.must("", "deploy", "-d")
	h.run("shop", "my_db")
	h.host.exec = exits(0)
	for _, address := range []string{"my_db", "my_db.1", "shop_my_db.1", "shop/my_db"} {
		if s := h.cli("", "exec", address, "true"); s.code != 0 {
			t.Errorf("%s: %d %s", address, s.code, s.all)
		}
		if s := h.cli("", "explain", address); s.code != 0 {
			t.Errorf("explain %s: %d %s", address, s.code, s.all)
		}
	}
	if s := h.cli("", "exec", "my_web", "true"); s.code != 4 || !strings.Contains(s.err, "my") {
		t.Errorf("my_web is the service web of the app my: %d %s", s.code, s.all)
	}
}

func TestExec(t *testing.T) {
	h := newHub(t)
	withFront(h)
	for _, c := range []struct {
		args []string
		want []string // nil: refused
	}{
		{[]string{"store/front", "--", "ls", "-l"}, []string{"ls", "-l"}},
		{[]string{"store/front", "ls", "-l"}, []string{"ls", "-l"}},
		{[]string{"store/front.1", "--", "sh", "-c", "a -- b"}, []string{"sh", "-c", "a -- b"}},
		{[]string{"store/front", "ls", "--", "x"}, []string{"ls", "--", "x"}},
		{[]string{"store_front.1", "-o", "json"}, []string{"-o", "json"}}, // behind the address all is the command's
		{[]string{"-p", "store", "front", "true"}, []string{"true"}},
		{[]string{"store/front", "--"}, nil},
		{[]string{"store/front"}, nil},
		{nil, nil},
		{[]string{"front", "true"}, nil},
		{[]string{"-e", "NOVALUE", "store/front", "true"}, nil},
	} {
		h.host.ran, h.host.exec = nil, exits(0)
		s := h.cli("", append([]string{"exec"}, c.args...)...)
		if c.want == nil {
			if s.code != 2 || len(h.host.ran) > 0 {
				t.Errorf("%q: code %d, ran %v\n%s", c.args, s.code, h.host.ran, s.all)
			}
			continue
		}
		if s.code != 0 || len(h.host.ran) != 1 || !slices.Equal(h.host.ran[0].Command, c.want) {
			t.Errorf("%q: code %d, ran %+v, want %q\n%s", c.args, s.code, h.host.ran, c.want, s.all)
		}
	}
	h.host.ran = nil
	h.host.exec = func(_ cluster.ExecOptions, s api.Streams) (int, error) {
		_, _ = io.WriteString(s.Stderr, "to stderr")
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 42, err
	}
	s := h.cli("typed", "exec", "-i", "-u", "app", "-w", "/srv", "-e", "A=b=c", "store/front", "--", "cat")
	if s.code != 42 || s.out != "typed" || s.err != "to stderr" {
		t.Errorf("%+v", s)
	}
	want := cluster.ExecOptions{Command: []string{"cat"}, Env: map[string]string{"A": "b=c"}, User: "app", WorkingDir: "/srv"}
	got := h.host.ran[0]
	got.Stdin = false // said by the API
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLogs(t *testing.T) {
	h := newHub(t)
	withFront(h)
	h.host.lines = []cluster.LogLine{
		{Task: "store_front.1.abc", Stream: "stdout", Time: today, Text: "one"},
		{Task: "store_front.1.abc", Stream: "stderr", Time: today.Add(time.Second), Text: "two"},
	}
	if s := h.must("", "logs", "store/front"); s.out != "store_front.1 | one\nstore_front.1 | two\n" {
		t.Errorf("%q", s.out)
	}
	if s := h.must("", "logs", "store/front", "--no-log-prefix"); s.out != "one\ntwo\n" {
		t.Errorf("%q", s.out)
	}
	if s := h.must("", "logs", "-t", "store"); !strings.HasPrefix(s.out, "store_front.1 | 2026-03-01T12:00:00Z one\n") {
		t.Errorf("%q", s.out)
	}
	dec := json.NewDecoder(strings.NewReader(h.must("", "logs", "store", "-o", "json").out))
	for _, want := range []string{"one", "two"} {
		var l cluster.LogLine
		if err := dec.Decode(&l); err != nil || l.Text != want {
			t.Errorf("%+v %v", l, err)
		}
	}
}

// entry is one file of a tar that a container, which may be hostile, sends.
type entry struct {
	kind byte
	name string
	text string // or what it links to
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: e.kind, Name: e.name, Mode: 0o644}
		switch e.kind {
		case tar.TypeReg:
			h.Size = int64(len(e.text))
		case tar.TypeDir:
			h.Mode = 0o755
		default:
			h.Linkname = e.text
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			if _, err := io.WriteString(w, e.text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCopyOut(t *testing.T) {
	h := newHub(t)
	withFront(h)
	h.host.files["/f"] = tarOf(t, entry{tar.TypeReg, "f", "text"})
	h.host.files["/d"] = tarOf(t, entry{tar.TypeDir, "d/", ""}, entry{tar.TypeReg, "d/a", "A"}, entry{tar.TypeLink, "d/b", "d/a"}, entry{tar.TypeSymlink, "d/c", "a"})
	for range 2 { // the second time over the first
		h.must("", "cp", "store/front:/f", ".")
		h.must("", "cp", "store/front:/f", "./as")
		h.must("", "cp", "store/front:/d", ".")
		h.must("", "cp", "store/front:/d", "./other")
	}
	// other was made by the first copy; the second went into it, as with docker cp.
	for name, want := range map[string]string{"f": "text", "as": "text", "d/a": "A", "d/b": "A", "d/c": "A", "other/b": "A", "other/d/b": "A"} {
		if b, err := os.ReadFile(filepath.Join(h.dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// A tar of standard input or output, as with docker cp.
func TestCopyStreams(t *testing.T) {
	h := newHub(t)
	withFront(h)
	sent := tarOf(t, entry{tar.TypeReg, "f", "text"})
	h.host.files["/f"] = sent
	if s := h.must("", "cp", "store/front:/f", "-"); s.out != string(sent) {
		t.Errorf("standard output has %q", s.out)
	}
	if _, err := os.Lstat(filepath.Join(h.dir, "-")); err == nil {
		t.Error("a file named - was made")
	}
	h.must(string(sent), "cp", "-", "store/front:/srv")
	if got := h.host.sent["/srv"]; !bytes.Equal(got, sent) {
		t.Errorf("standard input arrived as %q", got)
	}
	h.must("", "cp", "store/front:/f", "./-")
	if b, err := os.ReadFile(filepath.Join(h.dir, "-")); err != nil || string(b) != "text" {
		t.Errorf("./-: %q, %v", b, err)
	}
}

// What a container sends stays in the directory it is copied to.
func TestCopyOutStaysInside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"dots":                {{tar.TypeReg, "../victim", "evil"}},
		"dots inside":         {{tar.TypeDir, "d/", ""}, {tar.TypeReg, "d/../../victim", "evil"}},
		"absolute":            {{tar.TypeReg, "/VICTIM", "evil"}},
		"through a link":      {{tar.TypeSymlink, "l", ".."}, {tar.TypeReg, "l/victim", "evil"}},
		"through an abs link": {{tar.TypeSymlink, "l", "/DIR"}, {tar.TypeReg, "l/victim", "evil"}},
		"over a link":         {{tar.TypeSymlink, "l", "../victim"}, {tar.TypeReg, "l", "evil"}},
		"hard link":           {{tar.TypeLink, "l", "../victim"}, {tar.TypeReg, "l", "evil"}},
		"hard link abs":       {{tar.TypeLink, "l", "/VICTIM"}, {tar.TypeReg, "l", "evil"}},
		"directory":           {{tar.TypeDir, "../made/", ""}},
	} {
		for _, to := range []string{"in", "in/new"} {
			t.Run(name+" to "+to, func(t *testing.T) {
				h := newHub(t)
				withFront(h)
				h.write("victim", "mine")
				h.write("in/.keep", "")
				for i := range entries {
					entries[i].name = strings.NewReplacer("VICTIM", strings.TrimPrefix(filepath.Join(h.dir, "victim"), "/")).Replace(entries[i].name)
					entries[i].text = strings.NewReplacer("VICTIM", strings.TrimPrefix(filepath.Join(h.dir, "victim"), "/"), "DIR", strings.TrimPrefix(h.dir, "/")).Replace(entries[i].text)
				}
				h.host.files["/x"] = tarOf(t, entries...)
				s := h.cli("", "cp", "store/front:/x", to)
				if b, err := os.ReadFile(filepath.Join(h.dir, "victim")); err != nil || string(b) != "mine" {
					t.Errorf("overwritten with %q (%v); cp said %d %s", b, err, s.code, s.all)
				}
				left, err := os.ReadDir(h.dir)
				if err != nil || len(left) != 2 {
					t.Errorf("%v, %v", left, err)
				}
				if to == "in" && s.code == 0 {
					t.Errorf("accepted: %s", s.all)
				}
			})
		}
	}
}

func TestCopyIn(t *testing.T) {
	h := newHub(t)
	withFront(h)
	h.write("site/index.html", "<p>")
	h.write("a:b", "colon")
	for _, c := range []struct{ from, to, dir, want string }{
		{"./site", "store/front:/srv", "/srv", "site/index.html"},
		{"./a:b", "store/front.1:/tmp", "/tmp", "a:b"},
		{"./a:b", "store/front.1:/tmp/named", "/tmp", "named"},
		{"./site", "store/front.1:/srv/www", "/srv", "www/index.html"},
	} {
		h.must("", "cp", c.from, c.to)
		dir, want := c.dir, c.want
		r := tar.NewReader(bytes.NewReader(h.host.sent[dir]))
		var names []string
		for {
			e, err := r.Next()
			if err != nil {
				break
			}
			names = append(names, e.Name)
		}
		if !slices.Contains(names, want) {
			t.Errorf("%s got %v", dir, names)
		}
	}
	if s := h.cli("", "cp", "./a:b", "store/front:/none/x"); s.code != 4 || !strings.Contains(s.all, "/none/x") {
		t.Errorf("into a directory that is not there: %d %s", s.code, s.all)
	}
	// The answer arrives, also where the files are not wanted, or not to their end.
	h.write("large", strings.Repeat("x", 8<<20))
	if s := h.cli("", "cp", "./large", "store/front:/nope/"); s.code != 4 || !strings.Contains(s.err, "there is no /nope") {
		t.Errorf("%d %s", s.code, s.all)
	}
	if s := h.cli("", "cp", "./large", "store/front:/full"); s.code != 2 || !strings.Contains(s.err, "no space is left") {
		t.Errorf("%d %s", s.code, s.all)
	}
}

func TestBuildContext(t *testing.T) {
	h := newHub(t)
	var sent []string
	var opts v1.BuildOptions
	h.host.build = func(b []byte, o v1.BuildOptions, _ io.Writer) (string, error) {
		sent, opts = nil, o
		for r := tar.NewReader(bytes.NewReader(b)); ; {
			e, err := r.Next()
			if err != nil {
				return "sha256:0123456789abcdef", nil
			}
			sent = append(sent, e.Name)
		}
	}
	h.write("api/main.go", "package main")
	h.write("api/secret.key", "k")
	h.write("api/.dockerignore", "*.key\nDockerfile*\n")
	h.write("api/Dockerfile", "FROM scratch\n")
	h.write("elsewhere/Dockerfile.x", "FROM scratch\n")
	for file, want := range map[string]string{
		"build: ./api": "Dockerfile",
		"build: {context: ./api, dockerfile: ../elsewhere/Dockerfile.x}":  ".fairlead.Dockerfile",
		"build: {context: ./api, dockerfile_inline: \"FROM scratch\\n\"}": ".fairlead.Dockerfile",
	} {
		h.write("compose.yaml", "services:\n  api:\n    "+file+"\n")
		s := h.must("", "deploy", "-d")
		if opts.Dockerfile != want || !slices.Contains(sent, want) || !slices.Contains(sent, "main.go") || slices.Contains(sent, "secret.key") {
			t.Errorf("%s: Dockerfile %q of %v\n%s", file, opts.Dockerfile, sent, s.all)
		}
	}
	svc, _ := read[cluster.Service](h, store.ServiceKey(cluster.ServiceID{App: "shop", Name: "api"}))
	if svc.Spec.Task.ImageID != "sha256:0123456789abcdef" {
		t.Errorf("the service runs %+v", svc.Spec.Task)
	}
}

// That nothing could be copied to the other node is a warning, by file and line.
func TestABuiltImageOnOneNodeIsWarnedOf(t *testing.T) {
	h := newHub(t)
	h.host.build = func([]byte, v1.BuildOptions, io.Writer) (string, error) { return "sha256:1111111111111111", nil }
	h.write("Dockerfile", "FROM scratch\n")
	h.write("compose.yaml", "services:\n  web:\n    build: .\n")
	if s := h.must("", "deploy", "-d"); strings.Contains(s.err, "alone") {
		t.Errorf("a cluster of one: %s", s.err)
	}
	h.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", OS: "linux", Arch: "amd64"})
	s := h.must("", "deploy", "-d")
	if !strings.Contains(s.err, "warning: compose.yaml:3: what was built for web is on n1 alone") || !strings.Contains(s.err, "n2: it does not answer") {
		t.Errorf("with n2 away: %s", s.err)
	}
	h.put(store.AliveKey("n2"), true)
	if s := h.must("", "deploy", "-d"); !strings.Contains(s.err, "n2: no image") { // the copy fails in this hub
		t.Errorf("with n2 there: %s", s.err)
	}
}

// Several services may run one image that only one of them builds.
func TestABuiltImageIsForAllThatNameIt(t *testing.T) {
	h := newHub(t)
	id, tags := "sha256:1111111111111111", []string(nil)
	h.host.build = func(_ []byte, o v1.BuildOptions, _ io.Writer) (string, error) {
		tags = o.Tags
		return id, nil
	}
	h.write("Dockerfile", "FROM scratch\n")
	h.write("compose.yaml", "services:\n  web: {build: ., image: shop/app}\n  worker: {image: shop/app}\n  other: {image: shop/other}\n")
	runs := func(service cluster.ServiceName) cluster.TaskSpec {
		s, _ := read[cluster.Service](h, store.ServiceKey(cluster.ServiceID{App: "shop", Name: service}))
		return s.Spec.Task
	}
	h.must("", "deploy", "-d")
	web := runs("web")
	if w := runs("worker"); web.ImageID != id || w.ImageID != id || w.Image != web.Image || runs("other").Image != "shop/other" {
		t.Errorf("web runs %+v, worker %+v, other %+v", web, w, runs("other"))
	}
	if !slices.Contains(tags, "shop/app") {
		t.Errorf("the image is named %v, and not as the file says", tags)
	}
	if s := h.must("", "plan"); !strings.Contains(s.out, "nothing to change") {
		t.Errorf("a plan, which does not build: %s", s.out)
	}
	id = "sha256:2222222222222222"
	h.must("", "deploy", "-d", "--no-build")
	if runs("worker").ImageID != web.ImageID {
		t.Error("--no-build changed the worker")
	}
	h.must("", "deploy", "-d")
	if w := runs("worker"); w.ImageID != id {
		t.Errorf("after another build the worker runs %+v", w)
	}
}

// The app that commands mean is the one that deploy makes.
func TestAppOfTheDirectory(t *testing.T) {
	for name, c := range map[string]struct{ dir, file, app string }{
		"directory":    {"my_shop", "services: {web: {image: a}}\n", "my-shop"},
		"name":         {"x", "name: store\nservices: {web: {image: a}}\n", "store"},
		"interpolated": {"x", "name: ${FL_TEST_APP:-store}\nservices: {web: {image: a}}\n", "store"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			h.dir = filepath.Join(filepath.Dir(h.dir), c.dir)
			h.write("compose.yaml", c.file)
			t.Chdir(h.dir)
			h.must("", "deploy", "-d")
			if s := h.must("", "scale", "web=3"); !strings.Contains(s.out, c.app+"/web") {
				t.Errorf("%s", s.all)
			}
			h.must("", "restart", "web", "-d")
			h.must("", "explain", "web")
			h.must("", "explain", c.app)
			if s := h.must("", "status"); !strings.HasPrefix(s.out, c.app+": release 2") {
				t.Errorf("%s", s.out)
			}
			if s := h.must("", "-p", c.app, "history"); !strings.Contains(s.out, "restart web") {
				t.Errorf("%s", s.out)
			}
		})
	}
}

// deploy waits until the rollout has ended, and says how.
func TestDeployWaits(t *testing.T) {
	web1 := cluster.ServiceID{App: "shop", Name: "web"}
	start := func(t *testing.T, args ...string) (*hub, <-chan said) {
		t.Helper()
		h := newHub(t)
		h.write("compose.yaml", web("tty: true"))
		done := make(chan said, 1)
		go func() { done <- h.cli("", append([]string{"deploy"}, args...)...) }()
		return h, done
	}
	t.Run("healthy", func(t *testing.T) {
		h, done := start(t)
		h.ends(web1, cluster.RolloutComplete, "")
		h.run("shop", "web")
		if s := <-done; s.code != 0 || s.out != "" || !strings.HasPrefix(s.err, "shop: release 1\n") || !strings.HasSuffix(s.err, "web  1/1 ready, complete\n") {
			t.Errorf("%+v", s)
		}
	})
	t.Run("went back", func(t *testing.T) {
		h, done := start(t)
		h.ends(web1, cluster.RolloutRolledBack, "shop/web.1 ended with exit code 1", "no config", "bye")
		s := <-done
		for _, want := range []string{"error: shop did not become healthy", "shop/web.1 ended with exit code 1", "    | no config\n    | bye"} {
			if s.code != 1 || !strings.Contains(s.err, want) {
				t.Errorf("%d, no %q in\n%s", s.code, want, s.all)
			}
		}
	})
	t.Run("for a program", func(t *testing.T) {
		h, done := start(t, "-o", "json")
		h.ends(web1, cluster.RolloutComplete, "")
		h.run("shop", "web")
		s := <-done
		var p v1.Progress
		if err := json.Unmarshal([]byte(s.out), &p); err != nil || !p.Done || p.Failed || s.err != "" {
			t.Errorf("%v %+v", err, s)
		}
	})
	t.Run("too slow", func(t *testing.T) {
		_, done := start(t, "--timeout", "50ms")
		if s := <-done; s.code != 5 || !strings.Contains(s.err, "fairlead explain shop") {
			t.Errorf("%+v", s)
		}
	})
	t.Run("one has failed, another one is too slow", func(t *testing.T) {
		h := newHub(t)
		h.write("compose.yaml", web("tty: true")+"  slow:\n    image: shop/slow:1\n")
		done := make(chan said, 1)
		go func() { done <- h.cli("", "deploy", "--timeout", "2s") }()
		h.ends(web1, cluster.RolloutFailed, "no database", "panic: no database")
		if s := <-done; s.code != 5 || !strings.Contains(s.err, "fairlead explain shop`\n  web: no database\n") || !strings.Contains(s.err, "    | panic: no database") {
			t.Errorf("%+v", s)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		h := newHub(t)
		h.write("compose.yaml", web("tty: true"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan said, 1)
		go func() { done <- h.cliContext(ctx, strings.NewReader(""), "deploy") }()
		h.ends(web1, cluster.RolloutRunning, "") // it is on its way
		cancel()
		if s := <-done; s.code != 1 {
			t.Errorf("%+v", s)
		}
		if _, ok := read[cluster.Service](h, store.ServiceKey(web1)); !ok {
			t.Error("an interrupted wait took the change back")
		}
	})
}

// TestPortForwardTakesAFreePort: with nothing before the colon any port will do, and
// it is said which.
func TestPortForwardTakesAFreePort(t *testing.T) {
	h := newHub(t)
	withFront(h)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h.host.dial = l.Addr().String()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = conn.Write([]byte("here"))
			_ = conn.Close()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int)
	go func() {
		code <- cli.Main(ctx, []string{"port-forward", "store/front", ":5432"}, cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: w, Now: now}, serverCommands("test", now)...)
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	local, rest, _ := strings.Cut(line, " → ")
	if err != nil || rest != "store/front port 5432\n" {
		t.Fatalf("%q %v", line, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "here" {
		t.Errorf("%q %v", b, err)
	}
	_ = conn.Close()
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}
