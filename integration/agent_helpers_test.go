package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"

	"github.com/fairlead/fairlead/integration/need"
)

const testImage = "fairlead-test-app:latest"

// removeTestImage removes the image when all containers of the tests are gone.
func removeTestImage() {
	if testImageBuilt.Load() {
		_ = exec.Command("docker", "rmi", testImage).Run()
	}
}

var testImageBuilt atomic.Bool

// testapp builds the test program and its image, and returns the program.
var testapp = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "fairlead-testapp-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "testapp")
	if err := need.Program(bin, "./testapp"); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		return nil, err
	}
	e, err := docker.New("")
	if err != nil {
		return nil, err
	}
	defer e.Close()
	testImageBuilt.Store(true)
	_, err = e.Build(context.Background(), docker.Build{
		Tags: []string{testImage}, Progress: io.Discard,
		Context: tarOf(map[string][]byte{
			"Dockerfile": []byte("FROM scratch\nCOPY testapp /bin/testapp\nENTRYPOINT [\"testapp\"]\nCMD [\"serve\"]\n"), "testapp": b,
		}),
	})
	return b, err
})

func tarOf(files map[string][]byte) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, b := range files {
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(b))})
		_, _ = w.Write(b)
	}
	_ = w.Close()
	return &buf
}

// agentNode is an agent on the real engine, with a store in memory.
type agentNode struct {
	t        *testing.T
	clusterI string
	node     cluster.NodeID
	st       *store.Memory
	engine   *docker.Engine
	id       *age.X25519Identity
	state    string
	run      string
	init     string
	cleaned  bool
	log      hclog.Logger

	agent *agent.Agent
	stop  func() // ends the agent, waits for it
	nets  chan []agent.Network
	n     int64
}

func newAgentNode(t *testing.T) *agentNode {
	t.Helper()
	if os.Getuid() != 0 {
		need.Skip(t, "needs root")
	}
	e, err := docker.New("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Info(t.Context()); err != nil {
		need.Skip(t, "needs a Docker engine")
	}
	bin, err := testapp()
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	level := hclog.Warn
	if os.Getenv("AGENT_DEBUG") != "" {
		level = hclog.Debug
	}
	n := &agentNode{
		t: t, clusterI: fmt.Sprintf("agent%06x", rand.N(1<<24)), node: "n1", st: store.NewMemory(), engine: e, id: id,
		state: t.TempDir(), run: filepath.Join(t.TempDir(), "run"), log: hclog.New(&hclog.LoggerOptions{Level: level}),
		nets: make(chan []agent.Network, 100),
	}
	n.init = filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(n.init, bin, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.clean)
	return n
}

func (n *agentNode) clean() {
	if n.stop != nil {
		n.stop()
	}
	if n.cleaned {
		return
	}
	n.cleaned = true
	// An engine of 20.10 was seen to answer no removal any more.
	ctx, cancel := context.WithTimeout(context.Background(), need.Patience*5*time.Minute)
	defer cancel()
	cs, err := n.engine.List(ctx, n.clusterI, n.node)
	if err != nil {
		n.t.Error(err)
	}
	bare, _ := n.engine.List(ctx, n.clusterI, "bare")
	cs = append(cs, bare...)
	for _, c := range cs {
		if err := n.engine.Remove(ctx, c.ID); err != nil {
			n.t.Error(err)
		}
	}
	nets, _ := n.engine.Networks(ctx)
	for _, x := range nets {
		if x.Labels[cluster.LabelCluster] == n.clusterI {
			switch err := n.engine.RemoveNetwork(ctx, x.ID); {
			case errors.Is(err, docker.ErrMiscounted):
				n.t.Log(err) // the engine's own fault, seen with 20.10: an empty network stays
			case err != nil:
				n.t.Error(err)
			}
		}
	}
	out, _ := exec.Command("docker", "volume", "ls", "-q", "--filter", "label="+cluster.LabelCluster+"="+n.clusterI).Output()
	for v := range strings.FieldsSeq(string(out)) {
		_ = exec.Command("docker", "volume", "rm", v).Run()
	}
	if err := agent.CleanRunDir(n.run); err != nil {
		n.t.Error(err)
	}
}

// start runs an agent as the node's; change may change its configuration.
func (n *agentNode) start(change ...func(*agent.Config)) {
	n.t.Helper()
	cfg := agent.Config{
		Node: n.node, ClusterID: n.clusterI, Address: "127.0.0.1", Store: control.NewAgentStore(n.st, n.log), Engine: n.engine,
		StateDir: n.state, RunDir: n.run, Pools: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.214.0.0/16")} }, Identity: n.id, Version: "test",
		Roles: []string{"agent"}, Log: n.log, Now: time.Now, Init: n.init,
		OnNetworks: func(x []agent.Network) { n.nets <- x },
	}
	for _, f := range change {
		f(&cfg)
	}
	a, err := agent.New(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	n.agent = a
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			n.t.Error("the agent did not end")
		}
	})
}

// placement makes one; it is not placed yet.
func (n *agentNode) placement(service string, slot int, spec cluster.TaskSpec) cluster.NodePlacement {
	n.n++
	s := cluster.ServiceID{App: cluster.AppName(n.clusterI), Name: cluster.ServiceName(service)}
	if spec.Image == "" {
		spec.Image = testImage
	}
	return cluster.NodePlacement{
		Task: cluster.NewTaskID(s, slot, 1, n.n, ""), Node: n.node, ServiceID: s, Slot: slot, Version: spec.Hash(), Spec: spec,
		Desire: cluster.DesireRun,
	}
}

func (n *agentNode) place(ps ...cluster.NodePlacement) {
	n.t.Helper()
	var ops []store.Op
	for _, p := range ps {
		op, err := store.PutJSON(store.PlacementKey(n.node, p.Task), p)
		if err != nil {
			n.t.Fatal(err)
		}
		ops = append(ops, op)
	}
	if _, err := n.st.Commit(n.t.Context(), store.Txn{Then: ops}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *agentNode) unplace(ids ...cluster.TaskID) {
	n.t.Helper()
	var ops []store.Op
	for _, id := range ids {
		ops = append(ops, store.Op{Key: store.PlacementKey(n.node, id), Delete: true})
	}
	if _, err := n.st.Commit(n.t.Context(), store.Txn{Then: ops}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *agentNode) seal(task cluster.TaskID, p cluster.Payload) {
	n.t.Helper()
	data, err := secrets.SealPayload(p, n.id.Recipient().String())
	if err != nil {
		n.t.Fatal(err)
	}
	op, err := store.PutJSON(store.SealedKey(n.node, task), cluster.Sealed{Task: task, Node: n.node, Data: data})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.st.Commit(n.t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
		n.t.Fatal(err)
	}
}

// status reads a task's status; ok is false while there is none.
func (n *agentNode) status(id cluster.TaskID) (cluster.Status, bool) {
	n.t.Helper()
	e, err := n.st.Get(n.t.Context(), store.StatusKey(n.node, id))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return cluster.Status{}, false
	}
	if err != nil {
		n.t.Fatal(err)
	}
	var s cluster.Status
	if err := json.Unmarshal(e.Value, &s); err != nil {
		n.t.Fatal(err)
	}
	return s, true
}

// await polls a task's status until ok likes it.
func (n *agentNode) await(id cluster.TaskID, what string, within time.Duration, ok func(cluster.Status) bool) cluster.Status {
	n.t.Helper()
	var s cluster.Status
	n.until(what, within, func() bool {
		x, found := n.status(id)
		s = x
		return found && ok(x)
	}, func() string { return show(s) })
	return s
}

func (n *agentNode) until(what string, within time.Duration, ok func() bool, dump func() string) {
	n.t.Helper()
	deadline := time.After(need.Patience * within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			out, _ := exec.Command("docker", "ps", "-a", "--filter", "label="+cluster.LabelCluster+"="+n.clusterI).CombinedOutput()
			n.t.Fatalf("not within %s: %s\n%s\n%s", within, what, dump(), out)
		case <-tick.C:
		}
	}
}

func ready(s cluster.Status) bool { return s.State == cluster.StateRunning && s.Ready }

func inState(st cluster.TaskState) func(cluster.Status) bool {
	return func(s cluster.Status) bool { return s.State == st }
}

// containers lists what the engine has of this node.
func (n *agentNode) containers() []docker.Container {
	n.t.Helper()
	cs, err := n.engine.List(n.t.Context(), n.clusterI, n.node)
	if err != nil {
		n.t.Fatal(err)
	}
	slices.SortFunc(cs, func(a, b docker.Container) int { return strings.Compare(a.Name, b.Name) })
	return cs
}

// get asks a task over its network.
func (n *agentNode) get(s cluster.Status, net cluster.NetworkName, path string) (string, error) {
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, "http://"+s.Addresses[net]+":8080"+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return string(b), fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(b), err
}

// show prints a status in full; its String method names the service only.
func show(s cluster.Status) string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
