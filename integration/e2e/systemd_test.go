package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/need"
)

// bootSystemd starts systemd as the first process of a machine whose disk is this
// machine's, with every change kept apart in $1: it runs in namespaces and control
// groups of its own. $2 is the machine's control group, $3 its name.
const bootSystemd = `set -e
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
	[ -e "$procs" ] || continue
	mkdir -p "$(dirname "$procs")/$2"
	[ ! -e "$(dirname "$procs")/$2/cpuset.cpus" ] || for f in cpuset.cpus cpuset.mems; do cat "$(dirname "$procs")/$f" >"$(dirname "$procs")/$2/$f"; done
	echo $$ >"$(dirname "$procs")/$2/cgroup.procs"
done
exec unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup bash -ec '
	mount --make-rprivate /
	mkdir -p $1/changes $1/work $1/root $1/docker
	mount -t overlay overlay -o lowerdir=/,upperdir=$1/changes,workdir=$1/work $1/root
	old=/sys/fs/cgroup
	cd $1/root
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	if [ -e $old/cgroup.procs ]; then mount -t cgroup2 cgroup2 sys/fs/cgroup; else
		mount -t tmpfs tmpfs sys/fs/cgroup
		for dir in $old/*/; do
			c=$(basename $dir); opts=$c
			[ $c != systemd ] || opts=none,name=systemd
			[ $c != unified ] || continue
			mkdir sys/fs/cgroup/$c
			mount -t cgroup -o $opts cgroup sys/fs/cgroup/$c || rmdir sys/fs/cgroup/$c
		done
	fi
	mount -t tmpfs tmpfs run
	mount -t tmpfs tmpfs tmp
	mount --rbind /dev dev
	mkdir -p var/lib/docker
	mount --bind $1/docker var/lib/docker
	mkdir -p old
	pivot_root . old
	umount -l old
	echo $2 >etc/hostname # systemd takes it from there
	exec env -i container=test PATH=$PATH /lib/systemd/systemd --unit=multi-user.target
' boot "$1" "$3"
`

// machine is a machine with systemd.
type machine struct {
	t                *testing.T
	dir, group, name string
	cmd              *exec.Cmd
	pid              int // of its first process
}

func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil || os.Geteuid() != 0 {
		need.Skip(t, "needs root and systemd: install the package systemd")
	}
	m := &machine{t: t, dir: t.TempDir(), group: fmt.Sprintf("fl-systemd-%06x", rand.N(1<<24)), name: name}
	if err := syscall.Mount("tmpfs", m.dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.off()
		if err := syscall.Unmount(m.dir, 0); err != nil {
			t.Errorf("unmount the machine's disk: %v", err)
		}
	})
	m.on()
	return m
}

// on starts the machine, and waits until all its units have.
func (m *machine) on() {
	m.t.Helper()
	m.cmd = exec.Command("bash", "-c", bootSystemd, "boot", m.dir, m.group, m.name)
	m.cmd.Stdout, m.cmd.Stderr = os.Stderr, os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("it has started", func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", m.cmd.Process.Pid))
		if _, serr := fmt.Sscan(string(b), &m.pid); err != nil || serr != nil {
			return fmt.Errorf("no first process: %w", errors.Join(err, serr))
		}
		out, err := m.try("", "systemctl", "is-system-running")
		if s := strings.TrimSpace(out); s != "running" && s != "degraded" {
			return fmt.Errorf("%s: %w", s, err)
		}
		return nil
	})
	m.do("", "sh", "-c", "ip link set lo up && ip link add lan type veth peer name far && ip addr add 10.253.9.1/24 dev lan && ip link set lan up && ip link set far up")
}

// off cuts its power.
func (m *machine) off() {
	m.t.Helper()
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill() // and with it, all of it
	_ = m.cmd.Wait()
	m.cmd = nil
	m.eventually("its control groups are gone", func() error {
		var left []string
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			tops, _ := filepath.Glob(pattern + m.group)
			for _, top := range tops {
				_ = exec.Command("find", top, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
				if _, err := os.Stat(top); err == nil {
					left = append(left, top)
				}
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}

func (m *machine) eventually(what string, f func() error) {
	m.t.Helper()
	(&node{t: m.t}).eventually(time.Minute, what, f)
}

// try runs a command on the machine.
func (m *machine) try(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), need.Patience*2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", fmt.Sprint(m.pid), "-m", "-p", "-n", "-u", "-i", "-C", "--"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) do(stdin string, args ...string) string {
	m.t.Helper()
	out, err := m.try(stdin, args...)
	if err != nil {
		log, _ := m.try("", "journalctl", "--no-pager", "-n", "40", "-u", "fairlead", "-u", "docker")
		m.t.Fatalf("%v: %v\n%s\n%s", args, err, out, log)
	}
	return out
}

// doSoon runs a command that can be said again until it is done: where servers were added or
// taken away there may be no leader for a moment. What rm took away before its answer was lost
// is gone when it is said again.
func (m *machine) doSoon(args ...string) {
	m.t.Helper()
	again := false
	m.eventually(strings.Join(args, " "), func() error {
		out, err := m.try("", args...)
		if again && slices.Contains(args, "rm") && strings.Contains(out, "there is no "+args[1]) {
			return nil
		}
		again = true
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// property is one of the service's, as systemd knows it.
func (m *machine) property(name string) string {
	return strings.TrimSpace(m.do("", "systemctl", "show", "--value", "-p", name, "fairlead"))
}

func (m *machine) served() {
	m.t.Helper()
	m.eventually("the app answers", func() error {
		out, err := m.try("", "curl", "-fsS", "http://unit.localhost/")
		if err == nil && !strings.HasPrefix(out, "1 ") {
			err = errors.New("another answers")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// The unit on a machine with a real systemd: installed, it serves; killed, it is
// started again and nothing else is; Docker started again, and the machine; removed
// without a trace.
func TestSystemd(t *testing.T) {
	m := newMachine(t, "machine")
	m.copyProgram()
	if out := m.do("", "/root/fairlead", "system", "install", "--domain", "localhost"); !strings.Contains(out, "--join 10.253.9.1:7420") {
		t.Errorf("it says\n%s", out)
	}
	if got := m.do("", "systemctl", "is-enabled", "fairlead"); strings.TrimSpace(got) != "enabled" {
		t.Errorf("the unit is %s", got)
	}
	m.deploy()
	m.served()
	containers := func() string { return m.do("", "sh", "-c", "docker ps -q --no-trunc | sort") }
	traefik := func() string { return m.do("", "pgrep", "-f", "^[^ ]*traefik") }
	beforeContainers, beforeTraefik, pid := containers(), traefik(), m.property("MainPID")

	m.do("", "kill", "-9", pid)
	m.eventually("systemd has started it again", func() error {
		if now := m.property("MainPID"); now == pid || now == "0" || m.property("ActiveState") != "active" {
			return fmt.Errorf("process %s, it was %s", now, pid)
		}
		_, err := m.try("", "fairlead", "status")
		return err
	})
	m.do("", "systemctl", "restart", "fairlead")
	m.served()
	// On a machine that stood still Traefik may be late for its routes, and is replaced then, rightly.
	late := strings.Contains(m.do("", "journalctl", "--no-pager", "-u", "fairlead"), "does not come back for its routes; replacing it")
	if c, p := containers(), traefik(); c != beforeContainers || p != beforeTraefik && !late {
		t.Errorf("with the server killed and restarted, containers were\n%s and are\n%s, Traefik %s and %s", beforeContainers, c, beforeTraefik, p)
	}
	m.do("", "systemctl", "restart", "docker")
	m.served()

	m.off()
	m.on()
	m.served()
	if got := m.property("ActiveState"); got != "active" {
		t.Errorf("after the machine was started again the unit is %s", got)
	}
	m.do("", "fairlead", "system", "uninstall", "--purge", "--yes")
	m.clean()
}

// copyProgram brings the program, as scp would.
func (m *machine) copyProgram() {
	m.t.Helper()
	program, err := os.ReadFile(fairlead)
	if err != nil {
		m.t.Fatal(err)
	}
	m.do(string(program), "sh", "-c", "cat >/root/fairlead && chmod +x /root/fairlead")
}

// deploy builds an image and deploys two tasks of it.
func (m *machine) deploy() {
	m.t.Helper()
	dir := m.t.TempDir()
	if err := os.Link(app, filepath.Join(dir, "app")); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY app /app\nEXPOSE 8080\nENTRYPOINT [\"/app\"]\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
	image, err := exec.Command("tar", "-C", dir, "-c", ".").Output()
	if err != nil {
		m.t.Fatal(err)
	}
	m.do(string(image), "docker", "build", "-q", "-t", "unit", "-")
	m.do(strings.ReplaceAll(web("unit", "unit", "1", 2, ""), "unit.example.com", "unit.localhost"), "sh", "-c", "cat >/root/compose.yaml")
	m.do("", "fairlead", "deploy", "-f", "/root/compose.yaml")
}

// clean checks that nothing of Fairlead is left.
func (m *machine) clean() {
	m.t.Helper()
	if out, err := m.try("", "systemctl", "cat", "fairlead"); err == nil {
		m.t.Errorf("the unit is left:\n%s", out)
	}
	left := m.do("", "sh", "-c", "ls -d /var/lib/fairlead /run/fairlead /usr/local/bin/fairlead 2>/dev/null; docker ps -aq; docker network ls -q -f type=custom; pgrep -a fairlead; pgrep -fa ^[^\\ ]*traefik; nft list tables | grep fairlead; true")
	if strings.TrimSpace(left) != "" {
		m.t.Errorf("left:\n%s", left)
	}
}

// wire connects two machines by a cable, which ends with either's power. The first keeps its
// address.
func (m *machine) wire(to *machine, address string) {
	m.t.Helper()
	const gone = "ip link del lan 2>/dev/null; true"
	m.do("", "sh", "-c", gone)
	to.do("", "sh", "-c", gone)
	m.do("", "sh", "-c", "ip link add lan type veth peer name far && ip addr add 10.253.9.1/24 dev lan && ip link set lan up")
	move := exec.Command("nsenter", "--target", fmt.Sprint(m.pid), "-n", "ip", "link", "set", "far", "netns", fmt.Sprint(to.pid))
	if out, err := move.CombinedOutput(); err != nil {
		m.t.Fatalf("move the cable's end: %v: %s", err, out)
	}
	to.do("", "sh", "-c", "ip link set far name lan && ip addr add "+address+"/24 dev lan && ip link set lan up")
}

// nodes are the cluster's, as the machine's server says it: a node, its roles and whether
// it is alive.
func (m *machine) nodes() string {
	m.t.Helper()
	return strings.Join(strings.Fields(m.do("", "sh", "-c", "fairlead node ls | awk 'NR > 1 { print $1, $2, $4 }'")), " ")
}

// The lines of docs/clusters.md on machines with a real systemd: what the server prints
// makes another machine a node, a node with a gateway, or a server; it is one again after a
// boot, and leaves no trace when it is taken away.
func TestSystemdMachinesJoin(t *testing.T) {
	first, second := newMachine(t, "n1"), newMachine(t, "n2")
	first.wire(second, "10.253.9.2")
	first.copyProgram()
	second.copyProgram()
	first.do("", "/root/fairlead", "system", "install", "--domain", "localhost")
	first.deploy()
	first.served()
	for _, as := range []struct{ kind, flag, roles string }{
		{"node", "", "agent"},
		{"node", " --gateway", "agent,gateway"},
		{"server", "", "server,agent,gateway"},
	} {
		line := strings.TrimSpace(first.do("", "fairlead", as.kind, "invite"))
		line = strings.Replace(line[strings.LastIndex(line, "\n")+1:], " sudo fairlead ", " /root/fairlead ", 1) + as.flag
		if !strings.HasPrefix(line, "echo flj_") || !strings.Contains(line, "system install --join 10.253.9.1:7420") {
			t.Fatalf("%s invite prints %q", as.kind, line)
		}
		second.do("", "sh", "-c", line)
		joined := func() error {
			if got, want := first.nodes(), "n1 yes server,agent,gateway n2 yes "+as.roles; got != want {
				return fmt.Errorf("%s, not %s", got, want)
			}
			return nil
		}
		first.eventually("n2 has joined", joined)
		first.doSoon("fairlead", "restart", "unit/web") // spreads over both
		second.eventually("n2 has a task", func() error {
			if out := second.do("", "docker", "ps", "-q"); len(strings.Fields(out)) != 1 {
				return fmt.Errorf("containers %q", out)
			}
			return nil
		})
		first.served()
		if as.roles != "agent" {
			second.served()
		}
		if as.kind == "node" { // without a server of two there is no majority
			second.off()
			second.on()
			first.wire(second, "10.253.9.2")
			first.eventually("n2 is back", joined)
			first.served()
		}
		if as.kind == "server" {
			first.doSoon("fairlead", "node", "drain", "n2")
			first.doSoon("fairlead", "server", "rm", "n2")
		}
		second.do("", "fairlead", "system", "uninstall", "--purge", "--yes")
		second.clean()
		first.doSoon("fairlead", "node", "rm", "n2")
		first.served()
	}
	first.do("", "fairlead", "system", "uninstall", "--purge", "--yes")
	first.clean()
}
