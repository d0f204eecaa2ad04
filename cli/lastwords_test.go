package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// ended puts a task of slot 1 in app store that has ended so.
func (h *hub) ended(service cluster.ServiceName, at time.Time, o cluster.Outcome) {
	h.t.Helper()
	id := cluster.ServiceID{App: "store", Name: service}
	task := cluster.NewTaskID(id, 1, 1, int64(len(h.dump())), "")
	o.Node, o.At = "n1", at
	h.put(store.TaskKey("store", task), cluster.Task{
		ID: task, ServiceID: id, Slot: 1, Desire: cluster.DesireStop, Reason: "it was told to stop", Created: at, Outcome: &o,
	})
}

// TestPsNamesWhatEnded: where nothing runs, ps says how to see what did, and that
// says why it ended.
func TestPsNamesWhatEnded(t *testing.T) {
	h := newHub(t)
	h.deploy(front)
	if s := h.must("", "ps", "store"); s.out != "no tasks\n" {
		t.Errorf("%q", s.out)
	}
	h.ended("front", today, cluster.Outcome{State: cluster.StateFailed, ExitCode: 3, Restarts: 2})
	h.ended("front", today, cluster.Outcome{State: cluster.StateFailed, Reason: "no such image"})
	h.ended("front", today, cluster.Outcome{State: cluster.StateStopped})
	for say, args := range map[string][]string{"fairlead ps store -a": {"ps", "store"}, "fairlead ps -a": {"ps"}} {
		if s := h.must("", args...); s.out != "no tasks run; `"+say+"` shows those that ended\n" {
			t.Errorf("%q: %q", args, s.out)
		}
	}
	if s := h.must("", "ps", "store", "-o", "json"); strings.TrimSpace(s.out) != "[]" {
		t.Errorf("%q", s.out)
	}
	out := h.must("", "ps", "store", "-a").out
	for _, why := range []string{"exited with code 3", "no such image", "it was told to stop"} {
		if !strings.Contains(out, why) {
			t.Errorf("%q is not in\n%s", why, out)
		}
	}
}

// TestLogsOfWhatIsGone: where no container is left, the lines that the status of
// its task kept are printed, and standard error says so.
func TestLogsOfWhatIsGone(t *testing.T) {
	h := newHub(t)
	withFront(h)
	failed := cluster.Outcome{State: cluster.StateFailed, ExitCode: 3, Reason: "exited with code 3", LogTail: []string{"no database", "giving up"}}
	h.ended("pump", today.Add(-time.Hour), cluster.Outcome{State: cluster.StateComplete, LogTail: []string{"all done"}})
	h.ended("front", today.Add(-time.Hour), failed) // its successor runs
	gone := "the container of store/pump.1 is gone (complete); these are its last lines:\n"
	for _, args := range [][]string{{"logs", "store/pump"}, {"logs", "store/pump.1"}, {"logs", "store"}, {"logs", "-t", "store/pump"}} {
		if s := h.must("", args...); s.out != "store_pump.1 | all done\n" || s.err != gone {
			t.Errorf("%q: %q, %q", args, s.out, s.err)
		}
	}
	for _, args := range [][]string{{"logs", "store/front"}, {"logs", "--since", "1m", "store/pump"}, {"logs", "-n", "0", "store/pump"}} {
		if s := h.must("", args...); s.out != "" || !strings.Contains(s.err, "`fairlead ps store -a`") {
			t.Errorf("%q: %q, %q", args, s.out, s.err)
		}
	}
	h.ended("pump", today, failed)
	if s := h.must("", "logs", "store/pump", "-n", "1"); s.out != "store_pump.1 | giving up\n" || !strings.Contains(s.err, "(failed: exited with code 3)") {
		t.Errorf("%q, %q", s.out, s.err)
	}
	var l cluster.LogLine
	if s := h.must("", "logs", "store/pump", "-o", "json", "-n", "1"); json.Unmarshal([]byte(s.out), &l) != nil || l.Text != "giving up" {
		t.Errorf("%q", s.out)
	}
}
