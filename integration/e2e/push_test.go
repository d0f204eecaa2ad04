package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/integration/dockerd"
)

// bulk is the size of the layer that does not change between pushes; nothing packs it.
const bulk = 8 << 20

// desk is where a user builds images: an engine that is no node's.
type desk struct {
	*node
	ref string
}

// newDesk makes images of the test application above a large layer.
func newDesk(t *testing.T, n *node) *desk {
	t.Helper()
	user := &node{t: t, dir: n.dir, run: n.run, engine: dockerd.New(t).Host()} // talks to the same cluster
	d := &desk{node: user, ref: "fairlead-push:" + filepath.Base(n.dir)}
	random := make([]byte, bulk)
	_, _ = rand.Read(random)
	n.write("push/bulk", string(random))
	if err := os.Link(app, filepath.Join(n.dir, "push", "app")); err != nil {
		t.Fatal(err)
	}
	n.write("push/Dockerfile", "FROM scratch\nCOPY bulk /bulk\nCOPY app /app\nCOPY version /version\nEXPOSE 8080\nENTRYPOINT [\"/app\"]\n")
	return d
}

func (d *desk) build(version string) {
	d.t.Helper()
	d.write("push/version", version)
	if out, err := d.docker("build", "-q", "-t", d.ref, filepath.Join(d.dir, "push")).CombinedOutput(); err != nil {
		d.t.Fatalf("docker build: %v\n%s", err, out)
	}
}

type pushResult struct {
	Bytes int64
	Nodes []v1.PushedNode
}

func (d *desk) push(args ...string) pushResult {
	d.t.Helper()
	began := time.Now()
	res := get[pushResult](d.node, append([]string{"image", "push", d.ref}, args...)...)
	d.t.Logf("pushed in %s: %+v", time.Since(began).Round(time.Millisecond), res)
	return res
}

// content is a file of the image on a node's engine.
func (n *node) content(ref, file string) string {
	n.t.Helper()
	id, err := n.docker("create", "--network", "none", ref).Output()
	if err != nil {
		n.t.Fatalf("docker create: %v", err)
	}
	c := strings.TrimSpace(string(id))
	defer func() { _ = n.docker("rm", "-f", c).Run() }()
	to := filepath.Join(n.dir, "content")
	if out, err := n.docker("cp", c+":"+file, to).CombinedOutput(); err != nil {
		n.t.Fatalf("docker cp: %v: %s", err, out)
	}
	b, err := os.ReadFile(to)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// images are the IDs and names of what a node's engine has.
func (n *node) images() string {
	n.t.Helper()
	out, err := n.docker("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").Output()
	if err != nil {
		n.t.Fatal(err)
	}
	return string(out)
}

// An image of a user's engine is given to two nodes, then again with one small layer
// changed: that one alone travels, to the first node and from there to the other.
func TestImagePush(t *testing.T) {
	n, w := startTwo(t, false)
	d := newDesk(t, n)
	d.build("one")
	for _, p := range d.push().Nodes {
		if p.Error != "" || p.Bytes < bulk {
			t.Errorf("the first push: %+v", p)
		}
	}
	d.build("two")
	second := d.push()
	if len(second.Nodes) != 2 || second.Bytes == 0 {
		t.Errorf("the second push: %+v", second)
	}
	for _, p := range second.Nodes {
		if p.Error != "" || p.Bytes > bulk/50 {
			t.Errorf("the second push: %+v", p)
		}
	}
	for _, p := range d.push().Nodes {
		if p.Bytes > 0 {
			t.Errorf("an image that is there was sent: %+v", p)
		}
	}
	bulkThere := func(n *node) bool { return len(n.content(d.ref, "/bulk")) == bulk }
	for _, at := range []*node{n, w.node} {
		if got := at.content(d.ref, "/version"); got != "two" || !bulkThere(at) {
			t.Errorf("on %s version %q", at.engine, got)
		}
	}
	// In no registry: it starts on every node all the same.
	n.do("deploy", "-f", n.write("compose.yaml", web(d.ref, "pushed", "1", 2, "")))
	for _, node := range []string{"n1", "n2"} {
		if len(n.on("pushed", node)) != 1 {
			t.Errorf("on %s run %v", node, n.on("pushed", node))
		}
	}
	interrupted(t, n, d)
	refusals(t, d)

	// To one node; the other is left alone, and gets the same layer from it when a task
	// needs it.
	d.build("three")
	if only := d.pushByTLS(n, "--node", "n2").Nodes; len(only) != 1 || only[0].Node != "n2" || only[0].Bytes > bulk/50 {
		t.Errorf("to n2 alone: %+v", only)
	}
	if got := n.content(d.ref, "/version"); got != "two" {
		t.Errorf("n1 has version %q", got)
	}
	d.ref += "-next"
	d.build("four")
	d.push("--node", "n2")
	n.do("deploy", "-f", n.write("compose.yaml", web(d.ref, "pushed", "2", 2, "")))
	if got := n.content(d.ref, "/version"); got != "four" {
		t.Errorf("n1 runs version %q", got)
	}
	log, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	if spared := regexp.MustCompile(`sends an image from node to node: .*from=n2 to=n1 (layers_there=[1-9]|layers_there=0 blobs_there=[1-9])`); !spared.Match(log) {
		t.Error("n2 sent n1 layers that were there")
	}
}

// interrupted breaks a push off in the middle of its tar.
func interrupted(t *testing.T, n *node, d *desk) {
	t.Helper()
	was := n.images()
	cl, err := client.New(client.Options{Socket: filepath.Join(n.run, "fairlead.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	d.build("never")
	whole, err := d.docker("save", d.ref).Output()
	if err != nil {
		t.Fatal(err)
	}
	// Broken off by the sender, and ended as if that were all.
	for _, rest := range []io.Reader{iotest.ErrReader(errors.New("the cable is out")), strings.NewReader("")} {
		half := io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), rest)
		err := cl.Push(t.Context(), v1.PushStart{Ref: d.ref, Nodes: []cluster.NodeID{"n1", "n2"}}, half, func(p v1.PushedNode) { t.Errorf("half an image was taken: %+v", p) })
		if err == nil {
			t.Error("half an image was taken")
		}
		t.Log(err)
	}
	if now := n.images(); now != was {
		t.Errorf("the images were\n%sand are\n%s", was, now)
	}
}

// pushByTLS pushes as from another machine: through a context with a token.
func (d *desk) pushByTLS(n *node, args ...string) (out pushResult) {
	d.t.Helper()
	made := get[struct{ Value, CA string }](n, "token", "create", "laptop")
	home := d.t.TempDir()
	run := func(args ...string) []byte {
		d.t.Helper()
		cmd := n.inside(d.t.Context(), fairlead, args...) // where the API answers
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "DOCKER_HOST=" + d.engine}
		cmd.Stdin, cmd.Stderr = strings.NewReader(made.Value), d.t.Output()
		b, err := cmd.Output()
		if err != nil {
			d.t.Fatalf("fairlead %v: %v\n%s", args, err, b)
		}
		return b
	}
	listen := ""
	for i, a := range n.args { // the last one counts
		if a == "--listen" {
			listen = n.args[i+1]
		}
	}
	run("context", "add", "lab", "--server", "https://"+listen, "--ca", made.CA, "--token-stdin")
	if err := json.Unmarshal(run(append([]string{"image", "push", d.ref, "-o", "json"}, args...)...), &out); err != nil {
		d.t.Fatal(err)
	}
	d.t.Logf("pushed by TLS: %+v", out)
	return out
}

func refusals(t *testing.T, d *desk) {
	t.Helper()
	id, err := d.docker("image", "inspect", "--format", "{{.Id}}", d.ref).Output()
	if err != nil {
		t.Fatal(err)
	}
	short := strings.TrimPrefix(string(id), "sha256:")[:12]
	for says, args := range map[string][]string{
		"is an image's ID":       {short},
		"has no image none:1":    {"none:1"},
		`there is no node "n9"`:  {d.ref, "--node", "n9"},
		"is no name of an image": {"a b"},
	} {
		if out, err := d.try(append([]string{"image", "push"}, args...)...); err == nil || !strings.Contains(out, says) {
			t.Errorf("push %v: %v\n%s", args, err, out)
		}
	}
}

// An archive without a layer that its receiver had and has no more is refused, not
// taken for the image; the whole one then makes it good.
func TestImageWhoseLayersAreGone(t *testing.T) {
	n := newNode(t)
	t.Cleanup(func() { _ = os.RemoveAll(n.dir) })
	d := newDesk(t, n)
	d.build("one")
	from, err := docker.New(d.engine)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	n.engine = dockerd.New(t).Host()
	to, err := docker.New(n.engine)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	layers, err := from.ImageLayers(t.Context(), d.ref)
	if err != nil || len(layers) != 3 {
		t.Fatal(layers, err)
	}
	send := func(have cluster.ImageHave) error {
		tar, err := from.Save(t.Context(), d.ref, have)
		if err != nil {
			t.Fatal(err)
		}
		defer tar.Close()
		return to.Load(t.Context(), tar, cluster.ImageWant{Ref: d.ref})
	}
	if have, err := to.Have(t.Context(), layers); err != nil || !have.None() {
		t.Errorf("an empty engine has %+v: %v", have, err)
	}
	had, err := from.Have(t.Context(), layers) // all of it, as this kind of engine says it
	if err != nil || had.None() {
		t.Fatal(had, err)
	}
	if err := send(had); err == nil {
		t.Error("an image without layers was taken")
	} else {
		t.Log(err)
	}
	if err := send(cluster.ImageHave{}); err != nil {
		t.Fatal(err)
	}
	if got := n.content(d.ref, "/version"); got != "one" {
		t.Errorf("version %q", got)
	}
	if have, err := to.Have(t.Context(), layers); err != nil || have.None() {
		t.Errorf("what was sent is not there: %+v, %v", have, err)
	}
}

// tarOf is a tar of one file.
func tarOf(t *testing.T, name string) string {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg}), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// An engine takes an image under the name that is wanted alone, and only the one that is
// wanted: who sends it may be no friend.
func TestAnImageIsTakenForWhatItIs(t *testing.T) {
	n := newNode(t)
	t.Cleanup(func() { _ = os.RemoveAll(n.dir) })
	d := newDesk(t, n)
	open := func(host string) *docker.Engine {
		e, err := docker.New(host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e
	}
	of := func(e *docker.Engine, ref string) docker.ImageInfo {
		i, err := e.Image(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	from := open(d.engine)
	d.build("good")
	good := of(from, d.ref)
	victim := d.ref + "-victim"
	tag := func(id, ref string) {
		if err := from.Tag(t.Context(), id, ref); err != nil {
			t.Fatal(err)
		}
	}
	tag(good.ID, victim)
	n.engine = dockerd.New(t).Host()
	to := open(n.engine)
	send := func(ref string, have cluster.ImageHave, want cluster.ImageWant) error {
		tar, err := from.Save(t.Context(), ref, have)
		if err != nil {
			t.Fatal(err)
		}
		defer tar.Close()
		return to.Load(t.Context(), tar, want)
	}
	if err := send(victim, cluster.ImageHave{}, cluster.ImageWant{Ref: victim, ID: good.ID, Content: good.Content}); err != nil {
		t.Fatal(err)
	}
	if i := of(to, victim); i.Content != good.Content || len(i.Tags) != 1 {
		t.Errorf("taken as %+v, not %+v", i, good)
	}
	d.build("evil")
	evil := of(from, d.ref)
	tag(evil.ID, victim) // what is sent has this name
	if evil.Content == good.Content {
		t.Fatal("two images of one content")
	}
	have, err := to.Have(t.Context(), evil.Layers)
	if err != nil || have.None() {
		t.Fatal(have, err)
	}
	for name, want := range map[string]cluster.ImageWant{
		"another ID":      {Ref: d.ref, ID: good.ID},
		"another content": {Ref: d.ref, Content: good.Content},
		"by its ID alone": {ID: good.ID},
	} {
		for _, less := range []cluster.ImageHave{{}, have} {
			if err := send(victim, less, want); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "another image") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := to.Image(t.Context(), evil.ID); cluster.KindOf(err) != cluster.KindNotFound {
			t.Errorf("%s: the other image is still there: %v", name, err)
		}
	}
	if _, err := to.Image(t.Context(), d.ref); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("a name was given: %v", err)
	}
	if err := send(victim, have, cluster.ImageWant{Ref: d.ref}); err != nil { // it is wanted now, under its other name
		t.Fatal(err)
	}
	if got, still := of(to, d.ref), of(to, victim); got.Content != evil.Content || still.Content != good.Content {
		t.Errorf("%s is %+v, %s is %+v", d.ref, got, victim, still)
	}
	// What is no archive, or not one of an engine's, is known for that: another node is asked then.
	for _, what := range []string{strings.Repeat("no archive ", 1000), tarOf(t, "../manifest.json")} {
		if err := to.Load(t.Context(), strings.NewReader(what), cluster.ImageWant{Ref: d.ref}); cluster.KindOf(err) != cluster.KindInvalid || errors.Is(err, docker.ErrAway) {
			t.Errorf("%.20q: %v (%s)", what, err, cluster.KindOf(err))
		}
	}
	// A name without a tag is of one of its images, and what was here without a name stays.
	repo, _, _ := strings.Cut(d.ref, ":")
	tag(good.ID, repo+":latest")
	d.build("old")
	old := of(from, d.ref)
	if err := send(d.ref, have, cluster.ImageWant{ID: old.ID}); err != nil {
		t.Fatal(err)
	}
	if err := send(d.ref, have, cluster.ImageWant{ID: evil.ID}); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("another one than is wanted: %v", err)
	}
	of(to, old.ID)
	if err := send(repo, cluster.ImageHave{}, cluster.ImageWant{Ref: repo, Content: good.Content}); err != nil {
		t.Error(err)
	}
	if got := n.content(victim, "/version") + " " + n.content(d.ref, "/version"); got != "good evil" {
		t.Errorf("the images are %s", got)
	}
}
