package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// smallDisk puts the data directory of a node that is not started yet on a
// filesystem of its own, of so many bytes, and returns where it is mounted.
func (n *node) smallDisk(size int) string {
	n.t.Helper()
	disk := filepath.Join(n.dir, "disk")
	err := errors.Join(os.Mkdir(disk, 0o755), syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	if err != nil {
		n.t.Fatalf("mount a small disk: %v", err)
	}
	n.t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			n.t.Error(err)
		}
		os.RemoveAll(n.dir) // the mount was in its way before
	})
	data := filepath.Join(disk, "data")
	n.args[slices.Index(n.args, n.data)] = data
	n.data = data
	return disk
}

// fill writes a file until there is no room.
func fill(t *testing.T, dir, name string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// ended waits until the server has ended by itself.
func (n *node) ended(limit time.Duration) {
	n.t.Helper()
	n.mu.Lock()
	cmd := n.cmd
	n.mu.Unlock()
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(need.Patience * limit):
		n.t.Fatalf("the server has not ended by itself after %s", limit)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = nil
	n.log.Close()
}

// setSecret sets a secret of so many bytes.
func (n *node) setSecret(name string, size int) (string, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), need.Patience*time.Minute)
	defer cancel()
	cmd := n.command(ctx, "secret", "set", name)
	cmd.Stdin = strings.NewReader(strings.Repeat("x", size))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// advice is what the server says as it ends because of a full disk.
const advice = "is full: make room"

// startedOnFullDisk starts the server: it says why it ends, or serves, where etcd
// finds some room in files of its own.
func (n *node) startedOnFullDisk(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), need.Patience*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := n.inside(ctx, fairlead, n.args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asked := make(chan bool, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := n.try("system", "status", "--run-dir", n.run); err == nil {
				asked <- true
				cancel()
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		asked <- false
	}()
	err := cmd.Wait()
	cancel()
	serves := <-asked
	end := out.String()[max(0, out.Len()-2000):]
	t.Logf("started on a full disk: serves %v, %v", serves, err)
	if !serves && !strings.Contains(end, advice) {
		t.Errorf("started on the full disk: %v\n%s", err, end)
	}
}

// A disk that is full: what was acknowledged is there when there is room again,
// and requests never notice.
func TestFullDisk(t *testing.T) {
	needDocker(t)
	n := newNode(t)
	disk := n.smallDisk(224 << 20)
	t.Cleanup(n.remove)
	n.up()
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "full", "1", 2, "")))
	n.serves("http://full.example.com/")
	before := n.ready("full")
	l := n.startLoad(load.EveryKind("http://full.example.com/"))

	fill(t, disk, "filler")
	var acknowledged []string
	var said string
	for i := range 300 {
		name := fmt.Sprintf("s%03d", i)
		out, err := n.setSecret("full/"+name, 200<<10)
		if err != nil {
			said = out
			break
		}
		acknowledged = append(acknowledged, name)
	}
	t.Logf("%d changes acknowledged, then: %s", len(acknowledged), said)
	n.ended(time.Minute)
	log, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if end := string(log[max(0, len(log)-2000):]); err != nil || !strings.Contains(end, advice) {
		t.Errorf("its log does not say why it ended and what to do: %v\n%s", err, end)
	}
	for round := range 2 { // as systemd does
		fill(t, disk, fmt.Sprintf("filler-%d", round))
		n.startedOnFullDisk(t)
	}

	for _, path := range []string{"filler", "filler-0", "filler-1"} {
		if err := os.Remove(filepath.Join(disk, path)); err != nil {
			t.Fatal(err)
		}
	}
	n.up()
	have := map[string]bool{}
	for _, s := range get[[]struct{ App, Name string }](n, "secret", "ls", "full") {
		have[s.Name] = true
	}
	for _, name := range acknowledged {
		if !have[name] {
			t.Errorf("secret %s was acknowledged and is lost", name)
		}
	}
	if after := n.ready("full"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("tasks changed from %v to %v", before, after)
	}
	n.do("scale", "full/web=3")
	l.WantNone(t, "while the disk was full")
}
