package hook_test

import (
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/hook"
)

// A hook has run when the node that it was placed on says so. Another one, which knew the
// name of its task before, could say that the backup before an upgrade is done.
func TestAThiefEndsNoHook(t *testing.T) {
	for _, state := range []cluster.TaskState{cluster.StateComplete, cluster.StateFailed, cluster.StateRunning} {
		for _, placed := range []bool{false, true} {
			s := newSim(t, cluster.HookUpgrade, aHook("backup", 0, cluster.PreUpgrade))
			s.Nodes = append(s.Nodes, cluster.Node{NodeSpec: cluster.NodeSpec{ID: "thief"}, Alive: true})
			s.apply()
			if placed {
				s.placed()
			}
			s.Statuses = []cluster.Status{{Task: s.Tasks[0].ID, Node: "thief", State: state}}
			s.apply()
			s.wantStage(cluster.StageBefore, false)
			if r := s.record().Runs[0]; r.State != cluster.RunRunning {
				t.Errorf("the thief says %s, placed elsewhere %v: the hook is %s", state, placed, r.State)
			}
			if !placed {
				s.Changes = nil // nothing waits for it: what a thief says does not keep it
				s.apply()
				if len(s.Tasks) != 0 {
					t.Errorf("the thief says %s: left are %v", state, s.Tasks)
				}
				continue
			}
			s.ends(cluster.StateComplete)
			s.wantStage(cluster.StageApply, false)
		}
	}
}

// Nobody knows the name of a hook's task ahead who does not know the salt.
func TestHookNamesAreSalted(t *testing.T) {
	names := map[cluster.TaskID]bool{}
	for _, salt := range []string{"", "a", "b"} {
		s := newSim(t, cluster.HookUpgrade, aHook("backup", 0, cluster.PreUpgrade))
		s.Salt = salt
		for _, a := range hook.Plan(s.Snapshot) {
			if c, ok := a.(hook.Create); ok {
				names[c.Task.ID] = true
			}
		}
	}
	if len(names) != 3 {
		t.Errorf("three salts give the names %v", names)
	}
}
