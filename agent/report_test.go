package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// A crash and the start after it may be one look apart: what the crash said must
// still be there in the status of the container that runs again.
func TestReportKeepsWhyItWasStartedAgain(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := Desired{Placement: &cluster.NodePlacement{Task: "shop_web.1.a", Node: "n1", Desire: cluster.DesireRun}, Synced: true}
	see := func(prev cluster.Status, state string, exit, restarts int, gone bool) cluster.Status {
		c := &docker.Container{ID: "c1", State: state, ExitCode: exit}
		o := Observed{Engine: true, Container: c, Memory: Memory{Restarts: restarts}, Gone: gone, Health: HealthStarting}
		return Report(d, o, nil, prev, at)
	}
	crashed := cluster.Status{LogTail: []string{"no database"}} // as the task hands over what it read
	crashed = see(crashed, docker.Exited, 3, 0, false)
	for _, gone := range []bool{false, true} {
		again := see(crashed, docker.Running, 0, 1, gone)
		if again.State != cluster.StateRunning || again.ExitCode != 3 || !slices.Equal(again.LogTail, []string{"no database"}) {
			t.Errorf("gone %v: %s with exit code %d and %q", gone, again.State, again.ExitCode, again.LogTail)
		}
	}
	if first := see(cluster.Status{}, docker.Running, 0, 0, false); first.ExitCode != 0 || first.LogTail != nil {
		t.Errorf("the first run has exit code %d and %q", first.ExitCode, first.LogTail)
	}
}

// What ends for good is not said to start again.
func TestReportOfAnEnd(t *testing.T) {
	d := Desired{Placement: &cluster.NodePlacement{Task: "shop_web.1.a", Node: "n1", Desire: cluster.DesireRun}, Synced: true}
	o := Observed{Engine: true, Container: &docker.Container{ID: "c1", State: docker.Exited, ExitCode: 3}}
	for next, want := range map[Step]string{
		End{State: cluster.StateFailed, ExitCode: 3}: "exited with code 3",
		Start{Again: true}:                           "exited with code 3; starting again",
		End{State: cluster.StateComplete}:            cluster.ProcessEnded,
	} {
		if got := Report(d, o, next, cluster.Status{}, time.Time{}).Reason; got != want {
			t.Errorf("before %T: %q, not %q", next, got, want)
		}
	}
}
