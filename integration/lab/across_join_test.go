package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/integration/need"
)

// A task with a local volume whose node has lost its power is started nowhere else: it
// says why it waits, and runs with its data when the node is back. Given up, it starts
// elsewhere with nothing. n3 is no node of the cluster afterwards.
func volume(b *bed) {
	b.cluster("node", "pause", "n1") // no constraint: the volume alone holds it
	b.cluster("node", "pause", "n2")
	keep := "name: keep\nservices:\n  db:\n" + image + "    volumes: [\"data:/data\"]\n" + route("keep") + "volumes: {data: {}}\n"
	b.run(keep)
	b.cluster("node", "activate", "n1")
	b.cluster("node", "activate", "n2")
	task := b.readySoon("keep", 1)[0]
	if task.Node != "n3" {
		b.t.Fatalf("%+v", task)
	}
	b.cluster("cp", b.file("note", "kept"), "keep/db:/data/note")
	says := func(want string) {
		b.t.Helper()
		b.eventually(time.Minute, "its data is "+want, func() error {
			got, err := b.ask("keep", "/file", "name", "/data/note")
			if (err == nil) != (want != "") || got != want {
				return fmt.Errorf("%q, %w", got, err)
			}
			return nil
		})
	}
	says("kept")

	b.cluster("scale", "keep/db=0")
	b.readySoon("keep", 0)
	b.cluster("scale", "keep/db=1")
	if again := b.readySoon("keep", 1)[0]; again.Node != "n3" {
		b.t.Errorf("scaled to none and back, it is %+v", again)
	}
	says("kept")
	b.cluster("rm", "keep", "-y")
	b.run(keep)
	if task = b.readySoon("keep", 1)[0]; task.Node != "n3" {
		b.t.Errorf("removed and deployed again, it is %+v", task)
	}
	says("kept")

	b.do("kill", "n3")
	b.spread(3, "n3") // of demo: by now n3 counts as lost
	for range 3 {
		waits(b, task.ID)
		time.Sleep(time.Second)
	}
	b.do("start", "n3")
	b.aliveSoon("n1 n2 n3")
	if again := b.readySoon("keep", 1)[0]; again.ID != task.ID || again.Node != "n3" {
		b.t.Errorf("it was %+v and is %+v", task, again)
	}
	says("kept")

	b.do("kill", "n3")
	b.aliveSoon("n1 n2")
	b.cluster("node", "rm", "n3", "--lose-volumes")
	if moved := b.readySoon("keep", 1)[0]; moved.Node == "n3" || moved.ID == task.ID {
		b.t.Errorf("given up, it is %+v", moved)
	}
	b.eventually(time.Minute, "it has no data", func() error {
		if _, err := b.ask("keep", "/"); err != nil {
			return err
		}
		if got, err := b.ask("keep", "/file", "name", "/data/note"); err == nil {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	b.cluster("rm", "keep", "-y")
}

// waits checks that keep's one task is where its volume is and says so, and that
// nothing of it is elsewhere.
func waits(b *bed, id string) {
	b.t.Helper()
	const says = "volume on lost node"
	tasks := b.ps("keep")
	if len(tasks) != 1 || tasks[0].ID != id || tasks[0].Node != "n3" || tasks[0].Ready || !strings.Contains(tasks[0].Reason, says) {
		b.t.Errorf("without n3: %+v", tasks)
	}
	for _, args := range [][]string{{"ps", "keep"}, {"explain", "keep/db"}, {"explain", "keep/db.1"}} {
		if out := b.cluster(args...); !strings.Contains(out, says) || !strings.Contains(out, "node rm n3 --lose-volumes") {
			b.t.Errorf("%v does not say why, and what to do:\n%s", args, out)
		}
	}
	for _, n := range []string{"n1", "n2"} {
		if got := b.containers(n, "keep", true); len(got) > 0 {
			b.t.Errorf("it was started on %s: %v", n, got)
		}
		if got := b.do("exec", n, "--", "docker", "volume", "ls", "-q"); strings.Contains(got, "keep_data") {
			b.t.Errorf("%s has a volume of it:\n%s", n, got)
		}
	}
}

// byHand runs a program on a node until it ends or the test does; out is what it says.
func (b *bed) byHand(node, stdin string, args ...string) (out string, ended <-chan error) {
	b.t.Helper()
	out = b.disk(node, "by-hand-"+fmt.Sprint(need.Port(b.t))+".log")
	log, err := os.Create(out)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	cmd := b.command(context.Background(), append([]string{"exec", node, "--"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), log, log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return out, done
}

// unit are a node's program and arguments, as the lab runs it.
func (b *bed) unit(node string) []string {
	b.t.Helper()
	var pid int
	b.eventually(20*time.Second, "fairlead runs on "+node, func() error {
		if pid = find("\x00--data-dir\x00" + b.disk(node, "fairlead") + "\x00"); pid == 0 {
			return errors.New("no process has its data directory")
		}
		return nil
	})
	return strings.Split(strings.TrimSuffix(b.read(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"), "\x00")
}

// watchLines collects the command lines of this machine's processes, nodes' among
// them, that have one of the parts, until stop is called.
func watchLines(parts ...string) (stop func() map[string]int) {
	seen := map[string]int{}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
			}
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, f := range files {
				line, _ := os.ReadFile(f)
				for _, p := range parts {
					if strings.Contains(string(line), p) {
						seen[p]++
					}
				}
			}
		}
	})
	return func() map[string]int {
		close(quit)
		wg.Wait()
		return seen
	}
}

// n3 joins anew. The token is in no command line, while it joins and afterwards; one
// that has ended, was used up or taken back lets nobody in.
func joins(b *bed, short token) {
	b.t.Helper()
	b.do("start", "n3")
	b.eventually(time.Minute, "the removed node says that it is none any more", func() error {
		if text := b.read(b.disk("n3", "fairlead.log")); !strings.Contains(text, "not of the cluster any more") {
			return errors.New("its log does not say so")
		}
		return nil
	})
	args := b.unit("n3")
	b.do("kill", "n3/fairlead")
	if err := os.RemoveAll(b.disk("n3", "fairlead")); err != nil {
		b.t.Fatal(err)
	}
	refused := func(text, why string, more ...string) {
		b.t.Helper()
		log, ended := b.byHand("n3", text+"\n", append(slices.Clone(args), more...)...)
		select {
		case err := <-ended:
			if got := b.read(log); err == nil || !strings.Contains(got, "the join token") {
				b.t.Errorf("a token that %s: %v\n%s", why, err, got)
			}
		case <-time.After(time.Minute):
			b.t.Fatalf("a token that %s is not refused:\n%s", why, b.read(log))
		}
		if got := b.alive(); strings.Contains(got, "n4") || len(more) == 0 && got != "n1 n2" {
			b.t.Errorf("a token that %s let it in: alive are %s", why, got)
		}
	}
	time.Sleep(time.Until(short.until))
	refused(short.text, "has ended")
	back := b.invited()
	b.cluster("token", "rm", back.name)
	refused(back.text, "was taken back")

	moved := takesAddresses(b)
	good := b.invited()
	secret, _, _ := strings.Cut(good.text, ".")
	stop := watchLines(secret, b.disk("n3", "fairlead"))
	log, ended := b.byHand("n3", good.text+"\n", args...)
	b.aliveSoon("n1 n2 n3")
	time.Sleep(time.Second) // it goes on as a node
	switch seen := stop(); {
	case seen[secret] > 0:
		b.t.Errorf("the token was in %d command lines", seen[secret])
	case seen[b.disk("n3", "fairlead")] == 0:
		b.t.Error("the program that joins was not seen: this shows nothing")
	}
	if strings.Contains(b.read(log), secret) {
		b.t.Error("the token is in the log")
	}
	b.do("exec", "n3", "--", "pkill", "-TERM", "-x", "-f", strings.Join(args, " "))
	if err := <-ended; err != nil {
		b.t.Errorf("the agent that joined ends with %v:\n%s", err, b.read(log))
	}
	b.do("start", "n3/fairlead")
	b.aliveSoon("n1 n2 n3")
	b.do("status", "--wait", "1m")
	moved()
	refused(good.text, "was used up", "--data-dir", b.disk("n3", "other"), "--run-dir", "/run/other", "--node", "n4")
}

// takesAddresses has another node take the addresses that n3, which is no node now, has a
// network of demo in. What it returns looks, once n3 is one again, that demo's tasks there are
// reached.
func takesAddresses(b *bed) (moved func()) {
	b.t.Helper()
	subnet := func(node, network string) netip.Prefix {
		b.t.Helper()
		out := b.do("exec", node, "--", "docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", network)
		p, err := netip.ParsePrefix(strings.TrimSpace(out))
		if err != nil {
			b.t.Fatalf("%s on %s: %v", network, node, err)
		}
		return p
	}
	old := subnet("n3", "demo_default")
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprint("net", i))
	}
	b.run("name: many\nservices:\n  web:\n" + image + at("n1") + "    networks: [" + strings.Join(names, ", ") + "]\n" +
		"networks: {" + strings.Join(names, ": {}, ") + ": {}}\n")
	if !slices.ContainsFunc(names, func(n string) bool { return subnet("n1", "many_"+n).Overlaps(old) }) {
		b.t.Fatalf("n1 has nothing of %s: this shows nothing", old)
	}
	return func() {
		b.t.Helper()
		b.cluster("restart", "demo/web") // one goes to n3
		b.served(3)
		if here := b.tasksOf("web")["n3"]; here != 1 {
			b.t.Errorf("n3 has %d of demo's tasks", here)
		}
		if now := subnet("n3", "demo_default"); now.Overlaps(old) {
			b.t.Errorf("n3 still has %s, and n1 has it", now)
		}
		b.cluster("rm", "many", "-y")
	}
}

// token is a join token, and when it has ended for certain.
type token struct {
	name, text string
	until      time.Time
}

// invited makes a join token; flags are of `node invite`.
func (b *bed) invited(flags ...string) token {
	b.t.Helper()
	made := decode[struct {
		Name, Value string
		Expires     time.Time
	}](b, b.fairlead(b.t.Context(), append([]string{"node", "invite", "-o", "json"}, flags...)...))
	return token{name: made.Name, text: made.Value, until: made.Expires.Add(time.Second)}
}
