package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
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
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
)

const token = "right"

// bench is a server over an in-memory store, and a client of it.
type bench struct {
	*client.Client
	t     *testing.T
	store *store.Memory
	key   *sealed.Key
	host  *fakeHost
	url   string
	log   *bytes.Buffer
	srv   *api.Server
	hook  *hookedStore
	door  *fakeDoor
	seats *fakeSeats
	vault fakeVault
	stale atomic.Int64 // for how long nothing was confirmed
	sends func(cluster.ImageAsk) cluster.ImageSent
}

// fakeVault has values by their places.
type fakeVault map[string]string

func (f fakeVault) Resolve(_ context.Context, rec cluster.SecretRecord) (cluster.Secret, error) {
	switch v, ok := f[rec.Ref]; {
	case !ok:
		return cluster.Secret{}, cluster.NotFoundf("nothing at %s", rec.Ref)
	case v == "sealed":
		return cluster.Secret{}, cluster.Transientf("Vault is sealed")
	default:
		return cluster.NewSecret([]byte(v)), nil
	}
}

// hookedStore runs a function once, before the next transaction.
type hookedStore struct {
	store.Store
	mu   sync.Mutex
	once func()
}

func (h *hookedStore) Commit(ctx context.Context, t store.Txn) (int64, error) {
	h.mu.Lock()
	f := h.once
	h.once = nil
	h.mu.Unlock()
	if f != nil {
		f()
	}
	return h.Store.Commit(ctx, t)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, store: store.NewMemory(), host: newFakeHost(), door: &fakeDoor{open: map[cluster.NodeID]string{}}, seats: &fakeSeats{}, vault: fakeVault{}, log: &bytes.Buffer{}}
	b.door.store = b.store
	var err error
	if b.key, err = sealed.NewKey(bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}
	log := hclog.New(&hclog.LoggerOptions{Output: b.log, Level: hclog.Debug, Mutex: &sync.Mutex{}})
	sum := sha256.Sum256([]byte(token))
	grant, err := store.PutJSON(store.TokenKey(hex.EncodeToString(sum[:])), cluster.Token{Name: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{grant}}); err != nil {
		t.Fatal(err)
	}
	m := store.NewMirror(b.store, store.Root, log)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-m.Ready()
	b.hook = &hookedStore{Store: store.Guarded(b.store, store.WriterAPI)}
	b.srv, err = api.New(api.Config{
		Store: b.hook, Mirror: m, Hosts: b.host, Keeper: b.key, Resolver: secrets.Providers{secrets.ProviderSealed: b.key, secrets.ProviderVault: b.vault},
		CA: "sha256:ca", Node: "n1", Now: time.Now, Log: log, Version: "test", Domain: "example.test",
		Entry: plan.EntryPoints{Web: 80, WebSecure: 443, Internal: 8080}, Admission: b.door, Servers: b.seats,
		Ranges: []cluster.Range{{Flag: "--pool", Prefix: netip.MustParsePrefix("10.213.0.0/16")}},
		Logins: func(_ context.Context, registry string) (string, string, error) {
			return "ci", "pw of " + registry, nil
		},
		Images: func(_ context.Context, _ cluster.NodeID, ask cluster.ImageAsk) (cluster.ImageSent, error) {
			if b.sends != nil {
				return b.sends(ask), nil
			}
			return cluster.ImageSent{}, cluster.NotFoundf("no other node has %s", ask.Ref)
		},
		Alarms: func() []string { return []string{"the store is full"} },
		Stale:  func() time.Duration { return time.Duration(b.stale.Load()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(b.srv)
	t.Cleanup(ts.Close)
	b.url = ts.URL
	if b.Client, err = client.New(client.Options{URL: ts.URL, Token: token}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", Hostname: "n1", CPU: 4000, Memory: 8 << 30})
	b.put(store.AliveKey("n1"), true)
	return b
}

// put writes a value as its owner would.
func (b *bench) put(key string, v any) {
	b.t.Helper()
	op, err := store.PutJSON(key, v)
	if err != nil {
		b.t.Fatal(err)
	}
	rev, err := b.store.Commit(b.t.Context(), store.Txn{Then: []store.Op{op}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.await(func() bool {
		st, err := b.Status(b.t.Context())
		return err == nil && st.StoreRev >= rev
	})
}

func (b *bench) await(f func() bool) {
	b.t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			b.t.Fatal("did not happen within 10s")
		case <-tick.C:
		}
	}
}

// get decodes a stored value.
func get[T any](b *bench, key string) T {
	b.t.Helper()
	m := store.NewMirror(b.store, key, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	go func() { _ = m.Run(ctx) }()
	<-m.Ready()
	var out store.Value[T]
	var ok bool
	var err error
	m.Read(func(v store.View) { out, ok, err = store.One[T](v, key) })
	if !ok || err != nil {
		b.t.Fatalf("%s: there %v, error %v", key, ok, err)
	}
	return out.V
}

// rev is the revision that a key was written at.
func (b *bench) rev(key string) cluster.StoreRev {
	b.t.Helper()
	e, err := b.store.Get(b.t.Context(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	return cluster.StoreRev(e.Rev)
}

// remove removes a key as its owner would.
func (b *bench) remove(key string) {
	b.t.Helper()
	if _, err := b.store.Commit(b.t.Context(), store.Txn{Then: []store.Op{{Key: key, Delete: true}}}); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) keys(prefix string) []string {
	b.t.Helper()
	entries, _, err := b.store.List(b.t.Context(), prefix)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Key)
	}
	return out
}

// run puts a task of a service on n1 with a status, as rollout, scheduler and agent would.
func (b *bench) run(id cluster.ServiceID, slot int, version string) cluster.TaskID {
	b.t.Helper()
	task := cluster.NewTaskID(id, slot, 1, int64(len(b.keys(store.PrefixTasks))), "")
	b.put(store.TaskKey(id.App, task), cluster.Task{ID: task, ServiceID: id, Slot: slot, Version: version, Desire: cluster.DesireRun, Created: time.Now()})
	b.put(store.PlacementKey("n1", task), cluster.NodePlacement{Task: task, Node: "n1", ServiceID: id, Slot: slot, Version: version})
	b.put(store.StatusKey("n1", task), cluster.Status{
		Task: task, Node: "n1", ServiceID: id, Slot: slot, Version: version, State: cluster.StateRunning, Ready: true, Container: "c-" + strconv.Itoa(slot),
	})
	return task
}

// fakeHost is a node whose containers are functions.
type fakeHost struct {
	mu     sync.Mutex
	lines  map[cluster.TaskID][]cluster.LogLine
	more   chan cluster.LogLine // followed
	ended  chan struct{}        // closed: so are containers, and with them their logs
	exec   func(ctx context.Context, o cluster.ExecOptions, s api.Streams) (int, error)
	files  map[string][]byte
	addr   string // that Dial connects to
	images []cluster.Image
	cut    bool                             // CopyFrom breaks off
	at     map[cluster.NodeID]api.ImageHost // of other nodes
}

func newFakeHost() *fakeHost {
	return &fakeHost{lines: map[cluster.TaskID][]cluster.LogLine{}, files: map[string][]byte{}, more: make(chan cluster.LogLine), ended: make(chan struct{})}
}

var (
	_ api.Hosts     = (*fakeHost)(nil)
	_ api.TaskHost  = (*fakeHost)(nil)
	_ api.ImageHost = fakeImages{}
)

func (h *fakeHost) Tasks(cluster.NodeID) (api.TaskHost, error) { return h, nil }

func (h *fakeHost) Images(n cluster.NodeID) (api.ImageHost, error) {
	if other, ok := h.at[n]; ok {
		return other, nil
	}
	return fakeImages{h}, nil
}

func (h *fakeHost) Logs(ctx context.Context, task cluster.TaskID, o cluster.LogOptions, emit func(cluster.LogLine) error) error {
	h.mu.Lock()
	lines := h.lines[task]
	h.mu.Unlock()
	if o.Tail >= 0 && len(lines) > o.Tail {
		lines = lines[len(lines)-o.Tail:]
	}
	for _, l := range lines {
		if l.Time.Before(o.Since) {
			continue
		}
		if err := emit(l); err != nil {
			return err
		}
	}
	for o.Follow {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.ended:
			return nil
		case l := <-h.more:
			if err := emit(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *fakeHost) Exec(ctx context.Context, _ cluster.TaskID, o cluster.ExecOptions, s api.Streams) (int, error) {
	return h.exec(ctx, o, s)
}

func (h *fakeHost) CopyTo(_ context.Context, _ cluster.TaskID, dir string, tar io.Reader) error {
	b, err := io.ReadAll(tar)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[dir] = b
	return err
}

func (h *fakeHost) CopyFrom(_ context.Context, _ cluster.TaskID, p string) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.files[p]
	if !ok {
		return nil, cluster.NotFoundf("no such file %s", p)
	}
	var r io.Reader = bytes.NewReader(b)
	if h.cut {
		r = io.MultiReader(r, errReader{})
	}
	return io.NopCloser(r), nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func (h *fakeHost) Dial(ctx context.Context, _ cluster.TaskID, _ int) (net.Conn, error) {
	if h.addr == "" {
		return nil, cluster.Transientf("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", h.addr)
}

type fakeImages struct{ h *fakeHost }

func (f fakeImages) Build(_ context.Context, tar io.Reader, o v1.BuildOptions, progress io.Writer) (string, error) {
	b, err := io.ReadAll(tar)
	if err != nil {
		return "", err
	}
	if o.Target == "broken" {
		return "", cluster.Invalidf("Dockerfile:3: RUN false: exit code 1")
	}
	_, err = progress.Write([]byte("Step 1/1 : " + strconv.Itoa(len(b)) + " bytes\n"))
	return "sha256:0123456789abcdef0123", err
}

func (f fakeImages) Tag(_ context.Context, id, ref string) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	f.h.images = append(f.h.images, cluster.Image{ID: id, Tags: []string{ref}})
	return nil
}

func (f fakeImages) Images(context.Context) ([]cluster.Image, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	return f.h.images, nil
}

func (fakeImages) Save(_ context.Context, ref string, _ cluster.ImageHave) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(ref)), nil
}

func (fakeImages) Load(context.Context, io.Reader, cluster.ImageWant) error { return nil }

func (fakeImages) ImageLayers(context.Context, string) ([]string, error) { return nil, nil }

func (fakeImages) Have(context.Context, []string) (cluster.ImageHave, error) {
	return cluster.ImageHave{}, nil
}

func (f fakeImages) Identity(_ context.Context, ref string) (cluster.ImageIdentity, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	for _, i := range f.h.images {
		if i.Tags[0] == ref {
			return cluster.ImageIdentity{ID: i.ID, Content: "what runs of " + i.ID}, nil
		}
	}
	return cluster.ImageIdentity{}, cluster.NotFoundf("no image %s", ref)
}

// rawRequest returns the status, the content type and the body of an answer.
func rawRequest(t *testing.T, b *bench, method, path, body, tok string) (int, string, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), raw
}

func service(image string) cluster.ServiceSpec {
	return cluster.ServiceSpec{Mode: cluster.Replicated, Replicas: 2, Task: cluster.TaskSpec{Image: image}}
}

func bundle(services map[cluster.ServiceName]cluster.ServiceSpec) v1.Bundle {
	return v1.Bundle{Services: services, Rendered: "services: …"}
}
