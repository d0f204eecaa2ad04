package autoscaler

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a service whose tasks follow its count at once, under a load that is
// shared by all of them.
type world struct {
	t     *testing.T
	s     Snapshot
	load  int64 // thousandths of a core, in all
	acts  []Action
	notes []string
}

func newWorld(t *testing.T, a cluster.Autoscale, replicas int) *world {
	t.Helper()
	return &world{t: t, s: Snapshot{
		Now:      start,
		Services: []cluster.Service{{ServiceID: web, Created: 7, Rev: 8, Spec: cluster.ServiceSpec{Mode: cluster.Replicated, Autoscale: &a}}},
		Scales:   []cluster.Scale{{ServiceID: web, Replicas: replicas, Owner: "release", Rev: 9}},
	}}
}

// settle makes the tasks what the count asks for, all long started, sharing the load.
func (w *world) settle() {
	n := w.s.Scales[0].Replicas
	w.s.Tasks, w.s.Statuses, w.s.Samples = nil, nil, nil
	for i := range n {
		id := cluster.TaskID(fmt.Sprint("web.", i))
		w.s.Tasks = append(w.s.Tasks, cluster.Task{
			ID: id, ServiceID: web, Slot: i + 1, Desire: cluster.DesireRun, Spec: cluster.TaskSpec{Resources: cluster.Resources{ReserveCPU: 100}},
		})
		w.s.Statuses = append(w.s.Statuses, cluster.Status{
			Task: id, ServiceID: web, State: cluster.StateRunning, Ready: true, Started: start.Add(-time.Hour), ReadySince: start.Add(-time.Hour),
		})
		w.s.Samples = append(w.s.Samples, cluster.Sample{Task: id, CPU: w.load / int64(n), At: w.s.Now, Window: cluster.Duration(10 * time.Second)})
	}
}

// step plans once, applies it, and lets the period pass. It returns the count.
func (w *world) step() int {
	w.t.Helper()
	w.settle()
	w.plan()
	w.s.Now = w.s.Now.Add(DefaultPeriod)
	return w.s.Scales[0].Replicas
}

func (w *world) plan() {
	w.t.Helper()
	w.acts = Plan(w.s)
	for _, a := range w.acts {
		switch a := a.(type) {
		case SetScale:
			w.s.Scales[0], w.s.States = a.Scale, []State{a.State}
			w.notes = append(w.notes, a.Decision.Verdict+": "+a.Decision.Reason)
		case SaveState:
			w.s.States = []State{a.State}
			if a.Decision != nil {
				w.notes = append(w.notes, a.Decision.Verdict+": "+a.Decision.Reason)
			}
		case Forget:
			w.s.States = nil
		}
	}
}

func (w *world) steps(n int) []int {
	w.t.Helper()
	var out []int
	for range n {
		out = append(out, w.step())
	}
	return out
}

func (w *world) want(what string, got, want []int) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: counts %v, want %v\n%s", what, got, want, strings.Join(w.notes, "\n"))
	}
}

func TestGrowsAtOnceAndShrinksAfterTheWindow(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 2, Max: 40, CPUPercent: 50}, 2)
	w.load = 100
	w.want("steady", w.steps(2), []int{2, 2})
	w.load = 1500 // needs 30
	w.want("grows by 4 or to twice as many", w.steps(5), []int{6, 12, 24, 30, 30})
	w.load = 20
	// The last recommendation of 30 is in the window for 5 minutes: 20 periods.
	got := w.steps(21)
	if slices.Min(got[:19]) != 30 {
		t.Errorf("shrank within the window: %v", got)
	}
	if got[20] != 2 {
		t.Errorf("did not shrink to the minimum after the window: %v", got)
	}
	if last := w.notes[len(w.notes)-1]; !strings.HasPrefix(last, "scaled 30 to 2: cpu is at ") || !strings.Contains(last, "the minimum is 2") {
		t.Errorf("last decision: %q", last)
	}
}

func TestGrowthIsLimitedByTimeNotByPlans(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 40, CPUPercent: 50}, 2)
	w.s.Period = 5 * time.Second
	w.load = 1500
	var got []int
	for range 7 {
		got = append(got, w.step())
		w.s.Now = w.s.Now.Add(w.s.Period - DefaultPeriod)
	}
	w.want("every 5s", got, []int{6, 6, 6, 12, 12, 12, 24})
}

func TestToleranceAndMaximum(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 5, CPUPercent: 50}, 4)
	w.load = 4 * 55 // 10 % above the target
	w.want("within the tolerance", w.steps(2), []int{4, 4})
	w.load = 4 * 56
	w.want("above it", w.steps(1), []int{5})
	w.load = 10_000
	w.want("at the maximum", w.steps(2), []int{5, 5})
	if m := w.s.States[0].Message; !strings.Contains(m, "the maximum is 5") {
		t.Errorf("message: %q", m)
	}
}

func TestWindowUp(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 9, CPUPercent: 50, UpWindow: cluster.Duration(time.Minute)}, 1)
	w.load = 50
	w.steps(1)
	w.load = 300
	w.want("waits for the window up", w.steps(5), []int{1, 1, 1, 5, 6})
}

func TestPersonSetsTheCount(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50}, 1)
	w.load = 50
	w.steps(30)
	w.s.Scales[0] = cluster.Scale{ServiceID: web, Replicas: 8, Owner: "person", Rev: 20}
	got := w.steps(21)
	if slices.Min(got[:20]) != 8 || got[20] != 1 {
		t.Errorf("a person's 8 stays for the window down, then goes to 1: %v", got)
	}
	w.s.Scales[0] = cluster.Scale{ServiceID: web, Replicas: 30, Owner: "person", Rev: 20}
	w.want("beyond the bounds", w.steps(1), []int{10})
	if n := w.notes[len(w.notes)-1]; n != "scaled 30 to 10: a person set the count to 30; 30 is more than the maximum 10" {
		t.Errorf("decision: %q", n)
	}
}

func TestCountIsNotLoweredDuringARollout(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50, DownWindow: cluster.Duration(time.Second)}, 5)
	w.load = 50
	w.s.Rollouts = []cluster.Rollout{{ServiceID: web, State: cluster.RolloutRunning}}
	w.want("rollout", w.steps(2), []int{5, 5})
	if m := w.s.States[0].Message; !strings.Contains(m, "not lowered to 1 while a rollout is under way") {
		t.Errorf("message: %q", m)
	}
	w.load = 400
	w.want("but raised", w.steps(1), []int{8})
	w.load = 50
	w.s.Rollouts[0].State = cluster.RolloutComplete
	w.want("rollout over", w.steps(1), []int{1})
}

func TestNoSampleNoChange(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50, MemoryPercent: 50}, 3)
	w.settle()
	w.s.Samples = nil
	w.plan()
	if len(w.notes) != 1 || !strings.HasPrefix(w.notes[0], "stays at 3: the count stays: cpu: no task that is past its start has a sample yet; memory: a task reserves no memory") {
		t.Fatalf("decisions: %q", w.notes)
	}
	w.s.Now = w.s.Now.Add(DefaultPeriod)
	w.plan()
	if len(w.notes) != 1 {
		t.Errorf("the same is put on record again: %q", w.notes)
	}
	// CPU alone may raise the count but not lower it: memory is not known.
	w.load = 3
	w.want("one metric missing, the other low", w.steps(30)[29:], []int{3})
	w.load = 300
	w.want("one metric missing, the other high", w.steps(1), []int{6})
}

// TestRollingUpdateCountsSlots: two tasks in a slot are one.
func TestRollingUpdateCountsSlots(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50}, 2)
	w.load = 160 // 80 % each: 4 are needed
	w.settle()
	for i := range 2 {
		next, st := w.s.Tasks[i], w.s.Statuses[i]
		next.ID += "-new"
		next.N = 9
		st.Task, st.State, st.Ready, st.ReadySince = next.ID, cluster.StateStarting, false, time.Time{}
		w.s.Tasks, w.s.Statuses = append(w.s.Tasks, next), append(w.s.Statuses, st)
	}
	w.plan()
	if got := w.s.Scales[0].Replicas; got != 4 {
		t.Errorf("%d replicas, want 4: %v", got, w.notes)
	}
}

func TestOnlyOnceAPeriodAndOnlyWhoAsks(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50}, 2)
	w.load = 400
	w.settle()
	w.plan()
	w.settle()
	w.s.Now = w.s.Now.Add(DefaultPeriod / 2)
	if acts := Plan(w.s); len(acts) != 0 {
		t.Errorf("acts again within the period: %+v", acts)
	}
	w.s.Now = start.Add(-time.Hour) // another leader's clock
	if acts := Plan(w.s); len(acts) != 1 {
		t.Errorf("does not act when the clock went back: %+v", acts)
	}
	w.s.Services[0].Spec.Autoscale = nil
	if diff := cmp.Diff([]Action{Forget{w.s.States[0]}}, Plan(w.s)); diff != "" {
		t.Error(diff)
	}
	w.s.States = nil
	if acts := Plan(w.s); len(acts) != 0 {
		t.Errorf("scales who did not ask: %+v", acts)
	}
}

// TestTimesAheadEnd: a leader whose clock was an hour ahead leaves no window of an hour.
func TestTimesAheadEnd(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50}, 8)
	w.load = 400
	w.s.Now = start.Add(time.Hour)
	w.steps(2)
	w.s.Now = start
	w.load = 50
	if got := w.steps(22); got[18] != 8 || got[21] != 1 {
		t.Errorf("counts after the clock went back: %v", got)
	}
}

// TestServiceMadeAgainBeginsAnew: what an earlier service of the name recommended does not count.
func TestServiceMadeAgainBeginsAnew(t *testing.T) {
	w := newWorld(t, cluster.Autoscale{Min: 1, Max: 10, CPUPercent: 50}, 2)
	w.load = 100
	w.steps(1)
	w.s.Now = w.s.Now.Add(time.Second - DefaultPeriod)
	w.s.Services[0].Created++
	w.load = 200
	w.want("made again within the period", w.steps(1), []int{4})
	if st := w.s.States[0]; st.Created != w.s.Services[0].Created {
		t.Errorf("state: %+v", st)
	}
}

// FuzzPlan walks through random hours: load, bounds, people, clocks and missing samples change.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		a := cluster.Autoscale{Min: 1 + r.IntN(3), CPUPercent: 20 + r.IntN(100), UpWindow: cluster.Duration(time.Duration(r.IntN(3)) * time.Minute)}
		a.Max = a.Min + r.IntN(30)
		if r.IntN(2) == 0 {
			a.DownWindow = cluster.Duration(time.Duration(1+r.IntN(600)) * time.Second)
		}
		w := newWorld(t, a, a.Min)
		w.s.Services[0].Spec.Autoscale = &a
		full := []Recommendation{} // all of them, never pruned
		for range 200 {
			if r.IntN(12) == 0 {
				w.load = int64(r.IntN(6000))
			}
			if r.IntN(40) == 0 {
				w.s.Scales[0].Replicas, w.s.Scales[0].Owner = a.Min+r.IntN(a.Max-a.Min+1), "person"
			}
			if r.IntN(60) == 0 {
				w.s.Now = w.s.Now.Add(time.Duration(r.IntN(400)-200) * time.Second)
			}
			w.settle()
			if r.IntN(5) == 0 {
				w.s.Samples = w.s.Samples[:r.IntN(len(w.s.Samples)+1)]
			}
			before, count := copied(w.s), w.s.Scales[0].Replicas
			set := len(w.s.States) == 0 || w.s.States[0].Replicas != count
			acts := Plan(w.s)
			if !reflect.DeepEqual(w.s, before) {
				t.Fatal("Plan changed its input")
			}
			mixed := w.s
			mixed.Tasks, mixed.Statuses, mixed.Samples = mix(r, w.s.Tasks), mix(r, w.s.Statuses), mix(r, w.s.Samples)
			if again := Plan(mixed); !reflect.DeepEqual(acts, again) {
				t.Fatalf("depends on the order of the input:\n%s", cmp.Diff(acts, again))
			}
			due := len(acts) > 0
			w.plan()
			if again := Plan(w.s); len(again) != 0 {
				t.Fatalf("not a fixed point: %+v", again)
			}
			got := w.s.Scales[0].Replicas
			if got < a.Min || got > a.Max || got > max(count+growBy, count*growTimes) {
				t.Fatalf("%d replicas after %d, bounds %d to %d", got, count, a.Min, a.Max)
			}
			if due {
				full = windowed(t, w, a, full, set, count)
			}
			w.s.Now = w.s.Now.Add(DefaultPeriod)
		}
	})
}

// windowed checks that no window was broken, by all recommendations ever made:
// pruning must not matter. Times that lay ahead are left out.
func windowed(t *testing.T, w *world, a cluster.Autoscale, full []Recommendation, set bool, count int) []Recommendation {
	t.Helper()
	now, st := w.s.Now, w.s.States[0]
	if set {
		full = []Recommendation{{now, count}}
	}
	full = slices.DeleteFunc(full, func(r Recommendation) bool { return r.At.After(now) })
	if st.Blocked || len(st.Metrics) == 0 {
		return full
	}
	full = append(full, Recommendation{now, st.Metrics[0].Replicas})
	up, down := windows(a)
	got := w.s.Scales[0].Replicas
	for _, r := range full {
		if got > count && r.At.After(now.Add(-up)) && r.Replicas < got {
			t.Fatalf("raised from %d to %d though %d were recommended %s ago", count, got, r.Replicas, now.Sub(r.At))
		}
		if got < count && r.At.After(now.Add(-down)) && r.Replicas > got {
			t.Fatalf("lowered from %d to %d though %d were recommended %s ago", count, got, r.Replicas, now.Sub(r.At))
		}
	}
	if n := len(st.Recommended); n > 4*(a.Max+len(full)) || n > 130 {
		t.Fatalf("%d recommendations are remembered", n)
	}
	return full
}

// copied shares nothing with a snapshot of a world: what its tasks, statuses and samples
// hold are values.
func copied(s Snapshot) Snapshot {
	s.Services, s.Scales, s.Rollouts = slices.Clone(s.Services), slices.Clone(s.Scales), slices.Clone(s.Rollouts)
	s.Tasks, s.Statuses, s.Samples, s.States = slices.Clone(s.Tasks), slices.Clone(s.Statuses), slices.Clone(s.Samples), slices.Clone(s.States)
	for i, svc := range s.Services {
		a := *svc.Spec.Autoscale
		s.Services[i].Spec.Autoscale = &a
	}
	for i := range s.States {
		st := &s.States[i]
		st.Recommended, st.Changes, st.Metrics = slices.Clone(st.Recommended), slices.Clone(st.Changes), slices.Clone(st.Metrics)
	}
	return s
}

func mix[T any](r *rand.Rand, in []T) []T {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
