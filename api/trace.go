package api

import (
	"cmp"
	"context"
	"maps"
	"slices"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) trace(_ context.Context, in *ServicePath) (v1.Trace, error) {
	m := s.read(in.app())
	svc, ok := m.byID[in.id()]
	if !ok {
		return v1.Trace{}, noService(m, in.id())
	}
	out := v1.Trace{ServiceID: svc.ServiceID, Tasks: []v1.TaskStatus{}}
	for _, t := range m.tasksOf(svc.ServiceID) {
		if !t.Ended() {
			out.Tasks = append(out.Tasks, t)
		}
	}
	shareDigests(out.Tasks)
	var err error
	s.Mirror.Read(func(v store.View) {
		out.TracedRelease, err = traced(v, in.app(), svc.Release)
		others := m.otherReleases(svc)
		newest := slices.Sorted(maps.Keys(others))
		slices.Reverse(newest)
		for _, n := range newest {
			r, failed := traced(v, in.app(), n)
			err = cmp.Or(err, failed)
			out.Earlier = append(out.Earlier, v1.EarlierRelease{TracedRelease: r, Of: others[n]})
		}
		for _, d := range deliveries(v) {
			if d.App == in.app() {
				out.Delivery = &d
			}
		}
	})
	return out, err
}

// traced is where a release comes from. One that is not kept any more has a number alone.
func traced(v store.View, app cluster.AppName, number int) (v1.TracedRelease, error) {
	out := v1.TracedRelease{Release: v1.ReleaseSummary{Number: number}}
	r, ok, err := store.One[cluster.Release](v, store.ReleaseKey(app, number))
	if !ok || err != nil {
		return out, err
	}
	a, _, _ := store.One[cluster.App](v, store.AppKey(app))
	out.Release, out.Origin = releaseSummary(v, r.V, a.V.Release), r.V.Origin
	if r.V.Package != nil {
		out.From = r.V.Package.From
	}
	return out, nil
}

// otherReleases are those of the service's tasks that are not of the version that is wanted.
// A task is of the release that it was made for; one of the version that completed last is of
// the newest release with that, which is kept longer.
func (m *model) otherReleases(svc cluster.Service) map[int][]cluster.TaskID {
	out := map[int][]cluster.TaskID{}
	last := m.rollouts[svc.ServiceID]
	stable := ""
	if last.Stable != nil && last.Created == svc.Created {
		stable = last.Stable.Hash()
	}
	for _, t := range m.ofService[svc.ServiceID] {
		switch {
		case t.Outcome != nil || t.Version == svc.Version:
		case t.Version == stable:
			out[last.StableRelease] = append(out[last.StableRelease], t.ID)
		default:
			out[t.Release] = append(out[t.Release], t.ID)
		}
	}
	return out
}

// shareDigests says of tasks whose node had their image from another one by what that one,
// the same image for the same reference, was pulled.
func shareDigests(tasks []v1.TaskStatus) {
	type meaning struct{ ref, id string }
	pulled := map[meaning]string{}
	for _, t := range tasks {
		if m := (meaning{t.Image, t.ImageID}); t.ImageDigest != "" && pulled[m] == "" {
			pulled[m] = t.ImageDigest
		}
	}
	for i, t := range tasks {
		if t.ImageDigest == "" && t.ImageID != "" {
			tasks[i].ImageDigest = pulled[meaning{t.Image, t.ImageID}]
		}
	}
}
