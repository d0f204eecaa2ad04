package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func TestAgentStoreWritesItsStatusesOverWhatIsThere(t *testing.T) {
	st := store.NewMemory()
	own := store.Guarded(st, store.WriterAgent)
	a := NewAgentStore(own, hclog.NewNullLogger())
	put := func(a *AgentStore, states ...cluster.TaskState) error {
		var ss []cluster.Status
		for i, s := range states {
			ss = append(ss, cluster.Status{Task: cluster.TaskID(string(rune('a' + i))), State: s})
		}
		return a.WriteStatus(t.Context(), "n1", ss, nil)
	}
	many := make([]cluster.TaskState, store.MaxOps+5)
	for i := range many {
		many[i] = cluster.StateRunning
	}
	if err := put(a, many...); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Statuses(t.Context(), "n1"); err != nil || len(got) != len(many) {
		t.Fatalf("%d statuses, %v", len(got), err)
	}
	// Another agent of the same name takes over; the first one's next write is refused once, then reads again.
	b := NewAgentStore(own, hclog.NewNullLogger())
	if err := put(b, cluster.StateFailed); err != nil {
		t.Fatal(err)
	}
	if err := put(a, cluster.StateStopped); cluster.KindOf(err) != cluster.KindConflict {
		t.Errorf("a write over what it had not seen: %v", err)
	}
	if err := put(a, cluster.StateStopped); err != nil {
		t.Errorf("after it has read again: %v", err)
	}
	if err := a.WriteStatus(t.Context(), "n1", nil, []cluster.TaskID{"a", "never"}); err != nil {
		t.Error(err)
	}
	if got, _ := a.Statuses(t.Context(), "n1"); len(got) != len(many)-1 {
		t.Errorf("%d statuses are left", len(got))
	}
}

func TestAgentStoreFollowsItsOwnNodeOnly(t *testing.T) {
	st := store.NewMemory()
	a := NewAgentStore(st, hclog.NewNullLogger())
	write := func(node cluster.NodeID, task cluster.TaskID) {
		op, err := store.PutJSON(store.PlacementKey(node, task), cluster.NodePlacement{Task: task, Node: node})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	write("n1", "a")
	write("n2", "b")
	seen := make(chan int, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- a.Follow(ctx, "n1", func(p []cluster.NodePlacement, _ []cluster.Sealed) { seen <- len(p) })
	}()
	if n := <-seen; n != 1 {
		t.Errorf("%d placements", n)
	}
	write("n1", "c")
	for n := range seen {
		if n == 2 {
			break
		}
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("it ended without the context's cause")
	}
}

// A node stays alive over a quick restart of its agent, and no longer than its
// time without one.
func TestAgentStoreLeavesItsHeartbeatForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		alive := func() bool {
			_, err := st.Get(t.Context(), store.AliveKey("n1"))
			return err == nil
		}
		deleted := false
		ctx, stopWatch := context.WithCancel(t.Context())
		defer stopWatch()
		go func() {
			for b := range st.Watch(ctx, store.AliveKey("n1"), 0) {
				for _, e := range b.Events {
					deleted = deleted || e.Deleted
				}
			}
		}()
		beat := func() (stop func()) {
			a := NewAgentStore(store.Guarded(st, store.WriterAgent), hclog.NewNullLogger())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = a.Beat(ctx, "n1", 10*time.Second)
			}()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		stop := beat()
		first, _ := st.LeaseOf(t.Context(), store.AliveKey("n1"))
		stop()
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if !alive() {
			t.Fatal("the heartbeat ends with the agent: a restart withdraws its endpoints")
		}
		stop = beat()
		if now, _ := st.LeaseOf(t.Context(), store.AliveKey("n1")); now == 0 || now == first {
			t.Errorf("the next agent did not take the key over: lease %d, then %d", first, now)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !alive() || deleted {
			t.Error("the first agent's lease ended the second one's heartbeat")
		}
		stop()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if alive() {
			t.Error("the heartbeat stays for ever after the agent's end")
		}
	})
}

// A large status holds up no other, and gets there itself.
func TestLargeStatusesAreSplitAndCut(t *testing.T) {
	st := store.NewMemory()
	a := NewAgentStore(store.Guarded(st, store.WriterAgent), hclog.NewNullLogger())
	line := strings.Repeat("x", 50<<10)
	var ss []cluster.Status
	for i := range 60 { // 3 MB, in fewer than MaxOps
		ss = append(ss, cluster.Status{Task: cluster.TaskID(fmt.Sprint("t", i)), State: cluster.StateFailed, LogTail: []string{line}})
	}
	ss = append(ss, cluster.Status{Task: "huge", State: cluster.StateFailed, Reason: line, LogTail: slices.Repeat([]string{line}, 40)})
	if err := a.WriteStatus(t.Context(), "n1", ss, nil); err != nil {
		t.Fatal(err)
	}
	got, err := NewAgentStore(st, hclog.NewNullLogger()).Statuses(t.Context(), "n1")
	if err != nil || len(got) != len(ss) {
		t.Fatalf("%d statuses, %v", len(got), err)
	}
	for _, s := range got {
		if huge := s.Task == "huge"; s.State != cluster.StateFailed || huge != (len(s.LogTail) == 0) || huge && (len(s.Reason) < 1000 || len(s.Reason) > 1100) {
			t.Errorf("%s: %s, %d lines, reason of %d", s.Task, s.State, len(s.LogTail), len(s.Reason))
		}
	}
}
