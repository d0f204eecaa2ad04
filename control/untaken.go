package control

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/outage"
)

// untaken are things that the store does not take as they are, mostly as they are too large.
// One keeps none of the others waiting: it is told of, and left out for a while.
type untaken struct {
	log  hclog.Logger
	now  func() time.Time
	what map[string]*refusal
}

type refusal struct {
	outage.Outage
	until time.Time
}

// untakenFor is how long it is left out: as long as a loop that fails waits at most.
const untakenFor = 5 * time.Second

// waits reports whether something is left out now.
func (u *untaken) waits(what string) bool {
	r := u.what[what]
	return r != nil && u.now().Before(r.until)
}

func (u *untaken) refused(what string, err error) {
	if u.what == nil {
		u.what = map[string]*refusal{}
	}
	if u.what[what] == nil {
		u.what[what] = &refusal{}
	}
	r := u.what[what]
	r.until = u.now().Add(untakenFor)
	r.Failed(u.log, "left out what the store does not take; the others go on", "what", what, "error", err)
}

func (u *untaken) taken(what string) {
	if r := u.what[what]; r != nil {
		r.Over(u.log, "the store takes it again", "what", what)
		delete(u.what, what)
	}
}
