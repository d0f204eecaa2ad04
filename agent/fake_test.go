package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// fakeEngine is an engine whose containers do as the test says. Methods that no
// test needs are the nil Engine's, and panic.
type fakeEngine struct {
	Engine

	mu       sync.Mutex
	up       bool
	refuses  bool            // new connections only
	inUse    map[string]bool // networks that containers are on
	stuck    bool            // its events stay connected, and nothing else is answered
	calls    []string
	boxes    map[string]docker.Container // by name
	nets     []docker.Network
	images   map[string]docker.ImageInfo
	pullable map[string]docker.ImageInfo
	pullErr  error
	events   func(docker.Event)
	broken   chan struct{} // closed when the connection breaks
	started  time.Time
	sizes    map[string]int64 // of images, by ID
	keeps    map[string]bool  // images that it would not remove, by ID
	removes  func(ref string) // at the begin of an image's removal
	disk     DiskUse          // Free is without what images take
	exitWith map[string]int   // containers that end as soon as they start
	busy     int
	mostBusy int
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		up: true, boxes: map[string]docker.Container{}, images: map[string]docker.ImageInfo{"img": {ID: "sha256:1"}},
		pullable: map[string]docker.ImageInfo{}, exitWith: map[string]int{}, broken: make(chan struct{}),
	}
}

func away() error { return &cluster.Error{Kind: cluster.KindTransient, Err: docker.ErrAway} }

func (e *fakeEngine) call(what string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.up || (e.stuck && what != "events") {
		return away()
	}
	e.calls = append(e.calls, what)
	return nil
}

func (e *fakeEngine) took() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.calls
	e.calls = nil
	return out
}

func (e *fakeEngine) Info(context.Context) (docker.Info, error) {
	return docker.Info{Hostname: "host", CPU: 2000, ImageDirs: []string{"/images"}}, e.call("info")
}

func (e *fakeEngine) Accepts(context.Context) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.up && !e.refuses
}

func (e *fakeEngine) Started(context.Context) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started
}

func (e *fakeEngine) Events(ctx context.Context, _ string, _ cluster.NodeID, begun func(), on func(docker.Event)) error {
	if err := e.call("events"); err != nil {
		begun()
		return err
	}
	e.mu.Lock()
	e.events = on
	broken := e.broken
	e.mu.Unlock()
	begun()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-broken:
		return away()
	}
}

// goAway stops the engine; what then happens to its containers is for the test.
func (e *fakeEngine) goAway() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up = false
	close(e.broken)
	e.events = nil
}

// fails makes all pulls fail with err.
func (e *fakeEngine) fails(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pullErr = err
}

func (e *fakeEngine) stick(stuck bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stuck = stuck
}

func (e *fakeEngine) comeBack(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up, e.refuses, e.started, e.broken = true, false, now, make(chan struct{})
}

func (e *fakeEngine) tell(c docker.Container, action string) {
	e.mu.Lock()
	on := e.events
	e.mu.Unlock()
	if on != nil {
		on(docker.Event{Container: c.ID, Task: c.Task(), Action: action})
	}
}

func (e *fakeEngine) List(context.Context, string, cluster.NodeID) ([]docker.Container, error) {
	if err := e.call("list"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []docker.Container
	for _, c := range e.boxes {
		out = append(out, docker.Container{ID: c.ID, Name: c.Name, Labels: c.Labels, State: c.State})
	}
	return out, nil
}

func (e *fakeEngine) find(id string) (docker.Container, error) {
	for _, c := range e.boxes {
		if c.ID == id || c.Name == id {
			return c, nil
		}
	}
	return docker.Container{}, cluster.NotFoundf("No such container: %s", id)
}

func (e *fakeEngine) Inspect(_ context.Context, id string) (docker.Container, error) {
	if err := e.call("inspect"); err != nil {
		return docker.Container{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.find(id)
}

func (e *fakeEngine) Create(_ context.Context, c docker.Create) (string, error) {
	if err := e.call("create"); err != nil {
		return "", err
	}
	e.mu.Lock()
	e.busy++
	e.mostBusy = max(e.mostBusy, e.busy)
	e.mu.Unlock()
	<-time.After(time.Second) // under synctest no time at all
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy--
	if _, taken := e.boxes[c.Name]; taken {
		return "", &cluster.Error{Kind: cluster.KindConflict, Msg: "the name is taken"}
	}
	e.boxes[c.Name] = docker.Container{ID: "id-" + c.Name, Name: c.Name, Labels: c.Labels, State: docker.Created, StopSignal: "SIGTERM", ImageID: e.named(c.Image).ID}
	return "id-" + c.Name, nil
}

func (e *fakeEngine) Start(_ context.Context, id string) error {
	if err := e.call("start"); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	c.State, c.Pid, c.Started = docker.Running, -1, time.Now()
	if code, ok := e.exitWith[c.Name]; ok {
		c.State, c.Pid, c.ExitCode, c.Finished = docker.Exited, 0, code, time.Now()
	}
	e.boxes[c.Name] = c
	return nil
}

// end ends a container, and says so where said is set.
func (e *fakeEngine) end(name string, code int, said bool) {
	e.mu.Lock()
	c := e.boxes[name]
	c.State, c.Pid, c.ExitCode, c.Finished = docker.Exited, 0, code, time.Now()
	e.boxes[name] = c
	e.mu.Unlock()
	if said {
		e.tell(c, "die")
	}
}

func (e *fakeEngine) Signal(_ context.Context, id, sig string) error {
	if err := e.call(sig); err != nil {
		return err
	}
	e.mu.Lock()
	c, err := e.find(id)
	e.mu.Unlock()
	if err != nil {
		return err
	}
	e.end(c.Name, 143, true)
	return nil
}

func (e *fakeEngine) Remove(_ context.Context, id string) error {
	if err := e.call("remove"); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err == nil {
		delete(e.boxes, c.Name)
	}
	return nil
}

func (e *fakeEngine) Logs(_ context.Context, _ string, _ bool, _ cluster.LogOptions, emit func(cluster.LogLine) error) error {
	return emit(cluster.LogLine{Text: "last words"})
}

func (e *fakeEngine) Networks(context.Context) ([]docker.Network, error) {
	if err := e.call("networks"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.nets), nil
}

func (e *fakeEngine) CreateNetwork(_ context.Context, n docker.Network, _ []string) (string, error) {
	if err := e.call("create network " + n.Name); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.nets {
		if slices.ContainsFunc(x.Subnets, n.Subnets[0].Overlaps) {
			return "", errors.New("Pool overlaps with other one on this address space")
		}
	}
	n.ID = fmt.Sprint("net-", len(e.nets))
	e.nets = append(e.nets, n)
	return n.ID, nil
}

func (e *fakeEngine) RemoveNetwork(_ context.Context, id string) error {
	if err := e.call("remove network " + id); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inUse[id] {
		return errors.New("network has active endpoints")
	}
	e.nets = slices.DeleteFunc(e.nets, func(n docker.Network) bool { return n.ID == id })
	return nil
}

func (e *fakeEngine) Image(_ context.Context, ref string) (docker.ImageInfo, error) {
	if err := e.call("image " + ref); err != nil {
		return docker.ImageInfo{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.named(ref); i.ID != "" {
		return i, nil
	}
	return docker.ImageInfo{}, cluster.NotFoundf("No such image: %s", ref)
}

// named is the image of a name or ID; none is empty.
func (e *fakeEngine) named(ref string) docker.ImageInfo {
	for name, i := range e.images {
		if name == ref || i.ID == ref {
			return i
		}
	}
	return docker.ImageInfo{}
}

// partial is a tar without layers that the engine has not.
const partial = "partial"

// Load takes a tar whose only content is the image's name. It misses layers of "partial".
func (e *fakeEngine) Load(_ context.Context, tar io.Reader, want cluster.ImageWant) error {
	ref, err := io.ReadAll(tar)
	if err != nil {
		return err
	}
	if string(ref) == partial {
		return cluster.Transientf("no such layer")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := docker.ImageInfo{ID: "sha256:" + string(ref), Content: "of " + string(ref)}
	if !want.Met(cluster.ImageIdentity{ID: i.ID, Content: i.Content}) {
		return cluster.Invalidf("another image was sent")
	}
	name := want.Ref
	if name == "" {
		name = i.ID
	}
	e.images[name] = i
	return nil
}

func (e *fakeEngine) Pull(ctx context.Context, ref, _ string, login docker.Login, progress func(string)) error {
	if err := e.call("pull " + ref + " as " + login.User); err != nil {
		return err
	}
	progress("1 of 2 layers")
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pullErr != nil {
		return e.pullErr
	}
	i, ok := e.pullable[ref]
	if !ok {
		return cluster.NotFoundf("manifest unknown")
	}
	e.images[ref] = i
	return nil
}

// Images is not told of in calls.
func (e *fakeEngine) Images(context.Context) ([]cluster.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.up || e.stuck {
		return nil, away()
	}
	byID := map[string]cluster.Image{}
	for name, i := range e.images {
		x := byID[i.ID]
		x.ID, x.Size = i.ID, e.sizes[i.ID]
		if name != i.ID && !strings.Contains(name, "@") {
			x.Tags = append(x.Tags, docker.Canonical(name))
		}
		byID[i.ID] = x
	}
	return slices.Collect(maps.Values(byID)), nil
}

func (e *fakeEngine) ImageUses(context.Context) (map[string]bool, error) {
	if err := e.call("image uses"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]bool{}
	for _, c := range e.boxes {
		out[c.ImageID] = true
	}
	return out, nil
}

func (e *fakeEngine) RemoveImage(_ context.Context, ref string) error {
	if err := e.call("remove image " + ref); err != nil {
		return err
	}
	e.mu.Lock()
	begin := e.removes
	e.mu.Unlock()
	if begin != nil {
		begin(ref)
	}
	<-time.After(time.Second)
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.images[ref].ID
	used := e.keeps[id]
	for _, c := range e.boxes {
		used = used || c.ImageID == id
	}
	if used {
		return &cluster.Error{Kind: cluster.KindConflict, Msg: "a container uses it"}
	}
	delete(e.images, ref)
	return nil
}

// use is that of the disk with the images on it.
func (e *fakeEngine) use(string) (DiskUse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u, seen := e.disk, map[string]bool{}
	for _, i := range e.images {
		if !seen[i.ID] {
			u.Free -= e.sizes[i.ID]
		}
		seen[i.ID] = true
	}
	return u, nil
}

// has reports whether an image of that name is there.
func (e *fakeEngine) has(ref string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.named(ref).ID != ""
}

// fakeStore is the agent's store in memory.
type fakeStore struct {
	beats    func() // at each heartbeat's begin
	mu       sync.Mutex
	read     bool // Follow may begin
	ps       []cluster.NodePlacement
	changed  chan struct{}
	statuses map[cluster.TaskID]cluster.Status
	writes   int
	states   map[cluster.TaskID][]string
	info     cluster.NodeInfo
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		read: true, changed: make(chan struct{}), statuses: map[cluster.TaskID]cluster.Status{}, states: map[cluster.TaskID][]string{},
	}
}

func (s *fakeStore) set(read bool, ps ...cluster.NodePlacement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read, s.ps = read, ps
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeStore) Follow(ctx context.Context, _ cluster.NodeID, on func([]cluster.NodePlacement, []cluster.Sealed)) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		read, ps, changed := s.read, slices.Clone(s.ps), s.changed
		s.mu.Unlock()
		if read {
			on(ps, nil)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return context.Cause(ctx)
}

func (s *fakeStore) Statuses(context.Context, cluster.NodeID) ([]cluster.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []cluster.Status
	for _, x := range s.statuses {
		out = append(out, x)
	}
	return out, nil
}

func (s *fakeStore) WriteStatus(_ context.Context, _ cluster.NodeID, put []cluster.Status, gone []cluster.TaskID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	for _, x := range put {
		s.statuses[x.Task] = x
		s.states[x.Task] = append(s.states[x.Task], fmt.Sprintf("%s ready=%v %s", x.State, x.Ready, x.Reason))
	}
	for _, t := range gone {
		delete(s.statuses, t)
	}
	return nil
}

func (s *fakeStore) status(t cluster.TaskID) cluster.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statuses[t]
}

func (s *fakeStore) WriteInfo(_ context.Context, i cluster.NodeInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info = i
	return nil
}

// described is what the node says about itself.
func (s *fakeStore) described() cluster.NodeInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

func (s *fakeStore) Beat(ctx context.Context, _ cluster.NodeID, _ time.Duration) error {
	if s.beats != nil {
		s.beats()
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// fakeNode is an agent over both; start and stop run it.
type fakeNode struct {
	t      *testing.T
	engine *fakeEngine
	store  *fakeStore
	state  string
	change func(*Config)
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	return &fakeNode{t: t, engine: newFakeEngine(), store: newFakeStore(), state: t.TempDir(), change: func(*Config) {}}
}

func (n *fakeNode) start() (a *Agent, stop func()) {
	n.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		n.t.Fatal(err)
	}
	cfg := Config{
		Node: "n1", ClusterID: "c", Address: "10.0.0.1", Store: n.store, Engine: n.engine, StateDir: n.state, RunDir: n.state,
		Pools: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.213.0.0/16")} }, Identity: id, Log: hclog.NewNullLogger(), Now: time.Now, Init: "/init",
	}
	n.change(&cfg)
	a, err = New(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	return a, func() { cancel(); <-done }
}

// task makes a placement of the fake's image.
func fakeTask(i int) cluster.NodePlacement {
	s := cluster.ServiceID{App: "a", Name: "b"}
	return cluster.NodePlacement{
		Task: cluster.NewTaskID(s, i, 1, int64(i), ""), Node: "n1", ServiceID: s, Slot: i, Desire: cluster.DesireRun,
		Spec: cluster.TaskSpec{Image: "img", NetworkMode: "none"},
	}
}
