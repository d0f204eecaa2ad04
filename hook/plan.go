package hook

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// kept is how many ended tasks of a hook stay that no policy removes.
const kept = 3

// Plan returns what must change so that each pending change moves on. Actions come
// app by app, the record first.
func Plan(s Snapshot) []Action { return plan(s).out }

// Wake says how long after s.Now the plan could differ without any change in the
// store; 0 is never.
func Wake(s Snapshot) time.Duration {
	p := plan(s)
	if p.wake.IsZero() {
		return 0
	}
	return p.wake.Sub(s.Now)
}

// Due are the apps whose change is at a stage that the API acts in.
func Due(s Snapshot) []cluster.AppName {
	stages := map[cluster.AppName]cluster.ChangeRecord{}
	for _, r := range s.Records {
		stages[r.App] = r
	}
	var out []cluster.AppName
	for _, c := range s.Changes {
		switch c.StageOf(stages[c.App]) {
		case cluster.StageApply, cluster.StageFinish:
			if c.Refused == "" {
				out = append(out, c.App)
			}
		case cluster.StageUndo:
			if c.Stays == "" {
				out = append(out, c.App)
			}
		case cluster.StageBefore, cluster.StageSettle, cluster.StageAfter, cluster.StageDone:
		}
	}
	slices.Sort(out)
	return out
}

func plan(s Snapshot) *planner {
	p := index(s)
	names := map[cluster.AppName]bool{}
	for a := range p.changes {
		names[a] = true
	}
	for a := range p.records {
		names[a] = true
	}
	for a := range p.hooks {
		names[a] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p.app(name)
	}
	return p
}

// app plans one app.
func (p *planner) app(name cluster.AppName) {
	app, there := p.apps[name]
	old, known := p.records[name]
	ch, pending := p.changes[name]
	c := &change{planner: p, name: name, app: app, ch: ch, rec: old, gone: map[cluster.TaskID]bool{}}
	c.rec.Runs = slices.Clone(old.Runs)
	c.rewind()
	switch {
	case !there: // its hooks' tasks go, then its record
		if c.clear() && known {
			p.out = append(p.out, Forget{old})
		}
		return
	case pending && old.Change != ch.ID:
		if old.Created != app.Created {
			old = cluster.ChangeRecord{Rev: old.Rev} // of an app of the same name that is gone
		}
		c.rec = cluster.ChangeRecord{
			App: name, Change: ch.ID, Action: ch.Action, Release: ch.Release, Stage: cluster.StageBefore, Since: p.Now,
			Behind: len(cluster.HooksAt(ch.Hooks, ch.Action.After())) > 0, Earlier: old.Past(app.Release),
			NextTask: old.NextTask, Created: app.Created, Rev: old.Rev,
		}
	case !pending && known && old.Stage != cluster.StageDone:
		c.end("another change took its place")
	}
	if pending {
		for c.step() {
		}
	}
	start := len(p.out)
	c.sweep()
	if (pending || known) && !reflect.DeepEqual(old, c.rec) {
		p.out = slices.Insert(p.out, start, Action(Save{c.rec}))
	}
	for _, t := range c.creates {
		p.out = append(p.out, Create{t})
	}
}

// at notes that the plan may differ at t.
func (p *planner) at(t time.Time) {
	if t.After(p.Now) && (p.wake.IsZero() || t.Before(p.wake)) {
		p.wake = t
	}
}

// passed reports whether d has gone by since t, and else asks to be woken then.
func (p *planner) passed(t time.Time, d time.Duration) bool {
	end := t.Add(d)
	p.at(end)
	return !end.After(p.Now)
}

// change plans the pending change of one app.
type change struct {
	*planner
	name    cluster.AppName
	app     cluster.App
	ch      cluster.PendingChange
	rec     cluster.ChangeRecord    // as it will be saved
	gone    map[cluster.TaskID]bool // to be deleted
	creates []cluster.Task
}

// rewind makes times that lie ahead those of now: a leader whose clock was ahead wrote them, or
// the clock was set back since.
func (c *change) rewind() {
	if c.rec.Since.After(c.Now) {
		c.rec.Since = c.Now
	}
	for i := range c.rec.Runs {
		if r := &c.rec.Runs[i]; r.Started.After(c.Now) {
			r.Started = c.Now
		}
	}
}

func (c *change) enter(s cluster.HookStage) { c.rec.Stage, c.rec.Since = s, c.Now }

func (c *change) fail(format string, args ...any) {
	c.rec.Failed, c.rec.Message = true, fmt.Sprintf(format, args...)
}

// end ends the change, and the hooks that run for it.
func (c *change) end(why string) {
	c.fail("%s", why)
	for i := range c.rec.Runs {
		if r := &c.rec.Runs[i]; r.State == cluster.RunRunning {
			r.State, r.Ended, r.Message = cluster.RunFailed, c.Now, "was ended: "+why
		}
	}
	c.enter(cluster.StageDone)
}

// step moves the change on by a stage, and reports whether it did.
func (c *change) step() bool {
	switch c.rec.Stage {
	case cluster.StageBefore:
		return c.before()
	case cluster.StageApply:
		return c.apply()
	case cluster.StageSettle:
		return c.settle()
	case cluster.StageAfter:
		return c.after()
	case cluster.StageFinish, cluster.StageUndo: // the API's
		return c.refused()
	case cluster.StageDone:
	}
	return false
}

// refused ends a change that the API can neither end nor take back.
func (c *change) refused() bool {
	switch {
	case c.rec.Stage == cluster.StageFinish && c.ch.Refused != "":
		c.fail("%s", c.ch.Refused)
	case c.rec.Stage == cluster.StageUndo && c.ch.Stays != "":
		c.fail("%s; it cannot be taken back: %s", c.rec.Message, c.ch.Stays)
	default:
		return false
	}
	c.enter(cluster.StageDone)
	return true
}

func (c *change) before() bool {
	if c.ch.CalledOff != "" {
		c.end(c.ch.CalledOff)
		return true
	}
	switch done, failed := c.run(c.ch.Action.Before()); {
	case failed && c.ch.Atomic && c.ch.Action == cluster.HookInstall:
		c.enter(cluster.StageUndo) // of which the app's name alone is there
	case failed, done && c.ch.Action == cluster.HookTest:
		c.enter(cluster.StageDone)
	case done:
		c.enter(cluster.StageApply)
	default:
		return false
	}
	return true
}

// apply waits until the API has written the change.
func (c *change) apply() bool {
	made := c.app.Release == c.ch.Release && !c.app.Uninstalled
	if c.ch.Action == cluster.HookDelete {
		made = c.app.Uninstalled
	}
	switch {
	case made:
		c.enter(cluster.StageSettle)
	case c.ch.Refused != "":
		c.fail("%s", c.ch.Refused)
		if !c.ch.Begun && c.ch.Action != cluster.HookInstall { // of which the app's name is there
			c.enter(cluster.StageDone)
		} else {
			c.failed()
		}
	default:
		return false
	}
	return true
}

// failed ends a change that has touched the app.
func (c *change) failed() {
	if c.ch.Atomic && c.ch.Action != cluster.HookDelete {
		c.enter(cluster.StageUndo)
		return
	}
	c.enter(cluster.StageDone)
}

// settle waits until the change has done what it was meant to.
func (c *change) settle() bool {
	if c.ch.Action == cluster.HookDelete {
		if c.services[c.name] > 0 {
			return false
		}
		c.enter(cluster.StageAfter)
		return true
	}
	o := c.outcomes[c.name][c.ch.Release]
	if o.Created != c.app.Created {
		o = cluster.ReleaseOutcome{}
	}
	switch {
	case o.Settled:
		c.enter(cluster.StageAfter)
	case o.State == "failed":
		c.fail("%s", o.Message)
		c.failed()
	case c.ch.Atomic && c.passed(c.rec.Since, c.ch.Patience()):
		c.fail("it was not healthy after %s", c.ch.Patience())
		c.failed()
	default:
		return false
	}
	return true
}

func (c *change) after() bool {
	done, failed := c.run(c.ch.Action.After())
	remove := c.ch.Action == cluster.HookDelete
	switch {
	case failed:
		c.failed()
	case done && remove && !c.ch.KeepHistory:
		c.enter(cluster.StageFinish)
	case done:
		c.enter(cluster.StageDone)
	default:
		return false
	}
	return true
}

// run runs the hooks of a point, one after the other; the first that fails ends them.
func (c *change) run(e cluster.HookEvent) (done, failed bool) {
	hooks := cluster.HooksAt(c.ch.Hooks, e)
	for i, h := range hooks {
		at := slices.IndexFunc(c.rec.Runs, func(r cluster.HookRun) bool { return r.Hook == h.Service && r.Event == e })
		if at < 0 {
			c.begin(h, e)
			return false, false
		}
		r := &c.rec.Runs[at]
		if r.State == cluster.RunRunning {
			c.observe(r)
		}
		switch r.State {
		case cluster.RunRunning:
			return false, false
		case cluster.RunFailed:
			c.fail("%s hook %s %s", e, h.Service, r.Message)
			c.drop(h, r.Task, cluster.HookFailed)
			for _, before := range hooks[:i] {
				c.drop(before, c.taskOf(before.Service, e), cluster.HookSucceeded)
			}
			return false, true
		}
	}
	for _, h := range hooks {
		c.drop(h, c.taskOf(h.Service, e), cluster.HookSucceeded)
	}
	return true, false
}

func (c *change) taskOf(name cluster.ServiceName, e cluster.HookEvent) cluster.TaskID {
	for _, r := range c.rec.Runs {
		if r.Hook == name && r.Event == e {
			return r.Task
		}
	}
	return ""
}

// drop deletes the task of a hook, when its policy says so.
func (c *change) drop(h cluster.Hook, id cluster.TaskID, p cluster.HookPolicy) {
	if slices.Contains(h.Delete, p) {
		c.gone[id] = true
	}
}

// begin makes the task of a hook, once no earlier task of an app's hooks runs.
func (c *change) begin(h cluster.Hook, e cluster.HookEvent) {
	for _, t := range c.hooks[c.name] {
		if !c.over(t) {
			return // sweep stops it
		}
		if t.Name == h.Service && (len(h.Delete) == 0 || slices.Contains(h.Delete, cluster.BeforeHookCreation)) {
			c.gone[t.ID] = true
		}
	}
	id := cluster.ServiceID{App: c.name, Name: h.Service}
	t := cluster.Task{
		ID: cluster.NewTaskID(id, 1, c.app.Created, c.rec.NextTask, c.Salt), ServiceID: id, Slot: 1, Hook: e,
		Version: h.Spec.Task.Hash(), Release: c.ch.Release, Spec: h.Spec.Task, Desire: cluster.DesireRun,
		Created: c.Now, Since: c.Now, N: c.rec.NextTask,
	}
	c.rec.NextTask++
	c.rec.Runs = append(c.rec.Runs, cluster.HookRun{Hook: h.Service, Event: e, Task: t.ID, State: cluster.RunRunning, Started: c.Now})
	c.creates = append(c.creates, t)
	c.passed(c.Now, c.ch.Patience())
}

// observe reads how the task of a run is.
func (c *change) observe(r *cluster.HookRun) {
	i := slices.IndexFunc(c.hooks[c.name], func(t cluster.Task) bool { return t.ID == r.Task })
	end := func(state, message string) {
		st := c.statuses[r.Task]
		r.State, r.Ended, r.Message, r.Tail, r.Node = state, c.Now, message, st.LogTail, st.Node
	}
	if i < 0 {
		if !slices.ContainsFunc(c.creates, func(t cluster.Task) bool { return t.ID == r.Task }) {
			end(cluster.RunFailed, "failed: its task was removed")
		}
		return
	}
	st := c.statuses[r.Task]
	node, placed := c.placed[r.Task]
	_, member := c.nodes[node]
	switch {
	case st.State == cluster.StateComplete:
		end(cluster.RunComplete, "")
	case st.State.Terminal():
		end(cluster.RunFailed, "failed: "+cmp.Or(st.Reason, fmt.Sprintf("exit code %d", st.ExitCode)))
	case placed && !member:
		end(cluster.RunFailed, fmt.Sprintf("failed: node %s, which it ran on, is gone", node))
	case c.passed(r.Started, c.ch.Patience()):
		end(cluster.RunFailed, fmt.Sprintf("did not end within %s", c.ch.Patience()))
		if st.Reason != "" {
			r.Message += ": " + st.Reason
		}
	}
}

// over reports whether nothing of a task runs, or will.
func (c *change) over(t cluster.Task) bool {
	st := c.statuses[t.ID]
	node, placed := c.placed[t.ID]
	_, member := c.nodes[node]
	switch {
	case st.State.Terminal(), placed && !member:
		return true
	case t.Desire != cluster.DesireStop:
		return false
	}
	// A node that does not answer is not waited for: who asks for a change now would
	// wait for as long as it is away. It stops the task when it is back.
	return !placed || !c.nodes[node].Alive
}

// sweep stops tasks that no run waits for, and deletes those that are to go.
func (c *change) sweep() {
	running := map[cluster.TaskID]bool{}
	for _, r := range c.rec.Runs {
		running[r.Task] = r.State == cluster.RunRunning
	}
	counts := map[cluster.ServiceName]int{}
	for _, t := range slices.Backward(c.hooks[c.name]) {
		switch {
		case running[t.ID]:
		case !c.over(t):
			c.stop(t)
		case c.gone[t.ID], t.Desire == cluster.DesireStop, counts[t.Name] >= kept:
			c.out = append(c.out, Delete{t})
		default:
			counts[t.Name]++
		}
	}
}

func (c *change) stop(t cluster.Task) {
	if t.Desire == cluster.DesireStop {
		return
	}
	t.Desire, t.Since, t.Reason = cluster.DesireStop, c.Now, "nothing waits for this hook any more"
	c.out = append(c.out, Stop{t})
}

// clear removes all tasks of the app's hooks, and reports whether none is left.
func (c *change) clear() bool {
	left := c.hooks[c.name]
	for _, t := range left {
		if c.over(t) {
			c.out = append(c.out, Delete{t})
		} else {
			c.stop(t)
		}
	}
	return len(left) == 0
}
