package autoscaler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

const (
	// DefaultPeriod is the time between two looks at a service.
	DefaultPeriod = 15 * time.Second

	loopName = "autoscaler"
)

// Plan looks at every service whose period has passed.
func Plan(s Snapshot) []Action {
	p := index(s)
	var out []Action
	services := slices.SortedFunc(slices.Values(s.Services), func(a, b cluster.Service) int { return a.Compare(b.ServiceID) })
	scaled := make(map[cluster.ServiceID]bool, len(services))
	for i := range services {
		svc := &services[i]
		scale, ok := p.scales[svc.ServiceID]
		if !Scales(svc.Spec) || !ok {
			continue
		}
		scaled[svc.ServiceID] = true
		if a := p.service(svc, scale); a != nil {
			out = append(out, a)
		}
	}
	states := slices.SortedFunc(slices.Values(s.States), func(a, b State) int { return a.Compare(b.ServiceID) })
	for _, st := range states {
		if !scaled[st.ServiceID] {
			out = append(out, Forget{st})
		}
	}
	return out
}

// Scales reports whether a service is to be scaled.
func Scales(s cluster.ServiceSpec) bool {
	a := s.Autoscale
	return a != nil && s.Mode != cluster.Global && a.Min >= 1 && a.Max >= a.Min && a.CPUPercent+a.MemoryPercent > 0
}

type planner struct {
	Snapshot
	scales   map[cluster.ServiceID]cluster.Scale
	states   map[cluster.ServiceID]State
	rollouts map[cluster.ServiceID]cluster.RolloutState
	pods     map[cluster.ServiceID][]pod
}

func index(s Snapshot) *planner {
	p := &planner{
		Snapshot: s,
		scales:   make(map[cluster.ServiceID]cluster.Scale, len(s.Scales)),
		states:   make(map[cluster.ServiceID]State, len(s.States)),
		rollouts: make(map[cluster.ServiceID]cluster.RolloutState, len(s.Rollouts)),
		pods:     map[cluster.ServiceID][]pod{},
	}
	p.Period = cmp.Or(s.Period, DefaultPeriod)
	for _, x := range s.Scales {
		p.scales[x.ServiceID] = x
	}
	for _, x := range s.States {
		p.states[x.ServiceID] = x
	}
	for _, x := range s.Rollouts {
		p.rollouts[x.ServiceID] = x.State
	}
	wanted := map[cluster.ServiceID]bool{}
	for i := range s.Services {
		wanted[s.Services[i].ServiceID] = Scales(s.Services[i].Spec)
	}
	statuses := map[cluster.TaskID]*cluster.Status{}
	for i := range s.Statuses {
		x := &s.Statuses[i]
		if have := statuses[x.Task]; wanted[x.ServiceID] && (have == nil || x.Node < have.Node) {
			statuses[x.Task] = x
		}
	}
	samples := make(map[cluster.TaskID]*cluster.Sample, len(s.Samples))
	for i := range s.Samples {
		x := &s.Samples[i]
		if have := samples[x.Task]; have == nil || newer(x, have) {
			samples[x.Task] = x
		}
	}
	for i := range s.Tasks {
		t := &s.Tasks[i]
		st := statuses[t.ID]
		// What drains, stops or has ended is on its way out.
		if !wanted[t.ServiceID] || t.Desire != cluster.DesireRun || t.Outcome != nil || (st != nil && st.State.Terminal()) {
			continue
		}
		p.pods[t.ServiceID] = append(p.pods[t.ServiceID], pod{task: t, status: st, sample: samples[t.ID]})
	}
	return p
}

// newer orders samples of one task, all of them, so that their order in the snapshot does not matter.
func newer(a, b *cluster.Sample) bool {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.CPU, b.CPU), cmp.Compare(a.Memory, b.Memory)) > 0
}

// service looks at one service, or returns nil when it is not time.
func (p *planner) service(svc *cluster.Service, scale cluster.Scale) Action {
	a := *svc.Spec.Autoscale
	old, known := p.states[svc.ServiceID]
	if known && old.Created == svc.Created && !p.due(old.Checked) {
		return nil
	}
	st := old
	if !known || old.Created != svc.Created {
		st = State{ServiceID: svc.ServiceID, Created: svc.Created, Rev: old.Rev, Replicas: -1}
	}
	st.Recommended, st.Changes = slices.Clone(st.Recommended), slices.Clone(st.Changes)
	st.rewind(p.Now)
	current := scale.Replicas
	took := ""
	if st.Replicas != current {
		// Somebody else set the count: the windows begin with it.
		st.Recommended, st.Changes = []Recommendation{{p.Now, current}}, nil
		if scale.Owner == cluster.OwnerPerson {
			took = fmt.Sprintf("a person set the count to %d; ", current)
		}
	}
	st.Checked = p.Now
	want, why := p.decide(&st, a, scale)
	st.prune(p.Now, a)
	st.Message = took + why
	if want == current {
		st.Replicas = current
		return SaveState{State: st, Decision: p.note(&st, old, known, current), ServiceRev: svc.Rev, ScaleRev: scale.Rev}
	}
	st.Replicas = want
	st.Changes = append(st.Changes, Change{p.Now, want - current})
	next := scale
	next.Replicas, next.Owner, next.Reason = want, cluster.OwnerAutoscaler, st.Message
	return SetScale{
		Scale: next, State: st, ServiceRev: svc.Rev,
		Decision: cluster.Decision{
			Loop: loopName, Object: svc.String(), Verdict: fmt.Sprintf("scaled %d to %d", current, want), Reason: st.Message, At: p.Now,
		},
	}
}

// due reports whether the period has passed. The timer that asks is not exact, and
// a time that lies ahead comes from a clock that went back.
func (p *planner) due(checked time.Time) bool {
	since := p.Now.Sub(checked)
	return since < 0 || since >= p.Period-p.Period/10
}

// decide returns the count and why it is that.
func (p *planner) decide(st *State, a cluster.Autoscale, scale cluster.Scale) (int, string) {
	current := scale.Replicas
	st.Metrics, st.Blocked = nil, false
	switch {
	case current > a.Max:
		return a.Max, fmt.Sprintf("%d is more than the maximum %d", current, a.Max)
	case current < a.Min:
		return a.Min, fmt.Sprintf("%d is less than the minimum %d", current, a.Min)
	}
	want, best := -1, 0
	failed := false
	for i, r := range resources(a) {
		m := r.recommend(current, p.pods[st.ServiceID])
		st.Metrics = append(st.Metrics, m)
		failed = failed || m.Error != ""
		if m.Error == "" && m.Replicas > want {
			want, best = m.Replicas, i
		}
	}
	if want < 0 || (failed && want < current) {
		st.Blocked = true
		return current, blocked(st.Metrics)
	}
	m := st.Metrics[best]
	why := fmt.Sprintf("%s is at %d%% of the reservation, the target is %d%%", m.Name, m.Percent, m.Target)
	steady := st.stabilize(p.Now, a, current, want)
	got := p.limit(st, a, current, steady)
	switch {
	case want == current:
		return got, why
	case steady != want && steady > want:
		why += fmt.Sprintf("; %d would do, but within %s there was need of %d", want, down(a), steady)
	case steady != want:
		why += fmt.Sprintf("; %d are asked for, but within %s also %d", want, a.UpWindow, steady)
	}
	switch {
	case got < steady && got == a.Max:
		why += fmt.Sprintf("; %d are asked for, the maximum is %d", steady, a.Max)
	case got < steady:
		why += fmt.Sprintf("; on the way to %d, at most %d more or twice as many in %s", steady, growBy, growPeriod)
	case got > steady && got == a.Min:
		why += fmt.Sprintf("; the minimum is %d", a.Min)
	case got > steady:
		why += fmt.Sprintf("; not lowered to %d while a rollout is under way", max(steady, a.Min))
	}
	return got, why
}

func down(a cluster.Autoscale) time.Duration {
	_, d := windows(a)
	return d
}

// limit keeps a count within the bounds, and its growth within the limit.
func (p *planner) limit(st *State, a cluster.Autoscale, current, want int) int {
	switch {
	case want > current:
		return min(want, a.Max, st.growth(p.Now, current))
	case want < current:
		if r := p.rollouts[st.ServiceID]; r == cluster.RolloutRunning || r == cluster.RolloutRollingBack {
			return current
		}
		return max(want, a.Min)
	}
	return want
}

func blocked(metrics []Metric) string {
	var parts []string
	for _, m := range metrics {
		if m.Error != "" {
			parts = append(parts, m.Name+": "+m.Error)
		}
	}
	return "the count stays: " + strings.Join(parts, "; ")
}

// note returns the decision to put on record where the count stays: when it can
// not be told, and when it can again.
func (p *planner) note(st *State, old State, known bool, current int) *cluster.Decision {
	switch {
	case st.Blocked && (!known || !old.Blocked || old.Message != st.Message):
	case !st.Blocked && known && old.Blocked:
	default:
		return nil
	}
	return &cluster.Decision{
		Loop: loopName, Object: st.String(), Verdict: fmt.Sprintf("stays at %d", current), Reason: st.Message, At: p.Now,
	}
}
