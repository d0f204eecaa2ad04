package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/dns"
	"github.com/fairlead/fairlead/mesh"

	"github.com/fairlead/fairlead/integration/need"
)

// meshUpstream is where the tests' resolver of the outside world listens.
const meshUpstream = "127.0.53.77"

// meshapp compiles the tests' program, once, and returns the directory to build
// its image from.
var meshapp = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "fairlead", "test", "meshapp")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := need.Program(filepath.Join(dir, "meshapp"), "./meshapp"); err != nil {
		return "", err
	}
	file := "FROM scratch\nCOPY meshapp /meshapp\nENTRYPOINT [\"/meshapp\"]\n"
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o600)
})

// meshReport is what meshapp's clients print.
type meshReport struct {
	Names, From, Errors, Kept map[string]int
	Addrs                     []string
	Millis                    int64
}

// meshNode is one node: real bridges, real containers, a real mesh.
type meshNode struct {
	t        *testing.T
	id       string // cluster ID
	services netip.Prefix
	nets     []mesh.Network

	mu      sync.Mutex
	eps     map[cluster.ServiceID]cluster.Endpoints
	rev     cluster.StoreRev
	changed chan struct{}
	applied cluster.StoreRev
	acks    chan struct{} // closed at each report

	clients []dns.Container
	mesh    *mesh.Mesh
	dns     *dns.Server
}

// newMeshNode makes a node with these networks ("name" or "name!" for an internal one).
func newMeshNode(t *testing.T, networks ...string) *meshNode {
	t.Helper()
	if os.Getuid() != 0 {
		need.Skip(t, "needs root")
	}
	if err := exec.CommandContext(t.Context(), "docker", "info").Run(); err != nil {
		need.Skip(t, "needs a Docker engine")
	}
	dir, err := meshapp()
	if err != nil {
		t.Fatal(err)
	}
	n := &meshNode{
		t: t, id: fmt.Sprintf("mesh%06x", rand.N(1<<24)), eps: map[cluster.ServiceID]cluster.Endpoints{},
		services: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 230, byte(rand.N(250)), 0}), 24),
		rev:      1, changed: make(chan struct{}), acks: make(chan struct{}),
	}
	t.Cleanup(n.remove)
	n.docker("build", "-q", "--label", cluster.LabelCluster+"="+n.id, "-t", n.image(), dir)
	for i, name := range networks {
		n.addNetwork(i, name)
	}
	return n
}

// image is the test's own name of the image.
func (n *meshNode) image() string { return "fairlead-test-meshapp:" + n.id }

// remove deletes all that the test made, whatever happened.
func (n *meshNode) remove() {
	label := "label=" + cluster.LabelCluster + "=" + n.id
	for _, kind := range []string{"container", "network"} {
		list := []string{kind, "ls", "-q", "--filter", label}
		if kind == "container" {
			list = append(list, "-a")
		}
		out, err := exec.Command("docker", list...).Output()
		if err != nil {
			n.t.Errorf("docker %s: %v", strings.Join(list, " "), err)
		}
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			args := []string{kind, "rm"}
			if kind == "container" {
				args = append(args, "-f")
			}
			if out, err := exec.Command("docker", append(args, ids...)...).CombinedOutput(); err != nil {
				n.t.Errorf("docker %s rm: %v: %s", kind, err, out)
			}
		}
	}
	if out, err := exec.Command("docker", "image", "rm", n.image()).CombinedOutput(); err != nil {
		n.t.Errorf("docker image rm: %v: %s", err, out)
	}
	if err := mesh.Cleanup(context.Background(), n.id); err != nil {
		n.t.Error(err)
	}
	if out, err := exec.Command("nft", "list", "table", "ip", mesh.TableName(n.id)).CombinedOutput(); err == nil {
		n.t.Errorf("the table is still there:\n%s", out)
	}
}

func (n *meshNode) docker(args ...string) string {
	n.t.Helper()
	out, err := n.tryDocker(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

func (n *meshNode) tryDocker(args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(n.t.Context(), "docker", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (n *meshNode) addNetwork(i int, name string) {
	n.t.Helper()
	name, internal := strings.CutSuffix(name, "!")
	bridge := fmt.Sprintf("flm%s%d", n.id[4:], i)
	var err error
	for range 20 { // another test may have the subnet
		third := byte(rand.N(250))
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 231, third, 0}), 24)
		gw := netip.AddrFrom4([4]byte{10, 231, third, 1})
		if _, err = n.tryDocker("network", "create", "--label", cluster.LabelCluster+"="+n.id, "--subnet", subnet.String(),
			"--gateway", gw.String(), "-o", "com.docker.network.bridge.name="+bridge, n.id+"_"+name); err == nil {
			n.nets = append(n.nets, mesh.Network{
				Name: cluster.NetworkName(n.id + "_" + name), Bridge: bridge, Subnet: subnet, Gateway: gw, Internal: internal,
			})
			return
		}
	}
	n.t.Fatal(err)
}

// network returns the i-th network's name.
func (n *meshNode) network(i int) cluster.NetworkName { return n.nets[i].Name }

// start runs the mesh until the test ends.
func (n *meshNode) start() {
	n.t.Helper()
	m, err := mesh.New(mesh.Config{
		Cluster: n.id, Services: n.services, Endpoints: n.endpoints, Changed: n.change, Applied: n.report,
		PrivatePorts: []uint16{meshPrivatePort}, Log: hclog.New(&hclog.LoggerOptions{Output: testWriter{n.t}, Level: hclog.Debug}),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.mesh = m
	n.startDNS()
	if err := m.SetNetworks(n.t.Context(), n.nets); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	n.t.Cleanup(func() { cancel(); <-done })
}

const meshPrivatePort = 47379

// startDNS answers names on all networks, and forwards to meshUpstream.
func (n *meshNode) startDNS() {
	n.t.Helper()
	conf := filepath.Join(n.t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+n.nets[0].Gateway.String()+"\nnameserver "+meshUpstream+"\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.dns = dns.New(dns.Config{
		Services: n.services, ResolvConf: conf,
		Log: hclog.New(&hclog.LoggerOptions{Output: testWriter{n.t}, Level: hclog.Debug}),
	})
	nets := make([]dns.Network, 0, len(n.nets))
	for _, x := range n.nets {
		nets = append(nets, dns.Network{Name: x.Name, Subnet: x.Subnet, Gateway: x.Gateway, Internal: x.Internal})
	}
	n.dns.SetContainers(n.clients)
	if err := n.dns.SetNetworks(n.t.Context(), nets); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.dns.Run(ctx) }()
	n.t.Cleanup(func() { cancel(); <-done })
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (n *meshNode) endpoints() ([]cluster.Endpoints, cluster.StoreRev) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]cluster.Endpoints, 0, len(n.eps))
	for _, e := range n.eps {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b cluster.Endpoints) int { return a.Compare(b.ServiceID) })
	return out, n.rev
}

func (n *meshNode) change() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *meshNode) report(rev cluster.StoreRev) {
	eps, _ := n.endpoints()
	n.dns.SetEndpoints(eps)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied = rev
	close(n.acks)
	n.acks = make(chan struct{})
}

// serve makes the tasks the endpoints of a service and waits until the node says
// that it serves them. An empty list is a service without a ready task.
func (n *meshNode) serve(id cluster.ServiceID, vip string, nets []cluster.NetworkName, tasks ...cluster.Endpoint) {
	n.t.Helper()
	rev := n.set(id, vip, nets, tasks...)
	if n.mesh == nil {
		return
	}
	deadline := time.After(need.Patience * 10 * time.Second)
	for {
		n.mu.Lock()
		applied, acks := n.applied, n.acks
		n.mu.Unlock()
		if applied >= rev {
			return
		}
		select {
		case <-acks:
		case <-deadline:
			n.t.Fatalf("the node acknowledges %d, not %d", applied, rev)
		}
	}
}

// set makes the tasks the endpoints of a service and returns the revision of that.
func (n *meshNode) set(id cluster.ServiceID, vip string, nets []cluster.NetworkName, tasks ...cluster.Endpoint) cluster.StoreRev {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rev++
	n.eps[id] = cluster.Endpoints{ServiceID: id, Address: vip, Networks: nets, Tasks: tasks, Rev: n.rev}
	close(n.changed)
	n.changed = make(chan struct{})
	return n.rev
}

// vip returns the i-th service address.
func (n *meshNode) vip(i int) string {
	b := n.services.Addr().As4()
	b[3] = byte(10 + i)
	return netip.AddrFrom4(b).String()
}

// run starts a server container on networks and returns it as an endpoint.
func (n *meshNode) run(name string, slot int, nets ...cluster.NetworkName) cluster.Endpoint {
	n.t.Helper()
	args := []string{
		"create", "--name", n.id + "_" + name, "--label", cluster.LabelCluster + "=" + n.id, "-e", "NAME=" + name,
		"--network", string(nets[0]),
	}
	for _, x := range n.nets {
		if x.Name == nets[0] {
			args = append(args, "--dns", x.Gateway.String())
		}
	}
	n.docker(append(args, n.image(), "serve")...)
	for _, extra := range nets[1:] {
		n.docker("network", "connect", string(extra), n.id+"_"+name)
	}
	n.docker("start", n.id+"_"+name)
	var all map[string]struct{ IPAddress string }
	if err := json.Unmarshal([]byte(n.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", n.id+"_"+name)), &all); err != nil {
		n.t.Fatal(err)
	}
	e := cluster.Endpoint{Task: cluster.TaskID(n.id + "_" + name), Slot: slot, Node: "n1", Addresses: map[cluster.NetworkName]string{}}
	for _, x := range nets {
		e.Addresses[x] = all[string(x)].IPAddress
		n.clients = append(n.clients, dns.Container{Addr: netip.MustParseAddr(e.Addresses[x]), Task: e.Task, App: "shop", Networks: nets})
	}
	if n.dns != nil {
		n.dns.SetContainers(n.clients)
	}
	if len(nets) > 1 && n.mesh != nil {
		pid := n.docker("inspect", "-f", "{{.State.Pid}}", n.id+"_"+name)
		if err := n.mesh.Attach(n.t.Context(), mesh.Container{Task: e.Task, Netns: "/proc/" + pid + "/ns/net", Networks: nets}); err != nil {
			n.t.Fatal(err)
		}
	}
	return e
}

// do runs a client of meshapp in a container.
func (n *meshNode) do(name string, args ...string) meshReport {
	n.t.Helper()
	r, err := n.try(name, args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// quick runs one until it takes no longer than limit, three times at most, and only while
// what it says is right: a machine that stands still makes one attempt slow, and a packet that
// is dropped each.
func (n *meshNode) quick(limit time.Duration, right func(meshReport) bool, name string, args ...string) (r meshReport) {
	n.t.Helper()
	for range 3 {
		if r = n.do(name, args...); !right(r) || r.Millis <= limit.Milliseconds() {
			break
		}
	}
	return r
}

func (n *meshNode) try(name string, args ...string) (meshReport, error) {
	var r meshReport
	out, err := n.tryDocker(append([]string{"exec", n.id + "_" + name, "/meshapp"}, args...)...)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(out), &r)
}

// datagrams returns how many UDP packets a container's programs have been given.
func (n *meshNode) datagrams(name string) int {
	n.t.Helper()
	pid := n.docker("inspect", "-f", "{{.State.Pid}}", n.id+"_"+name)
	b, err := os.ReadFile("/proc/" + pid + "/net/snmp")
	if err != nil {
		n.t.Fatal(err)
	}
	_, udp, _ := strings.Cut(string(b), "\nUdp: ")
	titles, counts, _ := strings.Cut(udp, "\nUdp: ")
	i := slices.Index(strings.Fields(titles), "InDatagrams")
	if i < 0 {
		n.t.Fatalf("no count of datagrams:\n%s", b)
	}
	count, err := strconv.Atoi(strings.Fields(counts)[i])
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}

// dump shows the state when a test fails.
func (n *meshNode) dump() {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), "nft", "list", "table", "ip", mesh.TableName(n.id)).CombinedOutput()
	n.t.Logf("nft table (%v):\n%s", err, out)
}

// total adds up counts.
func total(m map[string]int) int {
	sum := 0
	for _, v := range m {
		sum += v
	}
	return sum
}
