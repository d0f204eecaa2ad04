package autoscaler

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Kubernetes' defaults.
const (
	tolerance   = 0.1
	startPeriod = 5 * time.Minute  // a task's CPU is that of its start until then
	readyDelay  = 30 * time.Second // being not ready so soon after the start is no change
)

// grade says how a task counts.
type grade int

const (
	starting grade = iota // its use says nothing yet
	missing               // it should have a sample and has none
	measured              // it has a sample
)

const whole = 100 // percent

// pod is a task with what is observed of it.
type pod struct {
	task   *cluster.Task
	status *cluster.Status // nil: none
	sample *cluster.Sample // nil: none
}

// resource is a metric: what of a sample, of which reservation.
type resource struct {
	name    string
	target  int
	use     func(cluster.Sample) int64
	reserve func(cluster.Resources) int64
	starts  bool // its use in the start-up is no measure
}

func resources(a cluster.Autoscale) []resource {
	var out []resource
	if a.CPUPercent > 0 {
		out = append(out, resource{
			"cpu", a.CPUPercent,
			func(s cluster.Sample) int64 { return s.CPU }, func(r cluster.Resources) int64 { return r.ReserveCPU }, true,
		})
	}
	if a.MemoryPercent > 0 {
		out = append(out, resource{
			"memory", a.MemoryPercent,
			func(s cluster.Sample) int64 { return s.Memory }, func(r cluster.Resources) int64 { return r.ReserveMemory }, false,
		})
	}
	return out
}

// grade says how a task counts for the resource. Times are compared with others
// that the same node wrote.
func (r resource) grade(p pod) grade {
	switch {
	case p.status == nil || p.status.Started.IsZero() || p.status.State != cluster.StateRunning:
		return starting
	case p.sample == nil:
		return missing
	case !r.starts:
		return measured
	}
	s := p.status
	if s.Started.Add(startPeriod).After(p.sample.At) {
		if !s.Ready || p.sample.At.Before(s.ReadySince.Add(p.sample.Window.D())) {
			return starting
		}
		return measured
	}
	// Agents clear ReadySince with Ready: a task that is not ready counts from the
	// end of its start on, as one that has been ready does in Kubernetes.
	if !s.Ready && s.Started.Add(readyDelay).After(s.At) {
		return starting
	}
	return measured
}

// use is a task's use and reservation, as they are summed up.
type use struct{ value, reserved int64 }

// slots leaves one task of each slot: the one that tells most, of these the
// newest. Where nothing is replaced there is only one.
func (r resource) slots(pods []pod) map[grade][]pod {
	type pick struct {
		pod
		grade
	}
	best := map[int]pick{}
	for _, p := range pods {
		g := r.grade(p)
		have, ok := best[p.task.Slot]
		if !ok || cmp.Or(cmp.Compare(g, have.grade), cmp.Compare(p.task.N, have.task.N), cmp.Compare(p.task.ID, have.task.ID)) > 0 {
			best[p.task.Slot] = pick{p, g}
		}
	}
	out := map[grade][]pod{}
	for _, p := range best {
		out[p.grade] = append(out[p.grade], p.pod)
	}
	return out
}

// recommend says how many replicas bring the utilisation to the target: the
// calculation of Kubernetes' replica calculator.
func (r resource) recommend(current int, pods []pod) Metric {
	m := Metric{Name: r.name, Target: r.target}
	if len(pods) == 0 {
		m.Error = "there is no task"
		return m
	}
	if slices.ContainsFunc(pods, func(p pod) bool { return r.reserve(p.task.Spec.Resources) <= 0 }) {
		m.Error = "a task reserves no " + r.name
		return m
	}
	by := r.slots(pods)
	ready := by[measured]
	if len(ready) == 0 {
		m.Error = "no task that is past its start has a sample yet"
		return m
	}
	uses := make([]use, 0, len(pods))
	for _, p := range ready {
		uses = append(uses, use{r.use(*p.sample), r.reserve(p.task.Spec.Resources)})
	}
	var ratio float64
	ratio, m.Percent = r.ratio(uses)
	up := len(by[starting]) > 0 && ratio > 1
	if !up && len(by[missing]) == 0 {
		m.Replicas = current
		if !within(ratio) {
			m.Replicas = int(math.Ceil(ratio * float64(len(ready))))
		}
		return m
	}
	for _, p := range by[missing] {
		reserved := r.reserve(p.task.Spec.Resources)
		switch {
		case ratio < 1: // it may use all that it reserves
			uses = append(uses, use{reserved * int64(max(whole, r.target)) / whole, reserved})
		case ratio > 1:
			uses = append(uses, use{0, reserved})
		}
	}
	if up {
		for _, p := range by[starting] {
			uses = append(uses, use{0, r.reserve(p.task.Spec.Resources)})
		}
	}
	again, _ := r.ratio(uses)
	m.Replicas = current
	if within(again) || (ratio < 1 && again > 1) || (ratio > 1 && again < 1) {
		return m
	}
	n := int(math.Ceil(again * float64(len(uses))))
	if (again < 1 && n > current) || (again > 1 && n < current) {
		return m // what is not measured must not turn the direction
	}
	m.Replicas = n
	return m
}

// ratio is the utilisation by the target, and the utilisation in whole percent.
func (r resource) ratio(uses []use) (float64, int) {
	var value, reserved int64
	for _, u := range uses {
		value += u.value
		reserved += u.reserved
	}
	percent := value * whole / reserved
	return float64(percent) / float64(r.target), int(percent)
}

func within(ratio float64) bool { return 1-tolerance <= ratio && ratio <= 1+tolerance }
