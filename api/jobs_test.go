package api_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// end makes of a running task of slot 1 one that has ended so, as agent and rollout would.
func (b *bench) end(id cluster.ServiceID, task cluster.TaskID, version string, o cluster.Outcome) {
	b.t.Helper()
	o.Node, o.At = "n1", time.Now()
	b.put(store.TaskKey(id.App, task), cluster.Task{ID: task, ServiceID: id, Slot: 1, Version: version, Desire: cluster.DesireStop, Created: time.Now(), Outcome: &o})
}

// TestJobsThatAreDoneCount: a service whose tasks ended well and stay ended is as
// it should be, and so is its app.
func TestJobsThatAreDoneCount(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	jobID := cluster.ServiceID{App: "shop", Name: "job"}
	job, global := service("job:1"), service("each:1")
	job.Replicas, job.Restart.Condition = 1, "none"
	global.Mode, global.Replicas, global.Restart.Condition = cluster.Global, 0, "none"
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1"), "job": job, "each": global}))
	versions := map[cluster.ServiceID]string{}
	eachID := cluster.ServiceID{App: "shop", Name: "each"}
	for _, id := range []cluster.ServiceID{webID, jobID, eachID} {
		svc := get[cluster.Service](b, store.ServiceKey(id))
		versions[id] = svc.Version
		b.put(store.RolloutKey(id), cluster.Rollout{ServiceID: id, Target: svc.Version, Release: 1, State: cluster.RolloutComplete})
	}
	b.run(webID, 1, versions[webID])
	b.run(webID, 2, versions[webID])
	first := b.run(jobID, 1, versions[jobID])
	b.end(jobID, first, versions[jobID], cluster.Outcome{State: cluster.StateFailed, ExitCode: 1, Reason: "exited with code 1"})
	second := b.run(jobID, 1, versions[jobID])
	b.end(jobID, second, versions[jobID], cluster.Outcome{State: cluster.StateComplete})
	each := b.run(eachID, 1, versions[eachID])
	b.end(eachID, each, versions[eachID], cluster.Outcome{State: cluster.StateComplete})

	d, err := b.App(ctx, "shop")
	if err != nil || d.State != "ready" || d.Ready != 4 || d.Wanted != 4 || len(d.Problems) != 0 {
		t.Errorf("%+v %v", d, err)
	}
	svc, err := b.Service(ctx, jobID)
	if err != nil || svc.State != "complete" || svc.Ready != 1 || svc.Updated != 1 || svc.Complete != 1 {
		t.Errorf("%+v %v", svc.ServiceSummary, err)
	}
	why, err := b.Explain(ctx, cluster.Address{App: "shop", Service: "job"})
	if err != nil || !slices.Contains(why[0].Summary, "release 1 is complete; 1 of 1 complete: ended well, and not started again") {
		t.Errorf("%+v %v", why, err)
	}

	// One that completed in an earlier version, or that failed after it, is not done.
	b.end(jobID, second, "earlier", cluster.Outcome{State: cluster.StateComplete})
	if d, err := b.App(ctx, "shop"); err != nil || d.State != "degraded" || d.Ready != 3 {
		t.Errorf("%+v %v", d, err)
	}
}

// TestJobThatJustEndedCountsAsBefore: between ready and complete it is not unready; what
// is started again whenever it ends is.
func TestJobThatJustEndedCountsAsBefore(t *testing.T) {
	b := newBench(t)
	jobID := cluster.ServiceID{App: "shop", Name: "job"}
	job, web := service("job:1"), service("web:1")
	job.Replicas, job.Restart.Condition, web.Replicas = 1, "on-failure", 1
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": web, "job": job}))
	says := func(id cluster.ServiceID, s cluster.Status, want int) {
		t.Helper()
		version := get[cluster.Service](b, store.ServiceKey(id)).Version
		task := b.run(id, 1, version)
		s.Task, s.Node, s.ServiceID, s.Slot, s.Version = task, "n1", id, 1, version
		b.put(store.StatusKey("n1", task), s)
		if svc, err := b.Service(t.Context(), id); err != nil || svc.Ready != want || svc.Updated != want {
			t.Errorf("%s with %+v: %+v %v", id, s, svc.ServiceSummary, err)
		}
		b.end(id, task, "earlier", cluster.Outcome{State: cluster.StateStopped})
	}
	for _, id := range []cluster.ServiceID{jobID, webID} {
		still := map[cluster.ServiceID]int{jobID: 1}[id]
		says(id, cluster.Status{State: cluster.StateRunning, Ready: true}, 1)
		says(id, cluster.Status{State: cluster.StateRunning, Reason: cluster.ProcessEnded}, still)
		says(id, cluster.Status{State: cluster.StateStarting, Reason: cluster.ProcessEnded}, still)
		says(id, cluster.Status{State: cluster.StateStarting, ExitCode: 1, Reason: "exited with code 1"}, 0)
	}
}

// TestWatchWaitsForWhatIsMissing: a rollout that was complete is not all: what was
// scaled up since, or crashed, is waited for; what nobody tries again is said.
func TestWatchWaitsForWhatIsMissing(t *testing.T) {
	job := func(b *bench, o cluster.Outcome) {
		svc := get[cluster.Service](b, store.ServiceKey(webID))
		b.end(webID, b.run(webID, 1, svc.Version), svc.Version, o)
	}
	for name, c := range map[string]struct {
		restart  cluster.RestartPolicy
		failures int                            // that the rollout tolerated
		before   func(b *bench)                 // what is there when somebody looks
		then     func(b *bench, version string) // what happens when it is not all
		waits    bool
		says     string // "": it ends well
	}{
		"scaled up": {
			then:  func(b *bench, version string) { b.run(webID, 2, version) },
			waits: true,
		},
		"tolerated": {failures: 1},
		"a job that failed": {
			restart: cluster.RestartPolicy{Condition: "none"},
			before: func(b *bench) {
				job(b, cluster.Outcome{State: cluster.StateFailed, Reason: "exited with code 3", LogTail: []string{"no database"}})
			},
			says: "shop/web.1 failed: exited with code 3; it is not started again",
		},
		"attempts used up": {
			restart: cluster.RestartPolicy{MaxAttempts: 2},
			before: func(b *bench) {
				job(b, cluster.Outcome{State: cluster.StateFailed, Reason: "exited with code 3", Restarts: 2})
			},
			says: "shop/web.1 failed: exited with code 3; it is not started again",
		},
		"attempts left": {
			restart: cluster.RestartPolicy{MaxAttempts: 2},
			before:  func(b *bench) { job(b, cluster.Outcome{State: cluster.StateFailed, Restarts: 1}) },
			then:    func(b *bench, version string) { b.run(webID, 1, version) },
			waits:   true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			spec := service("web:1")
			spec.Replicas, spec.Restart = 1, c.restart
			if c.before == nil { // one runs of two
				spec.Replicas = 2
			}
			deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
			svc := get[cluster.Service](b, store.ServiceKey(webID))
			if c.before != nil {
				c.before(b)
			} else {
				b.run(webID, 1, svc.Version)
			}
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete, Failures: c.failures})
			var last v1.Progress
			waited := false
			err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
				if last = p; !p.Done && !waited {
					waited = true
					c.then(b, svc.Version)
				}
				return nil
			})
			if s := last.Services[0]; err != nil || waited != c.waits || !last.Done || last.Failed != (c.says != "") || s.Message != c.says {
				t.Errorf("waited %v, %+v, %v", waited, last, err)
			}
			if c.says != "" && !strings.HasPrefix(string(last.Services[0].Task), "shop_web.1.") {
				t.Errorf("it does not name the task: %+v", last.Services[0])
			}
		})
	}
}
