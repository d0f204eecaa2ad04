package hook_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/hook"
)

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// sim is an app with a pending change, on which plans are carried out.
type sim struct {
	t *testing.T
	hook.Snapshot
	made []string // hooks' tasks, in the order in which they were made
}

func newSim(t *testing.T, action cluster.HookAction, hooks ...cluster.Hook) *sim {
	t.Helper()
	s := &sim{t: t}
	s.Now = start
	s.Apps = []cluster.App{{Name: "shop", Release: 1, Created: 5, Rev: 5}}
	s.Nodes = []cluster.Node{{NodeSpec: cluster.NodeSpec{ID: "n1"}, Alive: true}}
	s.Changes = []cluster.PendingChange{{App: "shop", ID: 7, Action: action, Release: 2, From: 1, Hooks: hooks, Timeout: cluster.Duration(time.Minute)}}
	return s
}

func aHook(name string, weight int, events ...cluster.HookEvent) cluster.Hook {
	return cluster.Hook{Service: cluster.ServiceName(name), Weight: weight, Events: events, Delete: []cluster.HookPolicy{cluster.BeforeHookCreation}}
}

// apply plans until nothing is left to do.
func (s *sim) apply() {
	s.t.Helper()
	for range 20 {
		acts := hook.Plan(s.Snapshot)
		if len(acts) == 0 {
			return
		}
		for _, a := range acts {
			switch a := a.(type) {
			case hook.Save:
				s.Records = []cluster.ChangeRecord{a.Record}
			case hook.Forget:
				s.Records = nil
			case hook.Create:
				s.Tasks = append(s.Tasks, a.Task)
				s.made = append(s.made, string(a.Task.Name)+" "+string(a.Task.Hook))
			case hook.Stop:
				s.Tasks[s.at(a.Task.ID)] = a.Task
			case hook.Delete:
				s.Tasks = slices.Delete(s.Tasks, s.at(a.Task.ID), s.at(a.Task.ID)+1)
			}
		}
	}
	s.t.Fatal("the plan does not come to rest")
}

func (s *sim) at(id cluster.TaskID) int {
	return slices.IndexFunc(s.Tasks, func(t cluster.Task) bool { return t.ID == id })
}

// ends gives the last task an end, and plans on.
func (s *sim) ends(state cluster.TaskState) {
	s.t.Helper()
	if len(s.Tasks) == 0 {
		s.t.Fatal("no task runs")
	}
	s.placed()
	s.Statuses = append(s.Statuses, cluster.Status{Task: s.Tasks[len(s.Tasks)-1].ID, Node: "n1", State: state, ExitCode: 3, LogTail: []string{"last words"}})
	s.apply()
}

// placed gives the last task a place, if it has none.
func (s *sim) placed() {
	id := s.Tasks[len(s.Tasks)-1].ID
	if !slices.ContainsFunc(s.Placements, func(p cluster.NodePlacement) bool { return p.Task == id }) {
		s.Placements = append(s.Placements, cluster.NodePlacement{Task: id, Node: "n1"})
	}
}

func (s *sim) record() cluster.ChangeRecord {
	s.t.Helper()
	if len(s.Records) != 1 {
		s.t.Fatalf("%d records", len(s.Records))
	}
	return s.Records[0]
}

func (s *sim) wantStage(stage cluster.HookStage, failed bool) {
	s.t.Helper()
	if r := s.record(); r.Stage != stage || r.Failed != failed {
		s.t.Fatalf("at %s, failed %v: %q; want %s, %v", r.Stage, r.Failed, r.Message, stage, failed)
	}
}

// applied is what the API does at StageApply, and rollout after it.
func (s *sim) applied() {
	s.Apps[0].Release = 2
	s.apply()
	s.wantStage(cluster.StageSettle, false)
	s.Outcomes = []cluster.ReleaseOutcome{{App: "shop", Number: 2, State: "running", Settled: true, Created: 5}}
	s.apply()
}

// A clock that was ahead, and is set back, gives no hook and no release more than its time.
func TestAClockThatWasAhead(t *testing.T) {
	const ahead = 24 * time.Hour
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.Now = start.Add(ahead)
	s.apply()
	s.Now = start
	s.apply()
	s.Now = start.Add(time.Minute)
	s.apply()
	s.wantStage(cluster.StageDone, true)

	s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PostUpgrade))
	s.Changes[0].Atomic = true
	s.Apps[0].Release = 2
	s.Now = start.Add(ahead)
	s.apply()
	s.wantStage(cluster.StageSettle, false)
	s.Now = start
	s.apply()
	s.Now = start.Add(time.Minute)
	s.apply()
	s.wantStage(cluster.StageUndo, true)
}

func TestHooksRunInOrderAroundTheChange(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade,
		aHook("b", 1, cluster.PreUpgrade), aHook("a", 1, cluster.PreUpgrade, cluster.PostUpgrade), aHook("z", -1, cluster.PreUpgrade), aHook("other", 0, cluster.PreInstall))
	s.apply()
	for range 2 {
		s.wantStage(cluster.StageBefore, false)
		s.ends(cluster.StateComplete)
	}
	s.wantStage(cluster.StageBefore, false) // the third still runs
	s.ends(cluster.StateComplete)
	s.wantStage(cluster.StageApply, false)
	s.applied()
	s.wantStage(cluster.StageAfter, false)
	s.ends(cluster.StateComplete)
	s.wantStage(cluster.StageDone, false)
	want := []string{"z pre-upgrade", "a pre-upgrade", "b pre-upgrade", "a post-upgrade"}
	if d := cmp.Diff(want, s.made); d != "" {
		t.Error(d)
	}
	// That of a from before the upgrade is gone: before-hook-creation.
	if len(s.Tasks) != 3 {
		t.Errorf("tasks %v", s.Tasks)
	}
}

func TestAFailedHookEndsTheChange(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade), aHook("b", 1, cluster.PreUpgrade))
	s.apply()
	s.ends(cluster.StateFailed)
	s.wantStage(cluster.StageDone, true)
	r := s.record()
	if !strings.Contains(r.Message, "pre-upgrade hook a failed: exit code 3") || len(s.made) != 1 || !slices.Equal(r.Runs[0].Tail, []string{"last words"}) {
		t.Errorf("%q after %v: %+v", r.Message, s.made, r.Runs)
	}
	if len(s.Tasks) != 1 {
		t.Error("its log is gone with its task")
	}

	// Behind the change, and with --atomic: the API takes it back.
	for atomic, stage := range map[bool]cluster.HookStage{false: cluster.StageDone, true: cluster.StageUndo} {
		s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PostUpgrade))
		s.Changes[0].Atomic = atomic
		s.apply()
		s.applied()
		s.ends(cluster.StateFailed)
		s.wantStage(stage, true)
	}
}

func TestPoliciesRemoveWhatIsLeft(t *testing.T) {
	for _, c := range []struct {
		policy cluster.HookPolicy
		end    cluster.TaskState
		left   int
	}{
		{cluster.HookSucceeded, cluster.StateComplete, 0},
		{cluster.HookSucceeded, cluster.StateFailed, 1},
		{cluster.HookFailed, cluster.StateComplete, 1},
		{cluster.HookFailed, cluster.StateFailed, 0},
		{cluster.BeforeHookCreation, cluster.StateComplete, 1},
	} {
		h := aHook("a", 0, cluster.PreUpgrade)
		h.Delete = []cluster.HookPolicy{c.policy}
		s := newSim(t, cluster.HookUpgrade, h)
		s.apply()
		s.ends(c.end)
		if len(s.Tasks) != c.left {
			t.Errorf("%s, ended as %s: %d tasks are left, want %d", c.policy, c.end, len(s.Tasks), c.left)
		}
	}
}

// Without a policy for its next run, old tasks do not pile up either.
func TestEndedTasksDoNotPileUp(t *testing.T) {
	h := aHook("a", 0, cluster.PreUpgrade)
	h.Delete = []cluster.HookPolicy{cluster.HookFailed}
	s := newSim(t, cluster.HookUpgrade, h)
	for n := range 8 {
		s.Changes[0].ID = int64(10 + n)
		s.apply()
		s.ends(cluster.StateComplete)
	}
	if n := len(s.Tasks); n == 0 || n > 4 {
		t.Errorf("%d tasks are left", n)
	}
}

func TestAHookThatNeverEndsFails(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.apply()
	if w := hook.Wake(s.Snapshot); w != time.Minute {
		t.Errorf("it wakes in %s", w)
	}
	s.Now = s.Now.Add(59 * time.Second)
	s.apply()
	s.wantStage(cluster.StageBefore, false)
	s.Now = s.Now.Add(time.Second)
	s.apply()
	s.wantStage(cluster.StageDone, true)
	if len(s.Tasks) != 0 { // it was placed nowhere
		t.Errorf("left: %v", s.Tasks)
	}
}

func TestOneThatIsOvertakenIsStopped(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade, cluster.PreRollback))
	s.apply()
	old := s.Tasks[0]
	s.Placements = []cluster.NodePlacement{{Task: old.ID, Node: "n1"}}
	s.Statuses = []cluster.Status{{Task: old.ID, Node: "n1", State: cluster.StateRunning}}
	s.Changes[0].ID, s.Changes[0].Action, s.Changes[0].Release = 8, cluster.HookRollback, 3
	s.apply()
	if len(s.made) != 1 || s.Tasks[0].Desire != cluster.DesireStop {
		t.Fatalf("two run at a time: %v, the first is to %s", s.made, s.Tasks[0].Desire)
	}
	s.Statuses[0].State = cluster.StateStopped
	s.apply()
	if len(s.made) != 2 || len(s.Tasks) != 1 || s.Tasks[0].ID == old.ID {
		t.Errorf("made %v; there are %v", s.made, s.Tasks)
	}
}

// One that is called off while its hooks run ends, and nothing of it is made; behind its
// hooks it is made all the same.
func TestCalledOff(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.apply()
	s.Placements = []cluster.NodePlacement{{Task: s.Tasks[0].ID, Node: "n1"}}
	s.Statuses = []cluster.Status{{Task: s.Tasks[0].ID, Node: "n1", State: cluster.StateRunning}}
	s.Changes[0].CalledOff = "called off by ann"
	s.apply()
	s.wantStage(cluster.StageDone, true)
	if r := s.record(); r.Message != "called off by ann" || r.Runs[0].State != cluster.RunFailed || s.Tasks[0].Desire != cluster.DesireStop {
		t.Errorf("%+v; its task is to %s", r, s.Tasks[0].Desire)
	}

	s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.apply()
	s.ends(cluster.StateComplete)
	s.wantStage(cluster.StageApply, false)
	s.Changes[0].CalledOff = "called off by ann"
	s.apply()
	s.wantStage(cluster.StageApply, false)
}

// A change that is withdrawn leaves nothing that runs, and an app that is gone nothing at all.
func TestNothingIsLeft(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.apply()
	s.Changes = nil
	s.apply()
	s.wantStage(cluster.StageDone, true)
	if len(s.Tasks) != 0 {
		t.Errorf("left: %v", s.Tasks)
	}

	s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.apply()
	s.ends(cluster.StateComplete)
	s.Apps, s.Changes = nil, nil
	s.apply()
	if len(s.Tasks) != 0 || len(s.Records) != 0 {
		t.Errorf("left: %v, %v", s.Tasks, s.Records)
	}
}

func TestARemoval(t *testing.T) {
	for keep, end := range map[bool]cluster.HookStage{false: cluster.StageFinish, true: cluster.StageDone} {
		s := newSim(t, cluster.HookDelete, aHook("a", 0, cluster.PreDelete, cluster.PostDelete))
		s.Changes[0].KeepHistory, s.Changes[0].Release = keep, 1
		s.apply()
		s.ends(cluster.StateComplete)
		s.wantStage(cluster.StageApply, false)
		s.Apps[0].Uninstalled = true
		s.Rollouts = []cluster.Rollout{{ServiceID: cluster.ServiceID{App: "shop", Name: "web"}}}
		s.apply()
		s.wantStage(cluster.StageSettle, false) // a service is still there
		s.Rollouts = nil
		s.apply()
		s.wantStage(cluster.StageAfter, false)
		s.ends(cluster.StateComplete)
		s.wantStage(end, false)
	}
}

func TestWhatCannotBeMadeAnyMore(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade)
	s.apply()
	s.wantStage(cluster.StageApply, false)
	if due := hook.Due(s.Snapshot); len(due) != 1 {
		t.Errorf("due: %v", due)
	}
	s.Changes[0].Refused = "the route is taken"
	s.apply()
	s.wantStage(cluster.StageDone, true)
	if due := hook.Due(s.Snapshot); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
}

// A change that the API refuses ends, atomic or not: what has touched nothing at once, the
// rest by being taken back, also where that is refused in its turn.
func TestARefusedChangeEnds(t *testing.T) {
	for _, tc := range []struct {
		action cluster.HookAction
		atomic bool
		begun  bool
		stage  cluster.HookStage
	}{
		{cluster.HookUpgrade, false, false, cluster.StageDone},
		{cluster.HookUpgrade, true, false, cluster.StageDone},
		{cluster.HookRollback, true, false, cluster.StageDone},
		{cluster.HookDelete, false, false, cluster.StageDone},
		{cluster.HookInstall, false, false, cluster.StageDone},
		{cluster.HookInstall, true, false, cluster.StageUndo}, // the app's name is taken
		{cluster.HookUpgrade, true, true, cluster.StageUndo},
		{cluster.HookUpgrade, false, true, cluster.StageDone},
	} {
		s := newSim(t, tc.action)
		s.Changes[0].Atomic = tc.atomic
		s.apply()
		s.wantStage(cluster.StageApply, false)
		s.Changes[0].Refused, s.Changes[0].Begun = "the route is taken", tc.begun
		s.apply()
		s.wantStage(tc.stage, true)
		undo := tc.stage == cluster.StageUndo
		if due := hook.Due(s.Snapshot); (len(due) == 1) != undo {
			t.Errorf("%+v: due: %v", tc, due)
		}
		if !undo {
			continue
		}
		s.Changes[0].Stays = "release 1 is gone"
		s.apply()
		s.wantStage(cluster.StageDone, true)
		if r := s.record(); r.Message != "the route is taken; it cannot be taken back: release 1 is gone" {
			t.Errorf("%+v: it says %q", tc, r.Message)
		}
		if due := hook.Due(s.Snapshot); len(due) != 0 {
			t.Errorf("%+v: due: %v", tc, due)
		}
	}

	s := newSim(t, cluster.HookDelete)
	s.apply()
	s.Apps[0].Uninstalled = true
	s.apply()
	s.wantStage(cluster.StageFinish, false)
	s.Changes[0].Refused = "no"
	if due := hook.Due(s.Snapshot); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
	s.apply()
	s.wantStage(cluster.StageDone, true)
}

func TestTheOrderOfTheInputDoesNotMatter(t *testing.T) {
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade), aHook("b", 0, cluster.PreUpgrade))
	s.Apps = append(s.Apps, cluster.App{Name: "other", Release: 1})
	s.Changes = append(s.Changes, cluster.PendingChange{App: "other", ID: 9, Action: cluster.HookInstall, Release: 1, Hooks: s.Changes[0].Hooks})
	want := hook.Plan(s.Snapshot)
	slices.Reverse(s.Apps)
	slices.Reverse(s.Changes)
	slices.Reverse(s.Changes[0].Hooks)
	if d := cmp.Diff(want, hook.Plan(s.Snapshot)); d != "" {
		t.Error(d)
	}
}

// What came of making the app's release is kept as long as that is the app's, whatever
// takes the place of the change that made it.
func TestWhatFailedIsKept(t *testing.T) {
	next := func(s *sim, action cluster.HookAction, release int, hooks ...cluster.Hook) {
		t.Helper()
		s.Changes[0] = cluster.PendingChange{App: "shop", ID: s.Changes[0].ID + 1, Action: action, Release: release, Hooks: hooks}
		s.apply()
	}
	want := func(s *sim, after, why string) {
		t.Helper()
		if m := s.record().Made(2); m.Failed != (why != "") || !strings.Contains(m.Message, why) {
			t.Errorf("after %s release 2 is kept as %+v", after, m)
		}
	}
	const why = "post-upgrade hook a failed"
	s := newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PostUpgrade))
	s.apply()
	s.applied()
	want(s, "its services", "")
	s.ends(cluster.StateFailed)
	want(s, "its hook", why)
	next(s, cluster.HookTest, 2, aHook("t", 0, cluster.TestEvent))
	want(s, "the beginning of tests", why)
	s.ends(cluster.StateFailed)
	want(s, "tests", why)
	next(s, cluster.HookDelete, 2, aHook("d", 0, cluster.PreDelete))
	s.ends(cluster.StateFailed)
	want(s, "a removal that was refused", why)
	next(s, cluster.HookUpgrade, 3, aHook("b", 0, cluster.PreUpgrade))
	s.ends(cluster.StateFailed)
	want(s, "an upgrade that was refused", why)
	next(s, cluster.HookUpgrade, 4)
	s.Apps[0].Release = 4
	s.apply()
	next(s, cluster.HookTest, 4)
	if s.record().Earlier != nil {
		t.Errorf("of release 4 it is kept that %+v", *s.record().Earlier)
	}

	// One whose hooks never ran to their end.
	s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PostUpgrade))
	s.apply()
	s.applied()
	next(s, cluster.HookDelete, 2, aHook("d", 0, cluster.PreDelete))
	want(s, "a removal", "before its hooks had run")

	// Nothing is held against what had no hooks behind it, and what another app of the same name was.
	s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PreUpgrade))
	s.apply()
	s.ends(cluster.StateComplete)
	s.applied()
	next(s, cluster.HookTest, 2)
	want(s, "tests", "")
	s = newSim(t, cluster.HookUpgrade, aHook("a", 0, cluster.PostUpgrade))
	s.apply()
	s.applied()
	s.ends(cluster.StateFailed)
	s.Apps[0].Created = 9
	next(s, cluster.HookTest, 2)
	want(s, "it was made anew", "")
}
