package cli_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cli"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/server"
	"github.com/fairlead/fairlead/store"
)

// today is what every clock of a hub shows.
var today = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func now() time.Time { return today }

// hub is a server over an in-memory store behind a real local socket, and a
// person who types commands in a directory of their own. Node n1 has 4 CPUs and
// 8 GiB.
type hub struct {
	t      *testing.T
	store  *store.Memory
	mirror *store.Mirror
	host   *fakeHost
	api    *api.Server
	dir    string // where commands run
	home   string
	socket string
	names  []string // what plain puts in place of what, in pairs
	// templates renders packages; nil: a process of its own, as outside of tests.
	templates chart.Engine
	// before is called with each request that the server is about to answer.
	before atomic.Pointer[func(*http.Request)]
	// stale is for how many seconds the server says that it has not heard from a majority.
	stale atomic.Int64
}

func newHub(t *testing.T) *hub {
	t.Helper()
	base := t.TempDir()
	h := &hub{t: t, store: store.NewMemory(), host: newFakeHost(), home: filepath.Join(base, "home"), dir: filepath.Join(base, "shop")}
	sock, err := os.MkdirTemp("", "fl") //nolint:usetesting // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sock) })
	h.socket = filepath.Join(sock, "s")
	for _, d := range []string{h.home, h.dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(h.dir)
	t.Setenv("HOME", h.home)
	t.Setenv("XDG_CONFIG_HOME", "")
	for _, k := range []string{"FAIRLEAD_CONTEXT", "FAIRLEAD_URL", "FAIRLEAD_TOKEN", "FAIRLEAD_CA"} {
		t.Setenv(k, "")
	}
	t.Setenv("FAIRLEAD_SOCKET", h.socket)
	h.serve()
	h.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", Hostname: "n1", Address: "203.0.113.1", OS: "linux", Arch: "amd64", CPU: 4000, Memory: 8 << 30, Roles: []string{"server", "agent", "gateway"}})
	h.put(store.AliveKey("n1"), true)
	return h
}

func (h *hub) serve() {
	key, err := sealed.NewKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		h.t.Fatal(err)
	}
	h.mirror = store.NewMirror(h.store, store.Root, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.mirror.Run(ctx) })
	<-h.mirror.Ready()
	h.api, err = api.New(api.Config{
		Store: store.Guarded(h.store, store.WriterAPI), Mirror: h.mirror, Hosts: h.host, Keeper: key, Resolver: secrets.Providers{secrets.ProviderSealed: key},
		Now: now, Log: hclog.NewNullLogger(), Version: "test", Cluster: "c1", Domain: "example.test",
		Entry: plan.EntryPoints{Web: 80, WebSecure: 443, Internal: 8088}, Admission: door{}, Servers: fakeServers{},
		Preview: control.Preview(h.mirror, now),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", h.socket)
	if err != nil {
		h.t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f := h.before.Load(); f != nil {
				(*f)(r)
			}
			if since := h.stale.Load(); since > 0 {
				w.Header().Set(v1.HeaderStale, strconv.FormatInt(since, 10))
				w.Header().Set(v1.HeaderStaleServer, "n1")
			}
			h.api.ServeHTTP(w, r)
		}), ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return api.Trusted(ctx, "ann") },
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	wg.Go(func() { _ = srv.Serve(l) })
	h.t.Cleanup(func() { cancel(); _ = srv.Close(); wg.Wait() })
}

// loops runs rollout and scheduler, as a leader does; no agent starts anything.
func (h *hub) loops() {
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	as := func(w store.Writer) store.Store { return store.Guarded(h.store, w) }
	r := control.Rollout(as(store.WriterRollout), h.mirror, now, hclog.NewNullLogger())
	s := control.Scheduler(as(store.WriterScheduler), h.mirror, now, hclog.NewNullLogger())
	wg.Go(func() { _ = r.Run(ctx) })
	wg.Go(func() { _ = s.Run(ctx) })
	h.t.Cleanup(func() { cancel(); wg.Wait() })
}

// hooks runs the loops of hooks and of changes, as a leader does.
func (h *hub) hooks() {
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	l := control.Hooks(store.Guarded(h.store, store.WriterHooks), h.mirror, now, hclog.NewNullLogger())
	c := control.Changes(h.mirror, h.api, hclog.NewNullLogger())
	wg.Go(func() { _ = l.Run(ctx) })
	wg.Go(func() { _ = c.Run(ctx) })
	h.t.Cleanup(func() { cancel(); wg.Wait() })
}

// settles writes what became of the app's current release, as the rollout loop would,
// and forgets the rollout of a service that is removed.
func (h *hub) settles(id cluster.ServiceID, message string) {
	h.t.Helper()
	h.outcome(id.App, cluster.ReleaseOutcome{State: "failed", Message: message, Ended: today})
	for {
		changed := h.mirror.Changed()
		if ch, ok := read[cluster.PendingChange](h, store.ChangeKey(id.App)); ok && ch.Undoes > 0 {
			break
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatal("nothing takes the change back")
		}
	}
	if _, err := h.store.Commit(h.t.Context(), store.Txn{Then: []store.Op{{Key: store.RolloutKey(id), Delete: true}}}); err != nil {
		h.t.Fatal(err)
	}
}

// outcome writes what became of an app's current release, as the rollout loop would.
func (h *hub) outcome(app cluster.AppName, o cluster.ReleaseOutcome) {
	h.t.Helper()
	e, err := h.store.Get(h.t.Context(), store.AppKey(app))
	if err != nil {
		h.t.Fatal(err)
	}
	a, _ := read[cluster.App](h, store.AppKey(app))
	o.App, o.Number, o.Created = app, a.Release, cluster.StoreRev(e.Created)
	h.put(store.OutcomeKey(app, a.Release), o)
}

// put writes a value as its owner would, and waits until the server knows of it.
func (h *hub) put(key string, v any) {
	h.t.Helper()
	op, err := store.PutJSON(key, v)
	if err != nil {
		h.t.Fatal(err)
	}
	h.commit([]store.Op{op})
}

func (h *hub) commit(ops []store.Op) {
	h.t.Helper()
	rev, err := h.store.Commit(h.t.Context(), store.Txn{Then: ops})
	if err != nil {
		h.t.Fatal(err)
	}
	for {
		changed := h.mirror.Changed()
		if h.mirror.Rev() >= rev {
			return
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatal("the mirror does not follow")
		}
	}
}

// run puts a running task of slot 1 of a service on n1, as rollout, scheduler and agent would.
func (h *hub) run(app cluster.AppName, service cluster.ServiceName) cluster.TaskID {
	h.t.Helper()
	id := cluster.ServiceID{App: app, Name: service}
	svc, ok := read[cluster.Service](h, store.ServiceKey(id))
	if !ok {
		h.t.Fatalf("no service %s", id)
	}
	task := cluster.NewTaskID(id, 1, 1, 1, "")
	h.put(store.TaskKey(app, task), cluster.Task{ID: task, ServiceID: id, Slot: 1, Version: svc.Version, Release: svc.Release, Spec: svc.Spec.Task, Desire: cluster.DesireRun, Created: today})
	h.put(store.PlacementKey("n1", task), cluster.NodePlacement{Task: task, Node: "n1", ServiceID: id, Slot: 1, Version: svc.Version})
	h.put(store.StatusKey("n1", task), cluster.Status{
		Task: task, Node: "n1", ServiceID: id, Slot: 1, Version: svc.Version, State: cluster.StateRunning, Ready: true, Container: "c1", Started: today.Add(-time.Hour),
	})
	return task
}

// ends waits for a service and ends its rollout, as the rollout loop would.
func (h *hub) ends(id cluster.ServiceID, state cluster.RolloutState, message string, tail ...string) {
	h.t.Helper()
	for {
		changed := h.mirror.Changed()
		if svc, ok := read[cluster.Service](h, store.ServiceKey(id)); ok {
			h.put(store.RolloutKey(id), cluster.Rollout{
				ServiceID: id, Target: svc.Version, Release: svc.Release, State: state, Started: today, Message: message, Tail: tail,
			})
			return
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatalf("no service %s", id)
		}
	}
}

// placed waits until the scheduler has placed a task of the app.
func (h *hub) placed(app string) {
	h.t.Helper()
	for {
		changed, n := h.mirror.Changed(), 0
		h.mirror.Read(func(v store.View) { n = len(v.Keys(store.PrefixPlacements + "n1/" + app + "_")) })
		if n > 0 {
			return
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatalf("no task of %s is placed", app)
		}
	}
}

func read[T any](h *hub, key string) (T, bool) {
	h.t.Helper()
	var out store.Value[T]
	var ok bool
	var err error
	h.mirror.Read(func(v store.View) { out, ok, err = store.One[T](v, key) })
	if err != nil {
		h.t.Fatal(err)
	}
	return out.V, ok
}

// dump is everything in the store, with the revision each key was written at.
func (h *hub) dump() map[string]int64 {
	h.t.Helper()
	entries, _, err := h.store.List(h.t.Context(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]int64{}
	for _, e := range entries {
		out[e.Key] = e.Rev
	}
	return out
}

// write puts a file into the directory where commands run.
func (h *hub) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// serverCommands are what cmd/fairlead adds; they get their context from Main.
var serverCommands = server.Commands

// said is what a command left behind.
type said struct {
	out, err, all string
	code          int
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// cli runs a command line as a program would; in is its standard input.
func (h *hub) cli(in string, args ...string) said {
	h.t.Helper()
	return h.cliContext(h.t.Context(), strings.NewReader(in), args...)
}

func (h *hub) cliContext(ctx context.Context, in io.Reader, args ...string) said {
	h.t.Helper()
	var out, errs, all bytes.Buffer
	var mu sync.Mutex
	s := cli.Streams{
		In: in, Now: now, Templates: h.templates,
		Out: locked{&mu, io.MultiWriter(&out, &all)}, Err: locked{&mu, io.MultiWriter(&errs, &all)},
	}
	code := cli.Main(ctx, args, s, serverCommands("test", now)...)
	mu.Lock()
	defer mu.Unlock()
	return said{h.plain(out.String()), h.plain(errs.String()), h.plain(all.String()), code}
}

// plain puts names that stay the same in place of those of this test.
func (h *hub) plain(s string) string {
	names := append([]string{h.socket, "/run/fairlead/fairlead.sock", h.dir, "/home/ann/shop", h.home, "/home/ann"}, h.names...)
	return strings.NewReplacer(names...).Replace(s)
}

// inProcess renders packages in this process: a test binary takes long to start.
type inProcess struct{}

func (inProcess) Render(ctx context.Context, r chart.Request) (*chart.Rendered, error) {
	return chart.Render(ctx, r)
}

// keep remembers what the hub holds, in the store and in files. What it returns puts
// that back, for the next test: a hub with something of everything takes long to make.
func (h *hub) keep() func(t *testing.T) {
	h.t.Helper()
	kept, base, copied := h.entries(), filepath.Dir(h.dir), h.t.TempDir()
	copyTree(h.t, copied, base)
	return func(t *testing.T) {
		t.Helper()
		h.t = t
		var ops []store.Op
		held := h.entries()
		for k := range held {
			if _, was := kept[k]; !was {
				ops = append(ops, store.Op{Key: k, Delete: true})
			}
		}
		for k, v := range kept {
			if is, there := held[k]; !there || !bytes.Equal(is, v) {
				ops = append(ops, store.Op{Key: k, Value: v})
			}
		}
		for part := range slices.Chunk(ops, store.MaxOps) {
			h.commit(part)
		}
		for _, dir := range []string{h.dir, h.home} {
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list { // the directory itself is where the test stands
				if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
					t.Fatal(err)
				}
			}
		}
		copyTree(t, base, copied)
	}
}

// entries are the values in the store.
func (h *hub) entries() map[string][]byte {
	h.t.Helper()
	list, _, err := h.store.List(h.t.Context(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range list {
		out[e.Key] = e.Value
	}
	return out
}

// copyTree copies directories and plain files, with their modes.
func copyTree(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), info.Mode().Perm())
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// must runs a command that has to succeed.
func (h *hub) must(in string, args ...string) said {
	h.t.Helper()
	s := h.cli(in, args...)
	if s.code != 0 {
		h.t.Fatalf("fairlead %s: exit code %d\n%s", strings.Join(args, " "), s.code, s.all)
	}
	return s
}

// deploy makes an app out of a Compose file that is not in the directory.
func (h *hub) deploy(file string) {
	h.t.Helper()
	path := filepath.Join(h.home, "other.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.must("", "deploy", "-d", "-f", path)
}

// fakeHost is a node whose containers and images are functions and maps.
type fakeHost struct {
	mu     sync.Mutex
	lines  []cluster.LogLine
	exec   func(o cluster.ExecOptions, s api.Streams) (int, error)
	ran    []cluster.ExecOptions
	sent   map[string][]byte // tars by directory
	files  map[string][]byte // tars by path
	build  func(tar []byte, o v1.BuildOptions, progress io.Writer) (string, error)
	built  int
	images []cluster.Image
	dial   string
}

func newFakeHost() *fakeHost {
	return &fakeHost{sent: map[string][]byte{}, files: map[string][]byte{}}
}

func (f *fakeHost) Tasks(cluster.NodeID) (api.TaskHost, error)   { return f, nil }
func (f *fakeHost) Images(cluster.NodeID) (api.ImageHost, error) { return fakeImages{f}, nil }

func (f *fakeHost) Logs(_ context.Context, _ cluster.TaskID, _ cluster.LogOptions, emit func(cluster.LogLine) error) error {
	for _, l := range f.lines {
		if err := emit(l); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeHost) Exec(_ context.Context, _ cluster.TaskID, o cluster.ExecOptions, s api.Streams) (int, error) {
	f.mu.Lock()
	f.ran = append(f.ran, o)
	f.mu.Unlock()
	return f.exec(o, s)
}

func (f *fakeHost) CopyTo(_ context.Context, _ cluster.TaskID, dir string, tar io.Reader) error {
	if dir == "/full" {
		_, err := io.CopyN(io.Discard, tar, 1)
		return errors.Join(cluster.Invalidf("no space is left in %s", dir), err)
	}
	if dir = path.Clean(dir); dir != "/srv" && dir != "/tmp" {
		return cluster.NotFoundf("there is no %s in the container", dir)
	}
	b, err := io.ReadAll(tar)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent[dir] = b
	return err
}

func (f *fakeHost) CopyFrom(_ context.Context, _ cluster.TaskID, p string) (io.ReadCloser, error) {
	b, ok := f.files[p]
	if !ok {
		return nil, cluster.NotFoundf("no such file or directory in the container: %s", p)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (f *fakeHost) Dial(ctx context.Context, _ cluster.TaskID, _ int) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", f.dial)
}

type fakeImages struct{ h *fakeHost }

func (f fakeImages) Build(_ context.Context, tar io.Reader, o v1.BuildOptions, progress io.Writer) (string, error) {
	b, err := io.ReadAll(tar)
	if err != nil {
		return "", err
	}
	f.h.mu.Lock()
	f.h.built++
	f.h.mu.Unlock()
	return f.h.build(b, o, progress)
}

func (f fakeImages) Tag(context.Context, string, string) error { return nil }

func (f fakeImages) Images(context.Context) ([]cluster.Image, error) { return f.h.images, nil }

func (fakeImages) Save(context.Context, string, cluster.ImageHave) (io.ReadCloser, error) {
	return nil, cluster.NotFoundf("no image is saved in this test")
}

func (fakeImages) Load(context.Context, io.Reader, cluster.ImageWant) error { return nil }

func (fakeImages) ImageLayers(context.Context, string) ([]string, error) { return nil, nil }

func (fakeImages) Have(context.Context, []string) (cluster.ImageHave, error) {
	return cluster.ImageHave{}, nil
}

func (f fakeImages) Identity(_ context.Context, ref string) (cluster.ImageIdentity, error) {
	return cluster.ImageIdentity{}, cluster.NotFoundf("no image %s", ref)
}

// exits is a command that ends with a code.
func exits(code int) func(cluster.ExecOptions, api.Streams) (int, error) {
	return func(cluster.ExecOptions, api.Streams) (int, error) { return code, nil }
}

// fakeServers are one server.
type fakeServers struct{ api.Servers }

func (fakeServers) Addresses() []string { return nil }

func (fakeServers) List(context.Context) ([]v1.ServerSummary, error) {
	return []v1.ServerSummary{{Node: "n1", API: "203.0.113.1:7420", Standing: v1.StandingVoter, Answers: true, Leader: true}}, nil
}

// door lets nobody in, but makes tokens.
type door struct{ api.Admission }

func (door) NewToken() (secret, text string, servers []string, err error) {
	return "secret", "flj_secret.ca", []string{"203.0.113.1:7420"}, nil
}
