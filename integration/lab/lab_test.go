package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/dockerd"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/lab"
)

// A cluster of three, as a teacher would show it: an app over all nodes, a cable that
// is cut, a node without power, an engine that is killed; the cluster sees each.
func TestThreeNodes(t *testing.T) {
	for _, engine := range []string{lab.EngineDistro, lab.EngineCurrent} {
		t.Run(engine, func(t *testing.T) { threeNodes(t, engine) })
	}
}

func threeNodes(t *testing.T, engine string) {
	t.Helper()
	b := newBed(t)
	began := time.Now()
	out, err := b.try("up", "--nodes", "3", "--engine", engine)
	if err != nil && strings.Contains(out, "make engine") {
		need.Skip(t, "needs a current engine: make engine")
	}
	if err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	t.Logf("up after %s", time.Since(began).Round(time.Millisecond))
	for _, want := range []string{"FAIRLEAD_SOCKET=" + lab.DirOf(b.root, b.name).APISocket("n1"), "http://127.0.0.1:"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say how it is reached, %s:\n%s", want, out)
		}
	}
	b.aliveSoon("n1 n2 n3")
	b.deploy(6)
	if got := b.tasks(); got["n1"] != 2 || got["n2"] != 2 || got["n3"] != 2 {
		t.Errorf("not spread: %v", got)
	}
	b.served(6)
	before := b.status()
	if again := b.do("up"); !strings.Contains(again, before.URLs[0]) {
		t.Errorf("up again says\n%s", again)
	}
	if out, err := b.try("up", "--nodes", "4"); err == nil || !strings.Contains(out, "--nodes 3") {
		t.Errorf("another lab of that name: %v\n%s", err, out)
	}
	entered(t, b)
	cables(t, b)

	b.do("kill", "n3")
	if s := b.status(); s.Nodes[2].Power || s.Nodes[2].Wanted {
		t.Errorf("after its power was cut: %+v", s.Nodes[2])
	}
	b.eventually(20*time.Second, "the others are ready", func() error {
		if s := b.status(); !s.Ready {
			return fmt.Errorf("%+v", s.Nodes)
		}
		return nil
	})
	if out, err := b.try("exec", "n3", "--", "true"); err == nil || !strings.Contains(out, "no power") {
		t.Errorf("exec without power: %v %s", err, out)
	}
	b.aliveSoon("n1 n2")
	b.do("start", "n3")
	b.aliveSoon("n1 n2 n3")
	b.do("kill", "n2/docker")
	b.eventually(20*time.Second, "the engine is away", func() error {
		if n := b.status().Nodes[1]; n.Docker || !n.Stopped.Has("docker") || !n.Power {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	b.do("start", "n2/docker")
	b.do("status", "--wait", "1m")
	b.served(6)
	seen := strings.Join(b.processes(), "\n")
	for _, program := range []string{" \"lab\" \"rack\" ", " \"lab\" \"machine\" ", "dockerd\" ", "containerd\" ", "containerd-shim", "traefik", " \"agent\" ", "[\"/app\""} {
		if !strings.Contains(seen, program) {
			t.Errorf("of the lab's processes no %s is seen: what is left of it would not be, either\n%s", program, seen)
		}
	}
	b.do("down")
	b.nothingLeft()
	if out := b.do("down"); !strings.Contains(out, "no lab") {
		t.Errorf("down again: %s", out)
	}
}

// entered tries commands on a node.
func entered(t *testing.T, b *bed) {
	t.Helper()
	if got := strings.TrimSpace(b.do("exec", "n2", "--", "hostname")); got != "n2" {
		t.Errorf("the host name is %q", got)
	}
	if got := b.do("exec", "n2", "--", "docker", "ps", "--format", "{{.Names}}"); strings.Count(got, "demo_web") != 2 {
		t.Errorf("containers of n2:\n%s", got)
	}
	_, err := b.try("exec", "n2", "--", "sh", "-c", "exit 7")
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 7 {
		t.Errorf("exit code 7 comes as %v", err)
	}
	if out, err := b.try("exec", "n9", "--", "true"); err == nil || !strings.Contains(out, "it has n1, n2, n3") {
		t.Errorf("a node that is not there: %v %s", err, out)
	}
	shells(t, b)
	// A connection to outside fails at once, and says so.
	out, err := b.try("exec", "n2", "--", "curl", "-sS", "--max-time", "20", "http://192.0.2.1/")
	if err == nil || strings.Contains(out, "timed out") {
		t.Errorf("outside: %v %s", err, out)
	}
}

// reaches reports whether one node can open a connection to another's engine port,
// within so many seconds.
func reaches(b *bed, from, to string, seconds int) bool {
	_, err := b.try("exec", from, "--", "curl", "-s", "-k", "--max-time", fmt.Sprint(seconds), "https://"+to+":7420/v1/health")
	return err == nil
}

// shells gives commands to a shell on a node, by a pipe and at a terminal.
func shells(t *testing.T, b *bed) {
	t.Helper()
	const commands = "hostname\nif [ -t 0 ]; then echo at a terminal; fi\nip -o -4 addr show eth0\ndocker ps --format '{{.Names}}'\nexit 3\n"
	// At a terminal /bin/sh too, which is dash on many machines.
	for _, shell := range []string{"", "/bin/sh", "/bin/bash"} {
		terminal := shell != ""
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := b.command(ctx, "shell", "n2")
		cmd.Env = append(cmd.Env, "SHELL=") // then it is what every machine has
		if terminal {
			env := append(cmd.Env, "SHELL="+shell) // of script too
			cmd = exec.CommandContext(ctx, "script", "-qec", strings.Join(cmd.Args, " "), "/dev/null")
			cmd.Env = env
		}
		cmd.Stdin = strings.NewReader(commands)
		out, err := output(cmd)
		if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 3 {
			t.Errorf("%q at a terminal %v: the shell's exit code 3 comes as %v", shell, terminal, err)
		}
		said := strings.Fields(strings.ReplaceAll(out, "/24", ""))
		if !slices.Contains(said, "n2") || !slices.Contains(said, b.address("n2")) || strings.Count(out, "demo_web") != 2 {
			t.Errorf("%q at a terminal %v: a shell on n2 says\n%s", shell, terminal, out)
		}
		if strings.Contains(out, "at a terminal\n") != terminal && strings.Contains(out, "at a terminal\r\n") != terminal {
			t.Errorf("%q at a terminal %v: it is not\n%s", shell, terminal, out)
		}
	}
	if out, err := b.try("shell", "n9"); err == nil || !strings.Contains(out, "it has n1, n2, n3") {
		t.Errorf("a shell on a node that is not there: %v %s", err, out)
	}
}

// cables cuts links, and looks at what passes them.
func cables(t *testing.T, b *bed) {
	t.Helper()
	b.do("cut", "n1:n2")
	if reaches(b, "n2", "n1", 1) {
		t.Error("the link between n1 and n2 is cut, and n2 reaches n1")
	}
	if !reaches(b, "n3", "n1", 30) {
		t.Error("n3's link is not cut, and it does not reach n1")
	}
	b.aliveSoon("n1 n3")
	if got := b.do("status"); !strings.Contains(got, "cut from n2") || !strings.Contains(got, "cut from n1") {
		t.Errorf("status says\n%s", got)
	}
	b.do("heal", "n1:n2")
	b.aliveSoon("n1 n2 n3")
	oneWay(t, b)
	b.do("heal", "n3")
	b.do("cut", "n1") // from this machine too, but for the API's socket
	if _, err := b.answer("demo.example.com"); err == nil {
		t.Error("n1 is cut from all, and its gateway answers")
	}
	b.do("heal", "n1")
	b.aliveSoon("n1 n2 n3")
	b.served(6)
}

// oneWay has n3 send nothing to n1, and looks at what arrives in each direction.
func oneWay(t *testing.T, b *bed) {
	t.Helper()
	b.do("cut", "n3:n1", "--one-way")
	// n1 would ask for the way to n3 before it sends, and hear no answer.
	mac := strings.TrimSpace(b.do("exec", "n3", "--", "cat", "/sys/class/net/eth0/address"))
	b.do("exec", "n1", "--", "ip", "neigh", "replace", b.address("n3"), "lladdr", mac, "dev", "eth0", "nud", "permanent")
	for to, from := range map[string]string{"n3": "n1", "n1": "n3"} {
		b.do("exec", to, "--", "nft", "-f", b.file("arrived-"+to, fmt.Sprintf(`
table ip arrived {
	counter frames {
	}
	chain before {
		type filter hook prerouting priority -300
		ip saddr %s counter name frames
	}
}
`, b.address(from))))
	}
	arrived := func(at string) (n int) {
		t.Helper()
		out := b.do("exec", at, "--", "nft", "list", "counter", "ip", "arrived", "frames")
		_, count, _ := strings.Cut(out, "packets ")
		if _, err := fmt.Sscan(count, &n); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return n
	}
	before := arrived("n1")
	if reaches(b, "n3", "n1", 1) {
		t.Error("n3 sends nothing to n1, and reaches it")
	}
	there := arrived("n3")
	b.eventually(30*time.Second, "what n1 sends arrives at n3", func() error {
		reaches(b, "n1", "n3", 1) // it sends; the answer is lost
		if arrived("n3") == there {
			return errors.New("no packet does")
		}
		return nil
	})
	if more := arrived("n1") - before; more != 0 {
		t.Errorf("n3 sends nothing to n1, and %d packets arrive", more)
	}
	for _, n := range []string{"n1", "n3"} {
		b.do("exec", n, "--", "nft", "delete", "table", "ip", "arrived")
	}
	b.do("exec", "n1", "--", "ip", "neigh", "del", b.address("n3"), "dev", "eth0")
}

// timed is how long a request from one node to the gateway takes, in seconds: until
// it is connected, and in all.
func (b *bed) timed(from string, more ...string) (connect, total float64) {
	b.t.Helper()
	args := append([]string{
		"exec", from, "--", "curl", "-fsS", "-o", "/dev/null", "-w", "%{time_connect} %{time_total}", "-H", "Host: demo.example.com",
	}, more...)
	if _, err := fmt.Sscan(b.do(args...), &connect, &total); err != nil {
		b.t.Fatal(err)
	}
	return connect, total
}

// A slow link: what is sent takes at least as long as the rate and the delay say, both
// ways; a line that loses all passes nothing; afterwards all is as it was.
func TestSlowLink(t *testing.T) {
	b := newBed(t)
	b.do("up", "--nodes", "2")
	b.deploy(1)
	b.served(1)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	up, down := []string{"--data-binary", "@" + body, "http://n1/"}, []string{"http://n1/file?name=/app"} // some MB

	b.do("slow", "n2", "--rate", "8mbit")
	for name, args := range map[string][]string{"up": up, "down": down} {
		if _, total := b.timed("n2", args...); total < 0.9 { // 1 MB at 1 MB a second, but for a burst
			t.Errorf("%s at 8 Mbit/s after %gs", name, total)
		}
	}
	b.do("slow", "n2", "--delay", "100ms")
	if got := b.do("status"); !strings.Contains(got, "+100ms") {
		t.Errorf("status says\n%s", got)
	}
	if connect, _ := b.timed("n2", "http://n1/"); connect < 0.2 {
		t.Errorf("connected after %gs with 100 ms each way", connect)
	}
	b.do("slow", "n2", "--delay", "5ms", "--loss", "3%")
	for _, args := range [][]string{up, down} {
		b.timed("n2", args...) // what is lost is sent again, and all arrives
	}
	b.do("cut", "n2:n1") // the switch's port is another one now
	if reaches(b, "n2", "n1", 1) {
		t.Error("a slow link that is cut passes something")
	}
	b.do("heal", "n2")
	b.do("slow", "n2", "--loss", "100%")
	if reaches(b, "n2", "n1", 1) {
		t.Error("all is lost, and something arrives")
	}
	b.do("kill", "n2") // with its line
	b.do("start", "n2")
	b.eventually(20*time.Second, "n2 has its engine again", func() error {
		if n := b.status().Nodes[1]; !n.Docker || n.Slow == nil {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	if reaches(b, "n2", "n1", 1) {
		t.Error("started again it is not slow any more")
	}
	b.do("slow", "n2", "--off")
	b.aliveSoon("n1 n2")
	b.timed("n2", up...)
	if out, err := b.try("slow", "n2"); err == nil || !strings.Contains(out, "--off") {
		t.Errorf("not said how slow: %v %s", err, out)
	}
}

// Two labs at once, with the same addresses and ports inside: each is alone.
func TestTwoLabs(t *testing.T) {
	one, two := newBed(t), newBed(t)
	up := make(chan error, 1)
	go func() {
		out, err := one.try("up", "--nodes", "2")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		up <- err
	}()
	two.do("up", "--nodes", "2", "--gateways", "0")
	if err := <-up; err != nil {
		t.Fatal(err)
	}
	one.aliveSoon("n1 n2")
	two.aliveSoon("n1 n2")
	one.deploy(2)
	one.served(2)
	if got := two.cluster("ls"); strings.Contains(got, "demo") {
		t.Errorf("the other lab has it too:\n%s", got)
	}
	two.do("kill", "n2")
	two.do("down")
	two.nothingLeft()
	one.served(2)
	one.aliveSoon("n1 n2")
}

// A lab whose process ends, as with the machine's power, comes back with what its
// nodes have on disk; and what a snapshot has kept comes back too.
func TestLabIsKept(t *testing.T) {
	b := newBed(t)
	b.do("up", "--nodes", "2")
	b.deploy(2)
	b.served(2)
	b.do("snapshot", "before")
	b.do("status", "--wait", "1m")
	if out, err := b.try("snapshot", "before"); err == nil || !strings.Contains(out, "already") {
		t.Errorf("a snapshot twice: %v %s", err, out)
	}
	b.served(2)
	b.cluster("rm", "demo", "-y")
	pid := b.rack()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually(20*time.Second, "the status says that it does not run", func() error {
		if s := b.status(); s.Running || !strings.Contains(s.Trouble, "does not run") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	b.do("up")
	b.aliveSoon("n1 n2")
	if got := b.cluster("ls"); strings.Contains(got, "demo") {
		t.Errorf("what was removed is back:\n%s", got)
	}
	if out, err := b.try("restore", "nothing"); err == nil || !strings.Contains(out, "no snapshot") {
		t.Errorf("restore what is not there: %v %s", err, out)
	}
	b.do("restore", "before")
	b.do("status", "--wait", "1m")
	b.aliveSoon("n1 n2")
	b.served(2)
	if s := b.status(); len(s.Snapshots) != 1 || s.Snapshots[0] != "before" {
		t.Errorf("snapshots %v", s.Snapshots)
	}
}

// rack is the lab's process.
func (b *bed) rack() int {
	b.t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.Contains(string(line), "\x00lab\x00rack\x00"+filepath.Join(b.root, b.name)+"\x00") {
			var pid int
			_, _ = fmt.Sscan(filepath.Base(d), &pid)
			return pid
		}
	}
	b.t.Fatal("the lab has no process")
	return 0
}

// Interrupted at any moment, a lab takes itself down; killed, it can be taken down,
// or finished.
func TestInterrupted(t *testing.T) {
	b := newBed(t)
	began := time.Now()
	b.do("up", "--gateways", "0")
	whole := time.Since(began)
	b.do("down")
	for i := range 12 {
		sig := syscall.SIGKILL
		if i%3 == 2 {
			sig = syscall.SIGINT
		}
		after := rand.N(whole)
		ctx, cancel := context.WithCancel(t.Context())
		cmd := b.command(ctx, "up", "--gateways", "0")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Signal(sig)
		err := cmd.Wait()
		cancel()
		switch {
		case sig == syscall.SIGINT && err != nil:
			b.nothingLeft() // it has cleaned up itself
		case i%2 == 0:
			b.do("up", "--gateways", "0")
			b.aliveSoon("n1 n2 n3")
		}
		b.do("down")
		b.nothingLeft()
		if t.Failed() {
			t.Fatalf("%v after %s", sig, after)
		}
	}
}

var counters = regexp.MustCompile(`\[[0-9]+:[0-9]+\]|(valid_lft|preferred_lft|expires) *[0-9]+sec|created [^ ]* ago`)

// difference are the lines that only one of two texts has.
func difference(before, after string) string {
	var out strings.Builder
	for _, way := range []struct{ sign, in, of string }{{"-", after, before}, {"+", before, after}} {
		for line := range strings.Lines(way.of) {
			if !strings.Contains(way.in, line) {
				out.WriteString(way.sign + line)
			}
		}
	}
	return out.String()
}

// The machine's own Docker, firewall, routes and links are as they were, while a lab
// is there and afterwards. The machine is a namespace with an engine and a firewall,
// so that no other program's changes are seen.
func TestMachineIsLeftAlone(t *testing.T) {
	engine := dockerd.New(t)
	b := newBed(t)
	b.ns, b.env = engine.Namespace(), []string{"DOCKER_HOST=" + engine.Host()}
	empty := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(empty, []byte("FROM scratch\nCOPY Dockerfile /\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := output(exec.Command("docker", "-H", engine.Host(), "build", "-q", "-t", "theirs:1", filepath.Dir(empty))); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	machine := func() string {
		var all strings.Builder
		for _, c := range []string{
			"nft -s list ruleset", "iptables-save", "ip -o address", "ip -o link", "ip route show table all", "ip rule", "ip neigh", "ip netns",
			"cat /proc/sys/net/ipv4/ip_forward", "sysctl -a --pattern ^net.bridge",
			"docker ps -aq", "docker network ls", "docker volume ls", "docker image ls -aq",
		} {
			cmd := exec.Command("nsenter", append([]string{"--net=" + b.ns}, strings.Fields(c)...)...)
			cmd.Env = append(os.Environ(), b.env...)
			out, err := output(cmd)
			if err != nil {
				t.Fatalf("%s: %v: %s", c, err, out)
			}
			// What differs with time alone: when it was saved, counters, lifetimes.
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "#") || c == "ip netns" && !strings.Contains(line, b.name) {
					continue
				}
				fmt.Fprintf(&all, "%s: %s", c, counters.ReplaceAllString(line, ""))
			}
		}
		return all.String()
	}
	for _, args := range [][]string{
		{"ip", "link", "add", "own0", "type", "bridge"},
		{"ip", "link", "set", "own0", "addrgenmode", "none"},
		{"ip", "addr", "add", "10.99.0.1/24", "dev", "own0"},
		{"ip", "link", "set", "own0", "up"},
		{"ip", "route", "add", "10.213.0.0/16", "dev", "own0"},
		{"iptables", "-A", "INPUT", "-s", "10.99.0.7", "-j", "DROP"},
	} {
		if out, err := output(exec.Command("nsenter", append([]string{"--net=" + b.ns}, args...)...)); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	before := machine()
	same := func(when string) {
		t.Helper()
		if now := machine(); now != before {
			t.Errorf("%s the machine is not as it was before:\n%s", when, difference(before, now))
		}
	}
	if out, err := output(exec.Command("nsenter", "--net="+b.ns, "ip", "link", "set", "lo", "up")); err != nil {
		t.Fatal(err, out)
	}
	b.do("up", "--gateways", "0")
	b.deploy(3)
	b.do("load", "theirs:1")
	if out := b.do("exec", "n3", "--", "docker", "image", "ls"); !strings.Contains(out, "theirs") {
		t.Errorf("an image of this machine was loaded, and n3 has\n%s", out)
	}
	if out, err := b.try("load", "absent:1"); err == nil || !strings.Contains(out, "absent:1") {
		t.Errorf("an image that is not there: %v %s", err, out)
	}
	b.do("slow", "n2", "--delay", "1ms")
	same("with a lab")
	b.do("cut", "n2")
	b.do("kill", "n3")
	same("with a lab in trouble")
	b.do("down")
	same("afterwards")
}

// Three servers, two of them with a gateway: the one that leads loses its power. The
// other gateway serves on, another server takes over, and the first one comes back.
func TestServersAndGateways(t *testing.T) {
	onEngines(t, []string{"--nodes", "3", "--servers", "3", "--gateways", "2"}, serversAndGateways)
}

func serversAndGateways(b *bed) {
	t := b.t
	b.aliveSoon("n1 n2 n3")
	b.deploy(6)
	var urls []string
	for _, u := range b.status().URLs {
		if strings.HasPrefix(u, "http://") {
			urls = append(urls, u)
		}
	}
	if len(urls) != 2 {
		t.Fatalf("gateways at %v", urls)
	}
	for _, u := range urls {
		b.eventually(20*time.Second, u+" serves", func() error { return b.asks(u, "demo.example.com") })
	}
	leader := b.leader()
	other := map[string]string{"n1": "n2", "n2": "n3", "n3": "n1"}[leader]
	b.env = []string{"FAIRLEAD_SOCKET=" + lab.DirOf(b.root, b.name).APISocket(other)}
	b.do("kill", leader)
	serving := urls[1]
	if leader == "n2" {
		serving = urls[0]
	}
	began := time.Now()
	b.eventually(time.Minute, "a write is accepted", func() error {
		out, err := output(b.fairlead(t.Context(), "scale", "demo/web=5"))
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	t.Logf("%s led; the first write was accepted after %s", leader, time.Since(began).Round(time.Millisecond))
	b.eventually(time.Minute, "5 tasks are ready on the two that are left", func() error {
		got := b.tasks()
		if delete(got, leader); got["n1"]+got["n2"]+got["n3"] != 5 {
			return fmt.Errorf("%v", got)
		}
		return b.asks(serving, "demo.example.com")
	})
	b.do("start", leader)
	b.aliveSoon("n1 n2 n3")
	b.eventually(time.Minute, "the server answers again", func() error {
		for _, s := range b.servers() {
			if !s.Answers || s.Standing != "voter" {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	for _, u := range urls {
		b.eventually(30*time.Second, u+" serves again", func() error { return b.asks(u, "demo.example.com") })
	}
}
