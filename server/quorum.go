package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// standing is what is known of one server's store.
type standing struct {
	Name    string // "" when it never started
	Learner bool
	Answers bool
}

// mayRemove says whether a server can be taken out, and else why not: those that
// are left must be able to go on.
func mayRemove(all []standing, name, self string) error {
	var target *standing
	var left, answering []string
	var silent []string
	for i, s := range all {
		switch {
		case s.Name == name:
			target = &all[i]
		case s.Learner:
		case s.Answers:
			left, answering = append(left, s.Name), append(answering, s.Name)
		default:
			left, silent = append(left, s.Name), append(silent, s.Name)
		}
	}
	switch {
	case target == nil:
		return cluster.NotFoundf("there is no server %q; `fairlead server ls` lists them", name)
	case target.Learner:
		return nil // it has no vote to lose
	case len(left) == 0:
		return cluster.Invalidf("%s is the only server: the cluster is its data; `fairlead system uninstall --purge` there removes both", name)
	case name == self:
		return cluster.Invalidf("%s is the server that answers this: ask another one to remove it (run the command on %s)", name, left[0])
	case len(answering) < len(left)/2+1:
		return cluster.Invalidf("without %s there would be %d servers, and %s of them would answer, which is no majority: nothing could be changed any more. Bring %s back first, or remove that one instead",
			name, len(left), count(len(answering)), strings.Join(silent, " or "))
	}
	return nil
}

func count(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// learnerPatience is how long a server that joins may be silent: it blocks others.
const learnerPatience = 3 * time.Minute

// joining is a learner, and how it does.
type joining struct {
	ID      uint64
	Name    string
	Since   time.Time // its store answered last, or it was first seen
	Answers bool      // its store does now
}

// memberAction is what the leader does about a server that joins.
//
//sumtype:decl
type memberAction interface{ memberAction() }

// promote lets it vote, should it have caught up.
type promote struct{ joining }

// drop takes out one that does not come, or come back.
type drop struct{ joining }

func (promote) memberAction() {}
func (drop) memberAction()    {}

// planMembers decides about the servers that join. One that is silent for a moment is waited for.
func planMembers(learners []joining, now time.Time) (out []memberAction) {
	for _, l := range learners {
		switch {
		case !l.Answers && now.Sub(l.Since) >= learnerPatience:
			out = append(out, drop{l})
		case l.Name != "" && l.Answers: // etcd itself would let a dead one vote, and a vote that is not there stops two
			out = append(out, promote{l})
		}
	}
	return out
}
