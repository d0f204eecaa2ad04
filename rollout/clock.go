package rollout

import "time"

// rewind makes times that lie ahead those of now, and writes them: a leader whose clock was
// ahead wrote them, or the clock was set back since, and what is counted from them would be
// held up by as much. What the plan has moved already has its turn in the next.
func (v *service) rewind() {
	for _, t := range v.tasks[v.spec.ServiceID] {
		if t.moved {
			continue
		}
		ahead := v.back(&t.Since)
		ahead = v.back(&t.Created) || ahead
		if t.Outcome != nil && t.Outcome.At.After(v.Now) {
			o := *t.Outcome // the snapshot's is not ours to write
			ahead = v.back(&o.At)
			t.Outcome = &o
		}
		if ahead {
			t.moved = true
			v.emit(Rewind{t.Task})
		}
	}
}

// back reports whether at lay ahead, and takes it back to now.
func (p *planner) back(at *time.Time) bool {
	if !at.After(p.Now) {
		return false
	}
	*at = p.Now
	return true
}
