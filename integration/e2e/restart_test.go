package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
)

// An orderly stop of the server and a start cost no request: its tasks stay
// endpoints meanwhile.
func TestServerRestartedOrderly(t *testing.T) {
	n := start(t)
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "again", "1", 3, "")))
	before := n.ready("again")
	l := n.startLoad(load.EveryKind("http://again.example.com/"))
	for range 3 {
		n.stop(syscall.SIGTERM)
		time.Sleep(time.Second) // requests go on while the server is away
		n.up()
		n.eventually(30*time.Second, "the tasks are ready again", func() error {
			if after := n.ready("again"); fmt.Sprint(after) != fmt.Sprint(before) {
				return fmt.Errorf("tasks changed from %v to %v", before, after)
			}
			return nil
		})
	}
	if body, err := n.answer("http://again.example.com/"); err != nil {
		t.Errorf("it answers %q, %v", body, err)
	}
	l.WantNone(t, "server stopped and started")
	n.stop(syscall.SIGTERM)
	noErrors(t, n)
}

// noErrors holds that the server had nothing to complain about.
func noErrors(t *testing.T, n *node) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "[ERROR]") {
			t.Errorf("the server was stopped in order and logs: %s", line)
		}
	}
}

// A cluster of one is removed while it runs, with all that it made; none of its data is left.
func TestARunningServerIsUninstalled(t *testing.T) {
	n := start(t)
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "gone", "1", 1, "")))
	ended := make(chan error, 1)
	go func() { ended <- n.cmd.Wait() }()
	if out, err := n.try("system", "uninstall", "--purge", "--yes", "--data-dir", n.data, "--run-dir", n.run, "--docker", n.engine); err != nil {
		t.Fatalf("uninstall: %v\n%s", err, out)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	n.mu.Lock()
	n.cmd = nil
	n.mu.Unlock()
	if _, err := os.Stat(n.data); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", n.data, err)
	}
	if out, err := n.docker("ps", "-aq", "--filter", "label=io.fairlead.app=gone").Output(); err != nil || len(out) > 0 {
		t.Errorf("containers are left: %s, %v", out, err)
	}
}
