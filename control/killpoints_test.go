package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
)

// mortal is a store as a server sees it that is killed with one of its steps, which are
// its writes and, to what is beyond the cluster, its requests: before it happens, or after,
// when the answer is lost. From then on nothing of it gets through.
type mortal struct {
	store.Store
	mu    sync.Mutex
	left  int  // steps until then; 0: it lives on
	after bool // the last step happens
	wrote int
	dead  bool
	die   func()
}

func (m *mortal) Commit(ctx context.Context, t store.Txn) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	happens, answered := m.next()
	if !answered {
		m.die()
	}
	if !happens {
		return 0, cluster.Transientf("the server is dead")
	}
	rev, err := m.Store.Commit(ctx, t)
	if !answered {
		return 0, cluster.Transientf("the server is dead")
	}
	return rev, err
}

// step is one of what is beyond the cluster.
func (m *mortal) step() (happens, answered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next()
}

// next is one more step, which happens or not, and of which the server learns or not.
func (m *mortal) next() (happens, answered bool) {
	if m.dead {
		return false, false
	}
	m.wrote++
	if m.left > 0 && m.wrote == m.left {
		m.dead = true
		return m.after, false
	}
	return true, true
}

// killAt arms it: the n-th step from now is the last.
func (m *mortal) killAt(n int, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrote, m.left, m.after = 0, n, after
}

func (m *mortal) writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wrote
}

// world is a cluster in memory: a server that can be killed, and a node that stays.
type world struct {
	t      *testing.T
	st     *store.Memory
	srv    *mortal
	api    *api.Server
	mirror *store.Mirror
	end    context.CancelFunc
	wg     *sync.WaitGroup
	src    *source
	beyond *beyond // what is really fetched from, in place of src; or nil

	mu   sync.Mutex
	runs []cluster.TaskID // hooks' tasks that were started, in their order
	seen map[cluster.TaskID]bool
}

type noHosts struct{}

func (noHosts) Tasks(cluster.NodeID) (api.TaskHost, error) {
	return nil, cluster.NotFoundf("no such node")
}

func (noHosts) Images(cluster.NodeID) (api.ImageHost, error) {
	return nil, cluster.NotFoundf("no such node")
}

func newWorld(t *testing.T, b *beyond) *world {
	t.Helper()
	w := &world{t: t, st: store.NewMemory(), seen: map[cluster.TaskID]bool{}, src: &source{told: map[int64]string{}}, beyond: b}
	w.src.push("one", delivered("1"))
	write(t, w.st, store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", Hostname: "n1", CPU: 64000, Memory: 64 << 30, OS: "linux", Arch: "amd64"})
	write(t, w.st, store.AliveKey("n1"), true)
	w.start()
	return w
}

// start starts a server as server.lead does.
func (w *world) start() {
	ctx, cancel := context.WithCancel(w.t.Context())
	m := &mortal{Store: w.st, die: cancel}
	w.srv, w.end, w.wg = m, cancel, &sync.WaitGroup{}
	log := hclog.NewNullLogger()
	mirror := store.NewMirror(m, store.Root, log)
	w.mirror = mirror
	w.wg.Go(func() { _ = mirror.Run(ctx) })
	<-mirror.Ready()
	key, err := sealed.NewKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		w.t.Fatal(err)
	}
	w.api, err = api.New(api.Config{
		Store: store.Guarded(m, store.WriterAPI), Mirror: mirror, Hosts: noHosts{}, Keeper: key, Now: time.Now, Log: log, Domain: "example.test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var do control.Deliverer = follower{w.api, w.src}
	if w.beyond != nil {
		do = w.beyond.follower(m, w.api, w.src)
	}
	c := store.Candidate{Store: m, Name: "leader", ID: "n1", Unique: true, Now: time.Now, Log: log}
	w.wg.Go(func() {
		_ = c.Lead(ctx, func(ctx context.Context, fenced store.Store, _ time.Time) error {
			as := func(wr store.Writer) store.Store { return store.Guarded(fenced, wr) }
			var wg sync.WaitGroup
			for _, l := range []interface{ Run(context.Context) error }{
				control.Rollout(as(store.WriterRollout), mirror, time.Now, log),
				control.Hooks(as(store.WriterHooks), mirror, time.Now, log),
				control.Changes(mirror, w.api, log),
				control.Scheduler(as(store.WriterScheduler), mirror, time.Now, log),
				control.NewDeliveries(as(store.WriterDelivery), mirror, control.DeliveryOptions{Do: do, Now: time.Now}, log),
			} {
				wg.Go(func() { _ = l.Run(ctx) })
			}
			wg.Wait()
			return context.Cause(ctx)
		})
	})
}

// stop ends the server, and waits until nothing of it is left.
func (w *world) stop() {
	w.end()
	w.wg.Wait()
}

// agent runs what is placed, as a node's agent does: a command says what becomes of it.
func (w *world) agent(ctx context.Context) {
	seen, works := int64(0), false
	for ctx.Err() == nil {
		if rev := w.revision(); rev != seen || works {
			seen = rev
			works = w.look()
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// revision is that of the last change: as long as it stays, there is nothing new to see.
func (w *world) revision() int64 {
	_, rev, err := w.st.List(context.WithoutCancel(w.t.Context()), "none/")
	if err != nil {
		w.t.Fatal(err)
	}
	return rev
}

// look takes every container a step on, and says whether one of them will end by itself.
func (w *world) look() (works bool) {
	placed := map[cluster.TaskID]bool{}
	for _, p := range all[cluster.NodePlacement](w, store.PrefixPlacements) {
		placed[p.Task] = true
		st, known := one[cluster.Status](w, store.StatusKey("n1", p.Task))
		if known && st.State.Terminal() {
			continue
		}
		next := cluster.Status{Task: p.Task, Node: "n1", ServiceID: p.ServiceID, Slot: p.Slot, Version: p.Version, Container: "c", At: time.Now(), Started: time.Now()}
		if known {
			next.Started = st.Started
		}
		what := strings.Join(p.Spec.Command, "")
		if strings.HasSuffix(p.Spec.Image, "-bad") {
			what = "fail"
		}
		switch {
		case p.Desire == cluster.DesireStop:
			next.State = cluster.StateStopped
		case what == "job" && time.Since(next.Started) >= time.Second:
			next.State = cluster.StateComplete
		case what == "fail" && time.Since(next.Started) >= time.Second:
			next.State, next.ExitCode, next.LogTail = cluster.StateFailed, 3, []string{"no"}
		default:
			next.State, next.Ready, next.ReadySince = cluster.StateRunning, true, next.Started
			works = works || what == "job" || what == "fail"
		}
		if known && st.State == next.State {
			continue
		}
		w.mu.Lock()
		if !w.seen[p.Task] && strings.Contains("job fail", what) && what != "" {
			w.seen[p.Task] = true
			w.runs = append(w.runs, p.Task)
		}
		w.mu.Unlock()
		write(w.t, w.st, store.StatusKey("n1", p.Task), next)
	}
	for _, st := range all[cluster.Status](w, store.PrefixStatus) {
		if !placed[st.Task] {
			erase(w.t, w.st, store.StatusKey("n1", st.Task))
		}
	}
	return works
}

// begun counts the hooks that were started.
func (w *world) begun() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.runs)
}

func all[T any](w *world, prefix string) []T {
	entries, _, err := w.st.List(context.WithoutCancel(w.t.Context()), prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]T, len(entries))
	for i, e := range entries {
		if err := json.Unmarshal(e.Value, &out[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

func one[T any](w *world, key string) (T, bool) {
	list := all[T](w, key)
	if len(list) == 0 {
		var zero T
		return zero, false
	}
	return list[0], true
}

// ask makes a request of the server; 0 is no answer.
func (w *world) ask(method, path string, body any) (int, string) {
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	if !strings.HasPrefix(path, "/v1/") {
		path = "/v1/apps/shop" + path
	}
	req := httptest.NewRequestWithContext(api.Trusted(w.t.Context(), "ann"), method, path, bytes.NewReader(data))
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

// must makes a request that is granted, and waits until all is over.
func (w *world) must(method, path string, body any) {
	w.t.Helper()
	if code, says := w.ask(method, path, body); code != http.StatusOK {
		w.t.Fatalf("%s %s: %d %s", method, path, code, says)
	}
	if why := w.settle(); why != "" {
		w.t.Fatalf("%s %s: %s", method, path, why)
	}
}

// settle waits until nothing is on its way any more, and says what is stuck.
func (w *world) settle() string {
	why, seen := "", int64(0)
	for range 600 { // five minutes of the bubble's time
		time.Sleep(500 * time.Millisecond)
		rev := w.revision()
		if rev == seen {
			continue // as stuck as before
		}
		seen = rev
		if why = w.stuck(); why == "" {
			return ""
		}
	}
	return why
}

// stuck says what is on its way.
func (w *world) stuck() string {
	app, there := one[cluster.App](w, store.AppKey("shop"))
	ch, pending := one[cluster.PendingChange](w, store.ChangeKey("shop"))
	rec, recorded := one[cluster.ChangeRecord](w, store.ChangeRecordKey("shop"))
	tasks := all[cluster.Task](w, store.PrefixTasks)
	services := all[cluster.Service](w, store.AppPrefix("shop")+"services/")
	switch {
	case !there && (pending || recorded || len(tasks)+len(services) > 0):
		return fmt.Sprintf("the app is gone, and of it are left: change %v, record %v, %d services, %d tasks", pending, recorded, len(services), len(tasks))
	case !there:
		return w.unsettled()
	case pending && ch.StageOf(rec) != cluster.StageDone:
		return fmt.Sprintf("the change %+v stands at %s: %+v", ch.Action, ch.StageOf(rec), rec)
	}
	for _, tk := range tasks {
		st, _ := one[cluster.Status](w, store.StatusKey("n1", tk.ID))
		if tk.Hook != "" && !st.State.Terminal() {
			return fmt.Sprintf("hook task %s is left: %s", tk.ID, st.State)
		}
		if tk.Hook == "" && tk.Desire != cluster.DesireRun && tk.Outcome == nil {
			return fmt.Sprintf("task %s is on its way to %s", tk.ID, tk.Desire)
		}
	}
	for _, o := range all[cluster.ReleaseOutcome](w, store.PrefixOutcomes) {
		if o.State == "running" {
			return fmt.Sprintf("release %d is said to run", o.Number)
		}
	}
	if _, ok := one[cluster.ReleaseOutcome](w, store.OutcomeKey("shop", app.Release)); !ok && !app.Uninstalled {
		return fmt.Sprintf("nothing is said of release %d", app.Release)
	}
	return w.unsettled()
}

// picture is what there is, as a user would see it: releases' numbers are none of it.
func (w *world) picture() string {
	app, there := one[cluster.App](w, store.AppKey("shop"))
	if !there {
		return "no app"
	}
	services := map[cluster.ServiceName]string{}
	for _, s := range all[cluster.Service](w, store.AppPrefix("shop")+"services/") {
		services[s.Name] = s.Spec.Task.Image
	}
	runs := map[string]int{}
	for _, tk := range all[cluster.Task](w, store.PrefixTasks) {
		if tk.Hook == "" && tk.Outcome == nil {
			runs[string(tk.Name)+"="+tk.Spec.Image]++
		}
	}
	var out []string
	for _, n := range slices.Sorted(maps.Keys(services)) {
		out = append(out, fmt.Sprintf("%s is %s", n, services[n]))
	}
	for _, n := range slices.Sorted(maps.Keys(runs)) {
		out = append(out, fmt.Sprintf("%d of %s", runs[n], n))
	}
	o, _ := one[cluster.ReleaseOutcome](w, store.OutcomeKey("shop", app.Release))
	if !app.Uninstalled {
		out = append(out, o.State)
	}
	return strings.Join(append(out, fmt.Sprintf("uninstalled %v", app.Uninstalled)), ", ")
}

// hooked is a hook that runs a command at some points.
func hooked(name, command string, weight int, events ...cluster.HookEvent) cluster.Hook {
	return cluster.Hook{Service: cluster.ServiceName(name), Weight: weight, Events: events, Spec: cluster.ServiceSpec{
		Mode: cluster.Replicated, Replicas: 1, Task: cluster.TaskSpec{Image: name + ":1", Command: []string{command}}, Restart: cluster.RestartPolicy{Condition: "none"},
	}}
}

// packaged is a package of services with these images, and hooks.
func packaged(version string, images map[cluster.ServiceName]string, hooks ...cluster.Hook) v1.Bundle {
	b := v1.Bundle{Services: map[cluster.ServiceName]cluster.ServiceSpec{}, Hooks: hooks, Rendered: version, Package: &v1.Package{Chart: "shop", Version: version}}
	for n, img := range images {
		b.Services[n] = cluster.ServiceSpec{Mode: cluster.Replicated, Replicas: 2, Task: cluster.TaskSpec{Image: img}}
	}
	return b
}

func goodHooks() []cluster.Hook {
	return []cluster.Hook{
		hooked("first", "job", -1, cluster.PreInstall, cluster.PreUpgrade, cluster.PreRollback, cluster.PreDelete),
		hooked("second", "job", 3, cluster.PreInstall, cluster.PreUpgrade),
		hooked("last", "job", 0, cluster.PostInstall, cluster.PostUpgrade, cluster.PostRollback, cluster.PostDelete),
	}
}

func version1() v1.Bundle {
	return packaged("1.0.0", map[cluster.ServiceName]string{"web": "web:1", "old": "old:1"}, goodHooks()...)
}

func version2(hooks ...cluster.Hook) v1.Bundle {
	return packaged("2.0.0", map[cluster.ServiceName]string{"web": "web:2", "new": "new:1"}, append(goodHooks(), hooks...)...)
}

// brokenVersion is a release that a hook behind it fails. It has a test, and a hook that
// refuses its removal.
func brokenVersion() v1.Bundle {
	return version2(hooked("breaks", "fail", 9, cluster.PostUpgrade), hooked("looks", "job", 0, cluster.TestEvent), hooked("refuses", "fail", 9, cluster.PreDelete))
}

// operation is what the server is killed in.
type operation struct {
	name   string
	before func(w *world)
	method string
	path   string
	body   any
	want   string // the picture after it
	hooks  int    // that run in it
	says   string // in the status, after it
	// meanwhile happens half a second after it was asked for; or nil
	meanwhile func(w *world)
}

func operations() []operation {
	atomic := version2(hooked("breaks", "fail", 9, cluster.PostUpgrade))
	atomic.Atomic = true
	halfway := version1()
	halfway.Hooks = append(halfway.Hooks, hooked("breaks", "fail", 9, cluster.PostInstall))
	halfway.Atomic = true
	leaving := version1()
	leaving.Hooks = append(leaving.Hooks, hooked("leaves", "fail", 9, cluster.PostDelete))
	install := func(w *world) { w.must(http.MethodPost, "/deploy", version1()) }
	upgrade := func(w *world) { install(w); w.must(http.MethodPost, "/deploy", version2()) }
	broken := func(w *world) { install(w); w.must(http.MethodPost, "/deploy", brokenVersion()) }
	const one, two = "old is old:1, web is web:1, 2 of old=old:1, 2 of web=web:1, complete, uninstalled false", "new is new:1, web is web:2, 2 of new=new:1, 2 of web=web:2, complete, uninstalled false"
	return []operation{
		{"install", func(*world) {}, http.MethodPost, "/deploy", version1(), one, 3, "", nil},
		{"upgrade", install, http.MethodPost, "/deploy", version2(), two, 3, "", nil},
		{"rollback", upgrade, http.MethodPost, "/rollback", v1.RollbackRequest{}, one, 2, "", nil},
		{"rollback while hooks run", func(w *world) { install(w); w.ask(http.MethodPost, "/deploy", hanging()); w.hangs() }, http.MethodPost, "/rollback", v1.RollbackRequest{}, one, 0, "called off", nil},
		{"uninstall", upgrade, http.MethodDelete, "", nil, "no app", 2, "", nil},
		{"uninstall, history kept", upgrade, http.MethodDelete, "?keep_history=true", nil, "uninstalled true", 2, "", nil},
		{"upgrade, a hook before it fails", install, http.MethodPost, "/deploy", version2(hooked("breaks", "fail", 9, cluster.PreUpgrade)), one, 3, "", nil},
		{"upgrade, taken back", install, http.MethodPost, "/deploy", atomic, one, 4 + 2, "", nil},
		{"installation, taken back", func(*world) {}, http.MethodPost, "/deploy", halfway, "no app", 4 + 2, "", nil},
		{"upgrade, refused after its hooks", install, http.MethodPost, "/deploy", routed(atomic, "new.test"), one, 2, "new.test", taken("new.test")},
		{
			"upgrade, which cannot be taken back", func(w *world) { w.must(http.MethodPost, "/deploy", routed(version1(), "old.test")) },
			http.MethodPost, "/deploy", routed(atomic, "new.test"), strings.Replace(two, "complete", "failed", 1), 4, "it cannot be taken back", taken("old.test"),
		},
		{"installation, refused after its hooks", func(*world) {}, http.MethodPost, "/deploy", routed(halfway, "new.test"), "no app", 2, "", taken("new.test")},
		{"tests of a release that a hook failed", broken, http.MethodPost, "/test", v1.TestRequest{}, strings.Replace(two, "complete", "failed", 1), 1, "post-upgrade hook breaks failed", nil},
		{"removal of it, which a hook refuses", broken, http.MethodDelete, "", nil, strings.Replace(two, "complete", "failed", 1), 2, "post-upgrade hook breaks failed", nil},
		{"removal that a hook behind it fails", func(w *world) { w.must(http.MethodPost, "/deploy", leaving) }, http.MethodDelete, "", nil, "uninstalled true", 3, "post-delete hook leaves failed", nil},
	}
}

// large is a bundle that fits into no single transaction of the store: 111 services of
// which web alone has tasks, and 1.6 megabytes of configs.
func large(version string, pkg *v1.Package) v1.Bundle {
	b := packaged(version, map[cluster.ServiceName]string{"web": "web:" + version})
	b.Package, b.Configs = pkg, map[string][]byte{}
	for i := range 110 {
		b.Services[cluster.ServiceName(fmt.Sprintf("s%03d", i))] = cluster.ServiceSpec{Mode: cluster.Replicated, Task: cluster.TaskSpec{Image: "s:" + version}}
	}
	for _, n := range []cluster.ServiceName{"web", "s000", "s001"} {
		b.Configs[string(n)] = bytes.Repeat([]byte(version), 110<<10)
		spec := b.Services[n]
		spec.Task.Configs = []cluster.FileRef{{Name: string(n), Target: "/file"}}
		b.Services[n] = spec
	}
	return b
}

// largeOperations are those whose writes take several transactions.
func largeOperations() []operation {
	picture := func(version string) string {
		var out []string
		for i := range 110 {
			out = append(out, fmt.Sprintf("s%03d is s:%s", i, version))
		}
		return strings.Join(out, ", ") + fmt.Sprintf(", web is web:%s, 2 of web=web:%[1]s, complete, uninstalled false", version)
	}
	var out []operation
	for name, pkg := range map[string]func(version string) *v1.Package{
		"package": func(version string) *v1.Package { return &v1.Package{Chart: "shop", Version: version} },
		"file":    func(string) *v1.Package { return nil },
	} {
		first, second := large("1.0.0", pkg("1.0.0")), large("2.0.0", pkg("2.0.0"))
		install := func(w *world) { w.must(http.MethodPost, "/deploy", first) }
		upgrade := func(w *world) { install(w); w.must(http.MethodPost, "/deploy", second) }
		images := map[cluster.ServiceName]v1.ImageRef{}
		for n := range first.Services {
			if n != "web" {
				images[n] = v1.ImageRef{Ref: "s:3"}
			}
		}
		updated := strings.ReplaceAll(picture("1.0.0"), "s:1.0.0", "s:3")
		out = append(out,
			operation{name + ": install", func(*world) {}, http.MethodPost, "/deploy", first, picture("1.0.0"), 0, "", nil},
			operation{name + ": upgrade", install, http.MethodPost, "/deploy", second, picture("2.0.0"), 0, "", nil},
			operation{name + ": new images", install, http.MethodPost, "/update", v1.UpdateRequest{Images: images}, updated, 0, "", nil},
			operation{name + ": rollback", upgrade, http.MethodPost, "/rollback", v1.RollbackRequest{}, picture("1.0.0"), 0, "", nil},
			operation{name + ": uninstall", upgrade, http.MethodDelete, "", nil, "no app", 0, "", nil},
			operation{name + ": forget what was uninstalled", func(w *world) { upgrade(w); w.must(http.MethodDelete, "?keep_history=true", nil) }, http.MethodDelete, "", nil, "no app", 0, "", nil},
		)
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.name, b.name) })
	return out
}

// routed is a package whose web has a route.
func routed(b v1.Bundle, host string) v1.Bundle {
	b.Services = maps.Clone(b.Services)
	web := b.Services["web"]
	web.Routes = []cluster.Route{{Host: host, Port: 80}}
	b.Services["web"] = web
	return b
}

// taken is that another app takes a route.
func taken(host string) func(*world) {
	return func(w *world) {
		id := cluster.ServiceID{App: "blog", Name: "www"}
		write(w.t, w.st, store.ServiceKey(id), cluster.Service{ServiceID: id, Version: "v", Release: 1, Spec: cluster.ServiceSpec{
			Mode: cluster.Replicated, Routes: []cluster.Route{{Host: host, Port: 80}}, Task: cluster.TaskSpec{Image: "blog:1"},
		}})
	}
}

// try runs an operation in a world of its own; with n > 0 the server is killed with
// its n-th write and another one started. It returns how many writes there were, and
// what is not as it should be.
func (o operation) try(t *testing.T, n int, after bool) (writes int, wrong string) {
	t.Helper()
	inWorld(t, func(w *world) {
		o.before(w)
		was, hooks, earlier := w.picture(), w.begun(), w.asked()
		w.srv.killAt(n, after)
		code, says := w.ask(o.method, o.path, o.body)
		if o.meanwhile != nil {
			time.Sleep(500 * time.Millisecond)
			o.meanwhile(w)
		}
		if n == 0 {
			if code != http.StatusOK {
				wrong = fmt.Sprintf("refused: %d %s", code, says)
				return
			}
			if wrong = w.settle(); wrong == "" {
				wrong = o.check(w, o.want, hooks, o.hooks)
			}
			if _, status := w.ask(http.MethodGet, "", nil); wrong == "" && !strings.Contains(status, o.says) {
				wrong = fmt.Sprintf("the status does not say %q: %s", o.says, status)
			}
			writes = w.srv.writes()
			return
		}
		if w.awaitDeath() {
			writes = n
		}
		want, runs := o.want, o.hooks
		if w.asked() == earlier && w.picture() == was && w.begun() == hooks {
			want, runs = was, 0 // it was killed before it wrote down what was asked for
		}
		w.start()
		if wrong = w.settle(); wrong != "" {
			return
		}
		wrong = o.check(w, want, hooks, runs)
		if wrong == "" {
			wrong = w.usable()
		}
	})
	return writes, wrong
}

// asked tells the pending change from others.
func (w *world) asked() int64 {
	ch, _ := one[cluster.PendingChange](w, store.ChangeKey("shop"))
	return ch.ID
}

func (w *world) died() bool {
	w.srv.mu.Lock()
	defer w.srv.mu.Unlock()
	return w.srv.dead
}

// check compares what there is, and how many hooks ran, each once.
func (o operation) check(w *world, want string, before, hooks int) string {
	if got := w.picture(); got != want {
		return fmt.Sprintf("there is %q, not %q", got, want)
	}
	if n := w.begun() - before; n != hooks {
		return fmt.Sprintf("%d hooks ran, not %d", n, hooks)
	}
	return ""
}

// usable asks for another change: no lock of the one before is left.
func (w *world) usable() string {
	code, says := w.ask(http.MethodPost, "/deploy", packaged("3.0.0", map[cluster.ServiceName]string{"web": "web:3"}))
	if code != http.StatusOK {
		return fmt.Sprintf("the next change is refused: %d %s", code, says)
	}
	return w.settle()
}

// killPoint is a step that a server is killed with: before it happens, or after.
type killPoint struct {
	n     int
	after bool
}

// everyPoint says that the server is to be killed with every one of its steps.
func everyPoint() bool { return os.Getenv("FAIRLEAD_KILL_POINTS") == "all" }

// killPoints kills the server with its writes in an operation: before the write happens,
// and after it. It takes every fourth of them, three of a few, and no more than about so many, or with
// FAIRLEAD_KILL_POINTS=all every one both ways, and says how many.
func killPoints(t *testing.T, most int, try func(t *testing.T, n int, after bool) (writes int, wrong string)) (points int) {
	t.Helper()
	writes, wrong := try(t, 0, false)
	if wrong != "" {
		t.Fatalf("without a kill: %s", wrong)
	}
	every := min(max(4, writes/most), max(1, writes/3)) // of a short one three at least
	var at []killPoint
	for n := (every + 1) / 2; n <= writes && !everyPoint(); n += every {
		at = append(at, killPoint{n, n/every%2 == 0}) // the write before it happens either way
	}
	if everyPoint() {
		at = firstPoints(writes)
	}
	killEach(t, at, try)
	return len(at)
}

// firstPoints are all of so many steps, both ways.
func firstPoints(n int) (out []killPoint) {
	for i := range n {
		out = append(out, killPoint{i + 1, false}, killPoint{i + 1, true})
	}
	return out
}

// killEach kills the server at each of the points. bench/packages.go counts the lines.
func killEach(t *testing.T, at []killPoint, try func(t *testing.T, n int, after bool) (writes int, wrong string)) {
	t.Helper()
	stuck := 0
	for _, p := range at {
		if _, wrong := try(t, p.n, p.after); wrong != "" {
			stuck++
			t.Errorf("killed with write %d (it happens: %v): %s", p.n, p.after, wrong)
		}
	}
	t.Logf("kill points: %d, stuck: %d", len(at), stuck)
}

// inWorld runs f in a world of its own, with an agent.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	inWorldWith(t, nil, f)
}

// inWorldWith is inWorld, with something beyond that the app follows.
func inWorldWith(t *testing.T, b *beyond, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, b)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { w.agent(ctx) })
		defer func() {
			w.stop()
			cancel()
			wg.Wait()
		}()
		f(w)
	})
}

// awaitDeath waits until the server was killed, and until nothing of it is left.
func (w *world) awaitDeath() (killed bool) {
	for range 600 {
		if killed = w.died(); killed {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.stop()
	return killed
}

// TestKillPoints kills the server in each operation that people ask for.
func TestKillPoints(t *testing.T) {
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			if points := killPoints(t, 6, o.try); points < 3 {
				t.Errorf("%d kill points are too few to tell", points)
			}
		})
	}
}

// TestKillPointsOfLargeApps kills the server between the transactions that one change of
// a large app takes. They are the first of its writes; what comes then is as in a small one.
func TestKillPointsOfLargeApps(t *testing.T) {
	for i, o := range largeOperations() {
		t.Run(o.name, func(t *testing.T) {
			if everyPoint() {
				writes, wrong := o.try(t, 0, false)
				if wrong != "" {
					t.Fatalf("without a kill: %s", wrong)
				}
				killEach(t, firstPoints(min(writes, 12)), o.try)
				return
			}
			// One, as large apps take long: an early write that happens and a late one that does
			// not, in turn.
			at := killPoint{3, true}
			if i%2 == 1 {
				at = killPoint{9, false}
			}
			killEach(t, []killPoint{at}, func(t *testing.T, n int, after bool) (int, string) {
				t.Helper()
				writes, wrong := o.try(t, n, after)
				if wrong == "" && writes < n {
					wrong = "it has fewer writes: it was not killed"
				}
				return writes, wrong
			})
		})
	}
}
