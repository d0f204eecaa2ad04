package embedded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// childEnv makes TestChild a server in a process of its own, with this configuration.
const childEnv = "FAIRLEAD_TEST_ETCD"

// TestChild is no test: it is the process that TestKilled kills.
func TestChild(t *testing.T) {
	raw := os.Getenv(childEnv)
	if raw == "" {
		t.Skip("run by other tests only")
	}
	srv := etcdtest.New(t)
	if err := json.Unmarshal([]byte(raw), &srv.Config); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	srv.Start(t)
	fmt.Printf("READY %s\n", time.Since(begin).Round(time.Millisecond))
	memory("ready")
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); { // until the parent goes, should it not kill
		memory(sc.Text())
	}
}

func memory(when string) {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "RssShmem") {
			fmt.Printf("MEMORY %s %s\n", when, strings.Join(strings.Fields(line), " "))
		}
	}
}

// startChild runs srv's configuration in a child process until it is killed;
// say makes it print its memory.
func startChild(t *testing.T, srv *etcdtest.Server) (kill func(), say func()) {
	t.Helper()
	raw, err := json.Marshal(srv.Config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+string(raw), "TMPDIR="+t.TempDir()) // which a killed one leaves
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if strings.HasPrefix(sc.Text(), "READY") || strings.HasPrefix(sc.Text(), "MEMORY") {
				t.Log(sc.Text())
			}
			if strings.HasPrefix(sc.Text(), "READY") {
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-ended:
		t.Fatal("the child ended before it was ready")
	case <-time.After(30 * time.Second):
		t.Fatal("the child is not ready")
	}
	kill = func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return kill, func() { _, _ = in.Write([]byte("later\n")) }
}

// What was acknowledged is there after kill -9, each time, and the next start is no slower to trust.
func TestKilled(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	client := srv.Client(t)
	acknowledged := map[string]int64{}
	for round := range 3 {
		kill, say := startChild(t, srv)
		stop := make(chan struct{})
		timer := time.AfterFunc(700*time.Millisecond, func() { close(stop) })
		written := make(chan map[string]int64, 1)
		go func() { written <- write(t.Context(), client, round, stop) }()
		<-stop
		say()
		kill() // in the middle of writes
		timer.Stop()
		maps.Copy(acknowledged, <-written)
	}
	if len(acknowledged) < 30 {
		t.Fatalf("only %d writes were acknowledged", len(acknowledged))
	}
	stop := srv.Start(t)
	defer func() { _ = stop() }()
	entries, _, err := client.List(t.Context(), "kill/")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, e := range entries {
		got[e.Key] = e.Rev
	}
	for k, rev := range acknowledged {
		if got[k] != rev {
			t.Errorf("%s was acknowledged at revision %d and is at %d", k, rev, got[k])
		}
	}
	t.Logf("%d writes acknowledged over three kills", len(acknowledged))
}

// write writes new keys until the server goes after stop is closed.
func write(ctx context.Context, st store.Store, round int, stop <-chan struct{}) map[string]int64 {
	acknowledged := map[string]int64{}
	for i := 0; ; i++ {
		k := fmt.Sprintf("kill/%d/%05d", round, i)
		rev, err := st.Commit(ctx, store.Txn{Then: []store.Op{{Key: k, Value: []byte(k)}}})
		if err == nil {
			acknowledged[k] = rev
			continue
		}
		select {
		case <-stop:
			return acknowledged
		default:
		}
	}
}
