package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

var web = cluster.Address{App: "shop", Service: "web"}

// deployWeb deploys a service and says that its rollout stands at state.
func deployWeb(t *testing.T, b *bench, state cluster.RolloutState) cluster.Service {
	t.Helper()
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: state})
	return svc
}

func TestWatchFollowsUntilDone(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutRunning)
	var seen []string
	err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
		s := p.Services[0]
		seen = append(seen, fmt.Sprintf("%s %d/%d %v", s.State, s.Updated, s.Wanted, p.Done))
		if len(seen) == 1 { // what rollout, scheduler and agent would do next
			b.run(webID, 1, svc.Version)
			b.run(webID, 2, svc.Version)
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen[0] != "running 0/2 false" || seen[len(seen)-1] != "complete 2/2 true" {
		t.Errorf("%q", seen)
	}
	if a, err := b.App(t.Context(), "shop"); err != nil || a.State != "ready" || a.Ready != 2 {
		t.Errorf("%+v %v", a, err)
	}
}

func TestWatchSaysWhyItFailed(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutRolledBack)
	b.put(store.RolloutKey(webID), cluster.Rollout{
		ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutRolledBack, Message: "shop/web.1 exited with 1", Tail: []string{"no database"},
	})
	var last v1.Progress
	if err := b.Watch(t.Context(), "shop", 0, nil, func(p v1.Progress) error { last = p; return nil }); err != nil {
		t.Fatal(err)
	}
	s := last.Services[0]
	if !last.Done || !last.Failed || s.Message != "shop/web.1 exited with 1" || s.Tail[0] != "no database" {
		t.Errorf("%+v", last)
	}
	for created, stable := range map[cluster.StoreRev]int{0: 3, 1: 0} { // 1: an earlier service of that name
		b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutRolledBack, StableRelease: 3, Created: created})
		stop := errors.New("enough")
		err := b.Watch(t.Context(), "shop", 0, nil, func(p v1.Progress) error { last = p; return stop })
		if !errors.Is(err, stop) || last.Services[0].Stable != stable {
			t.Errorf("created at %d: %+v %v", created, last.Services[0], err)
		}
	}
	if _, err := b.Remove(t.Context(), "shop", v1.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Watch(t.Context(), "shop", 1, nil, func(v1.Progress) error { return nil }); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("%v", err)
	}
	last = v1.Progress{}
	if err := b.Watch(t.Context(), "shop", 0, nil, func(p v1.Progress) error { last = p; return nil }); err != nil || !last.Done || last.Failed {
		t.Errorf("an app that is gone: %+v %v", last, err)
	}
}

// TestWatchEndsWhereAllElseWaitsInVain: nothing is waited for that waits for what has
// failed; what may still become ready is.
func TestWatchEndsWhereAllElseWaitsInVain(t *testing.T) {
	b := newBench(t)
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1"), "db": service("db:1"), "log": service("log:1")}))
	rollout := func(name cluster.ServiceName, r cluster.Rollout) {
		r.ServiceID = cluster.ServiceID{App: "shop", Name: name}
		r.Target, r.Release = get[cluster.Service](b, store.ServiceKey(r.ServiceID)).Version, 1
		b.put(store.RolloutKey(r.ServiceID), r)
	}
	rollout("db", cluster.Rollout{State: cluster.RolloutFailed, Message: "shop/db.1 failed: exit code 1", Tail: []string{"no disk"}})
	rollout("web", cluster.Rollout{State: cluster.RolloutRunning, Blocked: true, Message: "waits for db to be healthy, but its rollout failed"})
	rollout("log", cluster.Rollout{State: cluster.RolloutRunning})
	var last v1.Progress
	waited := false
	if err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
		if last = p; !p.Done {
			waited = true
			rollout("log", cluster.Rollout{State: cluster.RolloutFailed, Message: "shop/log.1 failed"})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !waited || !last.Done || !last.Failed || last.Services[0].Tail[0] != "no disk" || last.Services[2].Message != "waits for db to be healthy, but its rollout failed" {
		t.Errorf("waited %v, %+v", waited, last)
	}
}

// A service is there when the gateways have its ports, and a port that one of
// them cannot have is said.
func TestWatchWaitsForTheGateways(t *testing.T) {
	for name, c := range map[string]struct {
		acks   []cluster.GatewayAck
		failed bool
		says   string
	}{
		"served":   {acks: []cluster.GatewayAck{{Entries: []string{"web"}}, {Entries: []string{"tcp-5432", "web"}}}},
		"taken":    {acks: []cluster.GatewayAck{{Refused: map[string]string{"tcp-5432": "in use by nc"}}}, failed: true, says: "web: port 5432/tcp: gateway n1 cannot have it: in use by nc"},
		"dead":     {acks: []cluster.GatewayAck{{Error: "port 80/tcp is in use"}}, failed: true, says: "web: port 5432/tcp: gateway n1 does not work: port 80/tcp is in use"},
		"given up": {acks: []cluster.GatewayAck{{Refused: map[string]string{"tcp-5432": "in use by nc"}}, {Entries: []string{"tcp-5432"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a refusal counts when it has stood for a while
			b := newBench(t)
			spec := service("web:1")
			spec.Ports = []cluster.PublishedPort{{Published: 5432, Target: 5432, Protocol: "tcp", Mode: "gateway"}}
			deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
			svc := get[cluster.Service](b, store.ServiceKey(webID))
			ack := func() {
				a := c.acks[0]
				c.acks, a.Node, a.Route = c.acks[1:], "n1", b.rev(store.ServiceKey(webID))
				b.put(store.GatewayAckKey("n1"), a)
			}
			ack()
			b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Roles: []string{"gateway"}}) // does not answer
			b.run(webID, 1, svc.Version)
			b.run(webID, 2, svc.Version)
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete})
			var last v1.Progress
			err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
				if last = p; !p.Done && len(c.acks) > 0 {
					ack()
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if last.Failed != c.failed || strings.Join(last.Unserved, "; ") != c.says || len(c.acks) > 0 {
				t.Errorf("%+v", last)
			}
		})
	}
}

// routed is a service with a route, which runs and which gateway n1 serves.
func routed(t *testing.T, b *bench) (cluster.ServiceSpec, cluster.Service) {
	t.Helper()
	spec := service("web:1")
	spec.Routes = []cluster.Route{{Host: "a.test", Port: 80}}
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	b.put(store.GatewayAckKey("n1"), cluster.GatewayAck{Node: "n1", Entries: []string{"web"}, Route: b.rev(store.ServiceKey(webID))})
	b.run(webID, 1, svc.Version)
	b.run(webID, 2, svc.Version)
	return spec, svc
}

// Routes alone change: no task does, the gateways have the entry point already, and
// yet it is done only when they have the new routes, or one of them cannot.
func TestWatchWaitsForRoutesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		ends   func(b *bench, rev cluster.StoreRev)
		failed bool
		says   string
	}{
		"taken": {ends: func(b *bench, rev cluster.StoreRev) {
			b.put(store.GatewayAckKey("n1"), cluster.GatewayAck{Node: "n1", Entries: []string{"web"}, Route: rev})
		}},
		"refused": {ends: func(b *bench, rev cluster.StoreRev) {
			b.put(store.DecisionKey("proxyconf", "shop/web"), cluster.Decision{Loop: "proxyconf", Object: "shop/web", Reason: "route b.test: no"})
			b.put(store.GatewayAckKey("n1"), cluster.GatewayAck{Node: "n1", Entries: []string{"web"}, Route: rev})
		}, failed: true, says: "web: route b.test: no"},
		"lags": {ends: func(b *bench, rev cluster.StoreRev) {
			b.put(store.GatewayAckKey("n1"), cluster.GatewayAck{Node: "n1", Entries: []string{"web"}, Route: rev - 1, Error: "it reads nothing"})
		}, failed: true, says: "web: gateway n1 does not have the routes: it reads nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a refusal counts when it has stood for a while
			b := newBench(t)
			spec, svc := routed(t, b)
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete})

			spec.Routes = []cluster.Route{{Host: "b.test", Port: 80}}
			deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
			if now := get[cluster.Service](b, store.ServiceKey(webID)); now.Version != svc.Version {
				t.Fatalf("version %s became %s", svc.Version, now.Version)
			}
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 2, State: cluster.RolloutComplete})
			var last v1.Progress
			waited := false
			err := b.Watch(t.Context(), "shop", 2, nil, func(p v1.Progress) error {
				if last = p; !waited && !p.Done {
					waited = true
					if msg := p.Services[0].Message; msg != "waits for gateway n1 to have the routes" {
						t.Errorf("it says %q", msg)
					}
					c.ends(b, b.rev(store.ServiceKey(webID)))
				}
				return nil
			})
			if err != nil || !waited || !last.Done || last.Failed != c.failed || strings.Join(last.Unserved, "; ") != c.says {
				t.Errorf("waited %v: %+v %v", waited, last, err)
			}
		})
	}
}

// What is ready is not served yet: requests come to it once it is among the endpoints and
// the gateways have those.
func TestWatchWaitsForEndpoints(t *testing.T) {
	b := newBench(t)
	_, svc := routed(t, b)
	b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete})
	tasks := b.keys(store.PrefixTasks)
	one := get[cluster.Task](b, tasks[0])
	st := get[cluster.Status](b, store.StatusKey("n1", one.ID))
	st.Addresses = map[cluster.NetworkName]string{"shop_default": "10.1.0.2"}
	b.put(store.StatusKey("n1", one.ID), st)
	steps := []struct {
		says string
		then func()
	}{
		{"waits until requests are sent to shop/web.1", func() {
			b.put(store.EndpointsKey(webID), cluster.Endpoints{ServiceID: webID, Tasks: []cluster.Endpoint{{Task: one.ID, Slot: 1, Node: "n1", Addresses: st.Addresses}}})
		}},
		{"waits for gateway n1 to have the routes", func() {
			b.put(store.GatewayAckKey("n1"), cluster.GatewayAck{Node: "n1", Entries: []string{"web"}, Route: b.rev(store.EndpointsKey(webID))})
		}},
	}
	var last v1.Progress
	if err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
		if last = p; p.Done || len(steps) == 0 {
			return nil
		}
		if says := p.Services[0].Message; says == steps[0].says {
			steps[0].then()
			steps = steps[1:]
		}
		return nil
	}); err != nil || !last.Done || last.Failed || len(steps) > 0 {
		t.Errorf("%+v %v; not seen: %d", last, err, len(steps))
	}
}

// A route that went is gone from the gateways when the deploy says that it is done.
func TestWatchWaitsForRoutesToGo(t *testing.T) {
	for name, c := range map[string]struct {
		ack    cluster.GatewayAck
		failed bool
		says   string
	}{
		"gone": {},
		"lags": {ack: cluster.GatewayAck{Error: "it reads nothing"}, failed: true, says: "web: gateway n1 may still have the routes of before: it reads nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a refusal counts when it has stood for a while
			b := newBench(t)
			spec, svc := routed(t, b)
			spec.Routes = nil
			deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 2, State: cluster.RolloutComplete})
			var last v1.Progress
			waited := false
			err := b.Watch(t.Context(), "shop", 2, nil, func(p v1.Progress) error {
				if last = p; !waited && !p.Done {
					waited = true
					if msg := p.Services[0].Message; msg != "waits for gateway n1 to drop the routes" {
						t.Errorf("it says %q", msg)
					}
					c.ack.Node = "n1"
					if c.ack.Error == "" {
						c.ack.Route = b.rev(store.ServiceKey(webID))
					}
					b.put(store.GatewayAckKey("n1"), c.ack)
				}
				return nil
			})
			if err != nil || !waited || !last.Done || last.Failed != c.failed || strings.Join(last.Unserved, "; ") != c.says {
				t.Errorf("waited %v: %+v %v", waited, last, err)
			}

			// What never had routes waits for no gateway, whatever that has.
			spec.Labels = map[string]string{"a": "b"}
			deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 3, State: cluster.RolloutComplete})
			err = b.Watch(t.Context(), "shop", 3, nil, func(p v1.Progress) error { last = p; return nil })
			if err != nil || !last.Done || last.Failed || len(last.Unserved) > 0 {
				t.Errorf("without routes: %+v %v", last, err)
			}
		})
	}
}

// What is not routed is not served, though the gateways have its port.
func TestWatchSaysWhatIsNotRouted(t *testing.T) {
	for name, stands := range map[string]bool{"stands": true, "taken back": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a refusal counts when it has stood for a while
			b := newBench(t)
			_, svc := routed(t, b)
			key := store.DecisionKey("proxyconf", "shop/web")
			b.put(key, cluster.Decision{Loop: "proxyconf", Object: "shop/web", Reason: "route a.test (f.yaml:3): blog/www already has this host and path\nport 1/tcp: no"})
			b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, State: cluster.RolloutComplete})
			var last v1.Progress
			err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
				if last = p; p.Done || stands {
					return nil
				}
				_, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Delete: true}}})
				return err
			})
			var want []string
			if stands {
				want = []string{"web: route a.test (f.yaml:3): blog/www already has this host and path", "web: port 1/tcp: no"}
			}
			if err != nil || !last.Done || last.Failed != stands || !slices.Equal(last.Unserved, want) {
				t.Errorf("%+v %v", last, err)
			}
		})
	}
}

// An installation that is taken back leaves nothing to ask; why it failed is said all the same.
func TestWatchSaysWhyAnAppIsRemovedAgain(t *testing.T) {
	b := newBench(t)
	ch := cluster.PendingChange{App: "shop", ID: 7, Action: cluster.HookInstall, Release: 1, Atomic: true, Refused: "web: no room"}
	b.put(store.AppKey("shop"), cluster.App{Name: "shop", Uninstalled: true})
	b.put(store.ChangeKey("shop"), ch)
	b.put(store.ChangeRecordKey("shop"), cluster.ChangeRecord{
		App: "shop", Change: 7, Action: cluster.HookInstall, Release: 1, Stage: cluster.StageUndo, Failed: true, Message: "web: no room",
	})
	var last v1.Progress
	err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
		if last = p; p.Done {
			return nil
		}
		if p.Message != "web: no room; it is taken back" {
			t.Errorf("on its way: %+v", p)
		}
		_, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{
			{Key: store.AppKey("shop"), Delete: true}, {Key: store.ChangeKey("shop"), Delete: true}, {Key: store.ChangeRecordKey("shop"), Delete: true},
		}})
		return err
	})
	if err != nil || !last.Failed || last.Message != "web: no room; it is removed again" {
		t.Errorf("%+v %v", last, err)
	}
}

func TestWatchIsSuperseded(t *testing.T) {
	b := newBench(t)
	deployWeb(t, b, cluster.RolloutRunning)
	var last v1.Progress
	err := b.Watch(t.Context(), "shop", 1, nil, func(p v1.Progress) error {
		if last.App == "" {
			deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2")}))
		}
		last = p
		return nil
	})
	if err != nil || last.Superseded != 2 {
		t.Errorf("%+v %v", last, err)
	}
}

func TestStreamsEndWithTheirContextAndTheirCaller(t *testing.T) {
	b := newBench(t)
	deployWeb(t, b, cluster.RolloutRunning)
	ctx, cancel := context.WithCancel(t.Context())
	err := b.Watch(ctx, "shop", 1, nil, func(v1.Progress) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	stop := errors.New("enough")
	if err := b.Watch(t.Context(), "shop", 1, nil, func(v1.Progress) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestStates(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	svc := deployWeb(t, b, cluster.RolloutRunning)
	ready := b.run(webID, 1, svc.Version)
	lost := cluster.NewTaskID(webID, 2, 1, 99, "")
	b.put(store.TaskKey("shop", lost), cluster.Task{ID: lost, ServiceID: webID, Slot: 2, Version: svc.Version, Desire: cluster.DesireRun})
	b.put(store.DecisionKey("scheduler", "shop/web.2"), cluster.Decision{
		Loop: "scheduler", Object: "shop/web.2", Verdict: "unplaced",
		Refusals: []cluster.Refusal{{Filter: "resources", Nodes: 1, Examples: []string{"n1: needs 8 CPU, 4 free"}}},
	})
	b.await(func() bool {
		e, err := b.Explain(ctx, web)
		return err == nil && len(e[0].Decisions) == 1
	})
	tasks, err := b.Tasks(ctx, "shop", false)
	if err != nil || len(tasks) != 2 {
		t.Fatalf("%+v %v", tasks, err)
	}
	if tasks[0].Address != "shop/web.1" || tasks[0].State != "running" || !tasks[0].Ready || tasks[0].Node != "n1" || !tasks[0].Current {
		t.Errorf("%+v", tasks[0])
	}
	const why = "unplaced: resources (1 node): n1: needs 8 CPU, 4 free"
	if tasks[1].State != "unplaced" || tasks[1].Reason != why {
		t.Errorf("%+v", tasks[1])
	}
	if st, err := b.Status(ctx); err != nil || st.Unplaced != 1 || st.Ready != 1 || st.Wanted != 2 || !strings.Contains(strings.Join(st.Alarms, "\n"), why) || st.Alarms[0] != "the store is full" {
		t.Errorf("%+v %v", st, err)
	}
	if d, err := b.Task(ctx, ready); err != nil || d.Placement == nil || d.Status == nil {
		t.Errorf("%+v %v", d, err)
	}
	if d, err := b.Service(ctx, webID); err != nil || d.Ready != 1 || d.Rollout == nil || len(d.Tasks) != 2 || len(d.Decisions) != 1 {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := b.Service(ctx, cluster.ServiceID{App: "shop", Name: "wbe"}); cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), "it has web") {
		t.Errorf("%v", err)
	}
	b.put(store.DecisionKey("proxyconf", "shop/web"), cluster.Decision{Loop: "proxyconf", Object: "shop/web", Verdict: "not routed", Reason: "the rule is malformed"})
	if a, err := b.App(ctx, "shop"); err != nil || !slices.Contains(a.Problems, "shop/web: not routed: the rule is malformed") {
		t.Errorf("%+v %v", a.Problems, err)
	}
	// A record of an earlier service of the same name and version is not this one's.
	b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 1, Created: 1, State: cluster.RolloutComplete})
	if a, err := b.App(ctx, "shop"); err != nil || a.Each[0].State != "pending" {
		t.Errorf("%+v %v", a.Each, err)
	}
	b.put(store.RolloutKey(webID), cluster.Rollout{ServiceID: webID, Target: svc.Version, Release: 9, State: cluster.RolloutComplete})
	if a, err := b.App(ctx, "shop"); err != nil || a.Each[0].State != "pending" {
		t.Errorf("a record of another release: %+v %v", a.Each, err)
	}
	// Its engine is stuck: the node lives, and someone must look at it.
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", EngineAway: true})
	b.await(func() bool {
		st, err := b.Status(ctx)
		return err == nil && st.NodesAlive == 1 && strings.Contains(strings.Join(st.Alarms, "\n"), "node n1: its Docker engine does not answer")
	})
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", DiskFailure: "write assignment.json.new: no space left on device"})
	b.await(func() bool {
		st, err := b.Status(ctx)
		alarms := strings.Join(st.Alarms, "\n")
		return err == nil && st.NodesAlive == 1 && strings.Contains(alarms, "node n1 cannot keep on its disk") && strings.Contains(alarms, "no space left on device")
	})
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", Overlap: "10.213.0.0/16 (--pool) overlaps with 10.213.4.0/24, which is on interface eth1"})
	b.await(func() bool {
		st, err := b.Status(ctx)
		alarms := strings.Join(st.Alarms, "\n")
		return err == nil && strings.Contains(alarms, "node n1 has networks of its own among the cluster's addresses") && strings.Contains(alarms, "eth1")
	})
	b.put(store.NodeNetKey("n1"), cluster.NodeNet{Node: "n1", Short: 1})
	b.await(func() bool {
		st, err := b.Status(ctx)
		return err == nil && strings.Contains(strings.Join(st.Alarms, "\n"), "node n1 gets no more addresses for containers")
	})
	// The node goes away: what it said no longer counts.
	rev, err := b.store.Commit(ctx, store.Txn{Then: []store.Op{{Key: store.AliveKey("n1"), Delete: true}}})
	if err != nil {
		t.Fatal(err)
	}
	b.await(func() bool { st, err := b.Status(ctx); return err == nil && st.StoreRev >= rev })
	tasks, err = b.Tasks(ctx, "shop", false)
	if err != nil || tasks[0].Ready || tasks[0].State != "unknown" || tasks[0].Reason != "node n1 does not answer" {
		t.Errorf("%+v %v", tasks[0], err)
	}
}

func logLine(task cluster.TaskID, second int, text string) cluster.LogLine {
	return cluster.LogLine{Task: task, Stream: "stdout", Text: text, Time: time.Unix(int64(second), 0).UTC()}
}

func TestLogsAreMergedByTime(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	t1, t2 := b.run(webID, 1, svc.Version), b.run(webID, 2, svc.Version)
	b.host.lines[t1] = []cluster.LogLine{logLine(t1, 1, "a"), logLine(t1, 4, "d"), logLine(t1, 5, "e\nwith a break")}
	b.host.lines[t2] = []cluster.LogLine{logLine(t2, 2, "b"), logLine(t2, 3, "c")}
	collect := func(a cluster.Address, o client.LogQuery) string {
		var out []string
		if err := b.Logs(t.Context(), a, o, func(l cluster.LogLine) error { out = append(out, l.Text); return nil }); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, " ")
	}
	all := client.LogQuery{LogOptions: cluster.LogOptions{Tail: -1}}
	if got := collect(web, all); got != "a b c d e\nwith a break" {
		t.Errorf("%q", got)
	}
	if got := collect(cluster.Address{App: "shop"}, all); len(got) < 5 {
		t.Errorf("%q", got)
	}
	if got := collect(cluster.Address{App: "shop", Service: "web", Slot: 2}, all); got != "b c" {
		t.Errorf("%q", got)
	}
	if got := collect(web, client.LogQuery{LogOptions: cluster.LogOptions{Tail: 1}}); got != "c e\nwith a break" {
		t.Errorf("%q", got)
	}
	if got := collect(web, client.LogQuery{Task: t2, LogOptions: cluster.LogOptions{Tail: -1}}); got != "b c" {
		t.Errorf("%q", got)
	}
	err := b.Logs(t.Context(), cluster.Address{App: "shop", Service: "nope"}, all, func(cluster.LogLine) error { return nil })
	if cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("%v", err)
	}
}

func TestLogsFollowNewTasks(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	t1 := b.run(webID, 1, svc.Version)
	b.host.lines[t1] = []cluster.LogLine{logLine(t1, 1, "first")}
	later := cluster.NewTaskID(webID, 2, 1, 1, "") // the name that run gives the next task
	b.host.lines[later] = []cluster.LogLine{logLine(later, 2, "second")}
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	err := b.Logs(ctx, web, client.LogQuery{LogOptions: cluster.LogOptions{Follow: true, Tail: -1}}, func(l cluster.LogLine) error {
		got = append(got, string(l.Task)+" "+l.Text)
		switch len(got) {
		case 1:
			b.run(webID, 2, svc.Version)
		case 2:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{string(t1) + " first", string(later) + " second"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEventsHideWhatIsSecret(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var got []string
	done := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		done <- b.Events(ctx, "", func(e v1.Event) error {
			mu.Lock()
			defer mu.Unlock()
			if len(got) == 0 {
				close(begun)
			}
			got = append(got, e.Object+" "+e.Name+" "+e.Verb+" "+string(e.Data))
			return nil
		})
	}()
	for i := 0; ; i++ { // until the stream is there
		b.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Hostname: fmt.Sprint(i)})
		select {
		case <-begun:
		case <-time.After(5 * time.Millisecond):
			continue
		}
		break
	}
	if _, err := b.SetSecret(ctx, cluster.SecretRef{App: "shop", Name: "pw"}, v1.SecretSet{Value: v1.Plain("x")}); err != nil {
		t.Fatal(err)
	}
	b.put(store.SealedKey("n1", "shop_web.1.x"), cluster.Sealed{Data: []byte("x")})
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	b.await(func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "app shop set ") })
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	all := strings.Join(got, "\n")
	if strings.Contains(all, "sealed") || strings.Contains(all, "pw") || !strings.Contains(all, "service shop/web set") || !strings.Contains(all, "release shop/1 set") {
		t.Error(all)
	}
}

func TestExec(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	b.run(webID, 1, svc.Version)
	b.host.exec = func(_ context.Context, o cluster.ExecOptions, s api.Streams) (int, error) {
		if o.Command[0] == "fail" {
			return 0, cluster.NotFoundf("no such program")
		}
		in := []byte("nothing")
		if s.Stdin != nil {
			var err error
			if in, err = io.ReadAll(s.Stdin); err != nil {
				return 0, err
			}
		}
		// Only now: a size that comes behind input waits until the input is read.
		size := [2]uint{}
		if o.TTY {
			size = <-s.Resize
		}
		_, _ = fmt.Fprintf(s.Stdout, "%v %v %d:", o.Command, size, len(in))
		_, _ = s.Stdout.Write(in)
		_, _ = io.WriteString(s.Stderr, "warning")
		return 42, nil
	}
	big := bytes.Repeat([]byte("0123456789"), 30_000) // several frames each way
	var out, errs bytes.Buffer
	sizes := make(chan [2]uint, 1)
	sizes <- [2]uint{80, 24}
	code, err := b.Exec(t.Context(), web, cluster.ExecOptions{Command: []string{"cat"}, TTY: true}, client.ExecStreams{
		Stdin: bytes.NewReader(big), Stdout: &out, Stderr: &errs, Resize: sizes,
	})
	if err != nil || code != 42 || errs.String() != "warning" || out.String() != "[cat] [80 24] 300000:"+string(big) {
		t.Errorf("%d %v %q %.80q", code, err, errs.String(), out.String())
	}
	out.Reset()
	if code, err := b.Exec(t.Context(), web, cluster.ExecOptions{Command: []string{"x"}}, client.ExecStreams{Stdout: &out}); err != nil || code != 42 || out.String() != "[x] [0 0] 7:nothing" {
		t.Errorf("%d %v %q", code, err, out.String())
	}
	if _, err := b.Exec(t.Context(), web, cluster.ExecOptions{Command: []string{"fail"}}, client.ExecStreams{}); cluster.KindOf(err) != cluster.KindNotFound || err.Error() != "no such program" {
		t.Errorf("%v", err)
	}
	none := cluster.Address{App: "shop", Service: "web", Slot: 7}
	if _, err := b.Exec(t.Context(), none, cluster.ExecOptions{Command: []string{"x"}}, client.ExecStreams{}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("%v", err)
	}
}

func TestExecEndsWithItsClient(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	b.run(webID, 1, svc.Version)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	b.host.exec = func(ctx context.Context, _ cluster.ExecOptions, _ api.Streams) (int, error) {
		cancel()
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}
	if _, err := b.Exec(ctx, web, cluster.ExecOptions{Command: []string{"sleep"}}, client.ExecStreams{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the command goes on without its client")
	}
}

func TestForward(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	b.run(webID, 1, svc.Version)
	if _, err := b.Dial(t.Context(), web, 80); cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("a refused connection is an answer: %v", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // answers only once its client has said all
				all, _ := io.ReadAll(c)
				_, _ = fmt.Fprintf(c, "got %d", len(all))
				_ = c.Close()
			}()
		}
	}()
	b.host.addr = l.Addr().String()
	c, err := b.Dial(t.Context(), web, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write(bytes.Repeat([]byte("x"), 100_000))
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "got 100000" {
		t.Errorf("%q %v", got, err)
	}
}

func TestCopy(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	b.run(webID, 1, svc.Version)
	ctx := t.Context()
	data := bytes.Repeat([]byte("tar"), 1<<20)
	if err := b.CopyTo(ctx, web, "/data", bytes.NewReader(data)); err != nil || !bytes.Equal(b.host.files["/data"], data) {
		t.Errorf("%v, %d bytes", err, len(b.host.files["/data"]))
	}
	r, err := b.CopyFrom(ctx, web, "/data")
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(r)
	_ = r.Close()
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("%v, %d bytes", err, len(back))
	}
	if _, err := b.CopyFrom(ctx, web, "/none"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("%v", err)
	}
	if err := b.CopyTo(ctx, web, "relative", strings.NewReader("")); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("%v", err)
	}
	b.host.cut = true
	if r, err = b.CopyFrom(ctx, web, "/data"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil {
		t.Error("a copy that was cut short looks whole")
	}
	_ = r.Close()
}

func TestBuildAndImages(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	var out bytes.Buffer
	r, err := b.Build(ctx, v1.BuildOptions{App: "shop", Service: "Web_1"}, bytes.NewReader(make([]byte, 2<<20)), &out)
	want := v1.BuildResult{ID: "sha256:0123456789abcdef0123", Ref: "fairlead/shop-web-1:0123456789ab", Node: "n1"}
	if diff := cmp.Diff(want, r); err != nil || diff != "" || out.String() != "Step 1/1 : 2097152 bytes\n" {
		t.Errorf("%v %s %q", err, diff, out.String())
	}
	_, err = b.Build(ctx, v1.BuildOptions{App: "shop", Service: "web", Target: "broken"}, strings.NewReader(""), &out)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "Dockerfile:3") {
		t.Errorf("%v", err)
	}
	if list, err := b.Images(ctx, ""); err != nil || len(list) != 1 || list[0].Node != "n1" {
		t.Errorf("%+v %v", list, err)
	}
	if got, err := b.ResolveImage(ctx, want.Ref); err != nil || got.ID != want.ID {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := b.ResolveImage(ctx, "none"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("%v", err)
	}
}

func TestLocalSocketNeedsNoToken(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "s")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: b.srv, ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return api.Trusted(ctx, "root") },
	}
	go func() { _ = srv.Serve(l) }()
	defer func() { _ = srv.Close() }()
	c, err := client.New(client.Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Deploy(t.Context(), "shop", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")})); err != nil {
		t.Fatal(err)
	}
	if r := get[cluster.Release](b, store.ReleaseKey("shop", 1)); r.By != "root" {
		t.Errorf("by %q", r.By)
	}
	svc := get[cluster.Service](b, store.ServiceKey(webID))
	b.run(webID, 1, svc.Version)
	b.host.exec = func(context.Context, cluster.ExecOptions, api.Streams) (int, error) { return 3, nil }
	if code, err := c.Exec(t.Context(), web, cluster.ExecOptions{Command: []string{"x"}}, client.ExecStreams{}); err != nil || code != 3 {
		t.Errorf("%d %v", code, err)
	}
}

// A node that says a task runs there which has no place, or another one, is not believed:
// what is typed into the task, or copied to it, would go there.
func TestNobodySpeaksForATaskOfAnother(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutRunning)
	placed := b.run(webID, 1, svc.Version)
	waits := cluster.NewTaskID(webID, 2, 1, 99, "")
	b.put(store.TaskKey("shop", waits), cluster.Task{ID: waits, ServiceID: webID, Slot: 2, Version: svc.Version, Desire: cluster.DesireRun})
	for _, id := range []cluster.TaskID{placed, waits} {
		b.put(store.StatusKey("a-thief", id), cluster.Status{Task: id, Node: "a-thief", ServiceID: webID, State: cluster.StateRunning, Ready: true, Container: "c"})
	}
	b.await(func() bool {
		tasks, err := b.Tasks(t.Context(), "shop", false)
		return err == nil && len(tasks) == 2
	})
	for id, at := range map[cluster.TaskID]cluster.NodeID{placed: "n1", waits: ""} {
		if d, err := b.Task(t.Context(), id); err != nil || d.Node != at || d.Status != nil && d.Status.Node != at || d.Ready != (at != "") {
			t.Errorf("%s: %+v %v", id, d, err)
		}
	}
	web2 := web
	web2.Slot = 2
	if err := b.Logs(t.Context(), web2, client.LogQuery{LogOptions: cluster.LogOptions{Tail: -1}}, func(l cluster.LogLine) error {
		t.Errorf("%+v", l)
		return nil
	}); err != nil {
		t.Error(err)
	}
}
