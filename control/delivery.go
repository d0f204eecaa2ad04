package control

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/store"
)

// Deliverer acts for deliveries: on their sources, and on apps.
type Deliverer interface {
	// Look fetches the source and says how the app differs from it. With an error the
	// proposal says no more than what the source has, if that is known.
	Look(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (Proposal, error)
	// Strayed says how the app differs from the last good release.
	Strayed(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (changes []string, err error)
	// GoBack makes the last good release again; changed is false where the app is so already.
	GoBack(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (made int, changed bool, err error)
	// Send tells those whom the delivery names what of the outbox they have not heard, and
	// returns how far each is then, by its key.
	Send(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (heard map[string]int64, err error)
}

// Proposal is a look at a source, with the deploy that it may lead to.
type Proposal struct {
	Look delivery.Look
	// Deploy makes the app so, and returns the release. It fails when the app has
	// changed since.
	Deploy func(ctx context.Context) (release int, err error)
}

// DeliveryOptions configure the deliveries' loop.
type DeliveryOptions struct {
	Do       Deliverer
	AtOnce   int // how many are worked on; 0: 4
	Now      func() time.Time
	Finished func() // after each piece of work; may be nil
}

const (
	deliveriesAtOnce = 4
	deliveryGather   = 100 * time.Millisecond
)

// Deliveries makes apps follow their sources. Work is done beside the loop: fetching
// takes its time.
type Deliveries struct {
	store  store.Store
	mirror *store.Mirror
	opts   DeliveryOptions
	log    hclog.Logger
	loop   *loop.Loop[delivery.Snapshot, delivery.Action]
	wake   chan struct{}
	work   sync.WaitGroup

	mu        sync.Mutex
	busy      map[cluster.DeliveryName]piece
	held      map[cluster.DeliveryName]unwritten
	committed int64 // revision of the last write
}

// piece is what is being done for a delivery, as it was then.
type piece struct {
	spec  cluster.StoreRev
	since time.Time
	end   context.CancelFunc
}

// unwritten is a delivery whose state the store does not take: it is left alone until then,
// unless somebody asks or changes it.
type unwritten struct {
	until    time.Time
	failures int
	ask      int64
	spec     cluster.StoreRev
}

// NewDeliveries makes the loop of deliveries.
func NewDeliveries(st store.Store, m *store.Mirror, opts DeliveryOptions, log hclog.Logger) *Deliveries {
	if opts.AtOnce <= 0 {
		opts.AtOnce = deliveriesAtOnce
	}
	d := &Deliveries{store: st, mirror: m, opts: opts, log: log, wake: make(chan struct{}, 1), busy: map[cluster.DeliveryName]piece{}, held: map[cluster.DeliveryName]unwritten{}}
	d.loop = &loop.Loop[delivery.Snapshot, delivery.Action]{
		Name: "delivery", Snapshot: d.snapshot, Plan: delivery.Plan, Apply: d.apply, Wake: delivery.Wake,
		Changed: func() <-chan struct{} { return d.wake }, Resync: 30 * time.Second, Gather: deliveryGather, Log: log,
	}
	return d
}

// Run plans until ctx ends, and ends when all that it started has ended.
func (d *Deliveries) Run(ctx context.Context) error {
	defer d.work.Wait()
	d.work.Go(func() {
		for {
			changed := d.mirror.Changed()
			select {
			case <-ctx.Done():
				return
			case <-changed:
				d.signal()
			}
		}
	})
	return d.loop.Run(ctx)
}

func (d *Deliveries) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Deliveries) snapshot(ctx context.Context) (delivery.Snapshot, error) {
	s := delivery.Snapshot{Now: d.opts.Now().UTC(), Busy: map[cluster.DeliveryName]cluster.StoreRev{}, Since: map[cluster.DeliveryName]time.Time{}}
	d.mu.Lock()
	committed := d.committed
	for n, p := range d.busy {
		s.Busy[n], s.Since[n] = p.spec, p.since
	}
	d.mu.Unlock()
	s.Free = d.opts.AtOnce - len(s.Busy)
	if err := caughtUp(ctx, d.mirror, committed); err != nil {
		return s, err
	}
	d.mirror.Read(func(v store.View) { s.Deliveries, s.Orphans = deliveryItems(v) })
	s.Later = d.later(s.Deliveries)
	return s, nil
}

// later are the deliveries that are held, of those that there are.
func (d *Deliveries) later(items []delivery.Item) map[cluster.DeliveryName]time.Time {
	out := map[cluster.DeliveryName]time.Time{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range items {
		if h, is := d.held[i.Spec.Name]; is && h.ask == i.Ask && h.spec == i.Spec.Rev {
			out[i.Spec.Name] = h.until
		}
	}
	maps.DeleteFunc(d.held, func(n cluster.DeliveryName, _ unwritten) bool { _, is := out[n]; return !is })
	return out
}

// wrote notes whether what became of a delivery could be written. Another one's write is
// seen at the next look; what the store refuses would be made again at once, and keep the
// others from their turn.
func (d *Deliveries) wrote(i delivery.Item, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		delete(d.held, i.Spec.Name)
	case cluster.KindOf(err) == cluster.KindConflict:
		d.log.Info("the delivery was changed meanwhile; looking again", "delivery", i.Spec.Name, "error", err)
	default:
		h := unwritten{failures: d.held[i.Spec.Name].failures + 1, ask: i.Ask, spec: i.Spec.Rev}
		wait := delivery.Backoff(i.Spec.Name, h.failures)
		h.until = d.opts.Now().UTC().Add(wait)
		d.held[i.Spec.Name] = h
		d.log.Warn("could not write where a delivery stands; will retry", "delivery", i.Spec.Name, "retry_in", wait, "error", err)
	}
}

// deliveryItems reads the deliveries, and the states of those that are gone, also where
// there is one of the same name again.
func deliveryItems(v store.View) (items []delivery.Item, orphans []cluster.DeliveryState) {
	states := map[cluster.DeliveryName]store.Value[cluster.DeliveryState]{}
	for _, x := range store.All[cluster.DeliveryState](v, store.PrefixDeliveries, suffixed("/state")) {
		x.V.Rev = cluster.StoreRev(x.Rev)
		states[x.V.Name] = x
	}
	for _, x := range store.All[cluster.Delivery](v, store.PrefixDeliveries, suffixed("/spec")) {
		i := delivery.Item{Spec: x.V}
		if st, ok := states[x.V.Name]; ok && store.Belongs(st, x) {
			i.State = st.V
			delete(states, x.V.Name)
		}
		i.Spec.Rev = cluster.StoreRev(x.Rev)
		i.State.Name = x.V.Name
		around(v, &i)
		items = append(items, i)
	}
	for _, st := range states {
		orphans = append(orphans, st.V)
	}
	return items, orphans
}

// around reads what of a delivery is neither its own nor its state: the newest request, its app, and
// what became of that one's release.
func around(v store.View, i *delivery.Item) {
	if a, ok, err := store.One[cluster.DeliveryAsk](v, store.DeliveryAskKey(i.Spec.Name)); ok && err == nil {
		i.Ask = a.V.Number
		i.Again = a.V.Again && i.Ask > i.State.Asked
	}
	if a, ok, err := store.One[cluster.App](v, store.AppKey(i.Spec.App)); err == nil {
		if ok && !a.V.Uninstalled {
			i.Release = a.V.Release
		}
		i.App = cluster.StoreRev(a.Created)
		i.State = i.State.Of(i.App)
	}
	if w := i.State.Watch; w != nil {
		if o, ok, err := store.One[cluster.ReleaseOutcome](v, store.OutcomeKey(i.Spec.App, w.Release)); ok && err == nil {
			i.Outcome = &o.V
		}
	}
	hooked(v, i)
}

// hooked reads where a change of the app with hooks stands.
func hooked(v store.View, i *delivery.Item) {
	c, ok, err := store.One[cluster.PendingChange](v, store.ChangeKey(i.Spec.App))
	if !ok || err != nil {
		return
	}
	r, _, err := store.One[cluster.ChangeRecord](v, store.ChangeRecordKey(i.Spec.App))
	if err != nil {
		return
	}
	if c.V.Busy(r.V) {
		i.Busy = c.V.Release
	}
	w := i.State.Watch
	if w == nil || c.V.Release != w.Release {
		return
	}
	switch stage := c.V.StageOf(r.V); {
	case stage == cluster.StageSettle:
		i.Written = r.V.Since
	case stage == cluster.StageDone && r.V.Failed && i.Release < w.Release && (i.Outcome == nil || i.Outcome.State != "failed"):
		i.Busy = c.V.Release // until history says so too
	}
}

func suffixed(end string) func(string) bool {
	return func(k string) bool { return len(k) > len(end) && k[len(k)-len(end):] == end }
}

// apply writes what is decided, and starts what takes long.
func (d *Deliveries) apply(ctx context.Context, s delivery.Snapshot, acts []delivery.Action) error {
	for _, act := range acts {
		switch act := act.(type) {
		case delivery.Forget:
			key := store.DeliveryStateKey(act.State.Name)
			if err := d.commit(ctx, store.Txn{
				If: []store.Cond{{Key: key, Rev: int64(act.State.Rev)}}, Then: []store.Op{{Key: key, Delete: true}},
			}); err != nil {
				return err
			}
		case delivery.Save:
			err := d.save(ctx, act.Item, act.State)
			if k := cluster.KindOf(err); k == cluster.KindConflict || k == cluster.KindTransient || ctx.Err() != nil {
				return err // of the whole store
			}
			d.wrote(act.Item, err)
		case delivery.End:
			d.mu.Lock()
			if p, is := d.busy[act.Name]; is {
				p.end()
			}
			d.mu.Unlock()
		case delivery.Fetch:
			d.start(ctx, act.Item, d.fetch)
		case delivery.GoBack:
			d.start(ctx, act.Item, d.goBack)
		case delivery.Send:
			d.start(ctx, act.Item, d.send)
		default:
			return fmt.Errorf("delivery action %T at %s is not known", act, s.Now)
		}
	}
	return nil
}

// start does a piece of work, and writes the state that it leads to.
func (d *Deliveries) start(ctx context.Context, i delivery.Item, do func(context.Context, delivery.Item) cluster.DeliveryState) {
	ctx, end := context.WithCancel(ctx)
	d.mu.Lock()
	d.busy[i.Spec.Name] = piece{i.Spec.Rev, d.opts.Now().UTC(), end}
	d.mu.Unlock()
	d.work.Go(func() {
		defer end()
		st := do(ctx, i)
		if ctx.Err() == nil { // else the next leader does it, or it is another delivery now
			if err := d.save(ctx, i, st); ctx.Err() == nil {
				d.wrote(i, err)
			}
		}
		d.mu.Lock()
		delete(d.busy, i.Spec.Name)
		d.mu.Unlock()
		d.signal()
		if d.opts.Finished != nil {
			d.opts.Finished()
		}
	})
}

// save writes a state, as long as the delivery is the one that it was decided for.
func (d *Deliveries) save(ctx context.Context, i delivery.Item, st cluster.DeliveryState) error {
	key := store.DeliveryStateKey(i.Spec.Name)
	op, err := store.PutJSON(key, st)
	if err != nil {
		return err
	}
	return d.commit(ctx, store.Txn{
		If:   []store.Cond{{Key: store.DeliveryKey(i.Spec.Name), Rev: int64(i.Spec.Rev)}, {Key: key, Rev: int64(i.State.Rev)}},
		Then: []store.Op{op},
	})
}

func (d *Deliveries) commit(ctx context.Context, t store.Txn) error {
	rev, err := d.store.Commit(ctx, t)
	if err != nil {
		return fmt.Errorf("write a delivery's state: %w", err)
	}
	d.mu.Lock()
	d.committed = max(d.committed, rev)
	d.mu.Unlock()
	return nil
}

func (d *Deliveries) fetch(ctx context.Context, i delivery.Item) cluster.DeliveryState {
	p, err := d.opts.Do.Look(ctx, i.Spec, i.State)
	if err == nil {
		err = ctx.Err() // who leads no more deploys nothing
	}
	now := func() time.Time { return d.opts.Now().UTC() }
	if err != nil {
		d.log.Warn("could not look at a delivery's source; will retry", "delivery", i.Spec.Name, "error", err)
		if p.Look.Origin.Revision == "" && ctx.Err() == nil {
			return d.keep(ctx, i, err)
		}
		return delivery.Missed(i, p.Look, err, now())
	}
	l := p.Look
	l.Verdict, l.Made = delivery.Decide(i, l), d.made(i, l)
	switch l.Verdict {
	case delivery.Hold:
		if l, err = d.stay(ctx, i, l); err != nil {
			d.log.Warn("could not compare a delivery's app with its last good release; will retry", "delivery", i.Spec.Name, "release", i.State.Good.Release, "error", err)
			return delivery.Missed(i, p.Look, err, now())
		}
	case delivery.Deploy:
		if why := d.behind(i, l); why != "" {
			return delivery.Waits(i, l, why, now())
		}
		if l.Release, err = p.Deploy(ctx); err != nil {
			d.log.Warn("could not deploy a delivery; will retry", "delivery", i.Spec.Name, "revision", l.Origin.Revision, "error", err)
			return delivery.Missed(i, p.Look, err, now())
		}
		d.log.Info("deployed", "delivery", i.Spec.Name, "revision", l.Origin.Revision, "app", i.Spec.App, "release", l.Release)
	}
	return delivery.Looked(i, l, now())
}

// behind says which other deliveries are to be at what was seen first.
func (d *Deliveries) behind(i delivery.Item, l delivery.Look) string {
	if len(i.Spec.DependsOn) == 0 {
		return ""
	}
	var all []delivery.Item
	d.mirror.Read(func(v store.View) { all, _ = deliveryItems(v) })
	return delivery.Behind(i, all, l, d.opts.Now().UTC())
}

// stay looks for what was changed by hand of an app that is held.
func (d *Deliveries) stay(ctx context.Context, i delivery.Item, l delivery.Look) (delivery.Look, error) {
	l.Changes = nil // from the source, which is not what the app is to be
	if !delivery.Stays(i.State) {
		return l, nil
	}
	changes, err := d.opts.Do.Strayed(ctx, i.Spec, i.State)
	switch k := cluster.KindOf(err); {
	case k == cluster.KindInvalid || k == cluster.KindNotFound:
		l.Unsure = err.Error()
		return l, nil
	case err != nil:
		return l, fmt.Errorf("compare with release %d: %w", i.State.Good.Release, err)
	}
	l.Changes, l.Verdict = changes, delivery.Strayed(i.Spec, changes)
	return l, nil
}

// made says whether the app's current release, which the state does not know, was deployed
// from what was seen: whoever did that ended before the state was written.
func (d *Deliveries) made(i delivery.Item, l delivery.Look) (is bool) {
	if a := i.State.Applied; a != nil && a.Release == l.Release {
		return false // spares reading the release at each look
	}
	d.mirror.Read(func(v store.View) {
		r, ok, err := store.One[cluster.Release](v, store.ReleaseKey(i.Spec.App, l.Release))
		is = ok && err == nil && r.V.By == i.Spec.Actor() && r.V.Origin != nil && i.Spec.KeyOf(*r.V.Origin) == i.Spec.KeyOf(l.Origin)
	})
	return is
}

func (d *Deliveries) goBack(ctx context.Context, i delivery.Item) cluster.DeliveryState {
	release, changed, err := d.opts.Do.GoBack(ctx, i.Spec, i.State)
	if err != nil {
		d.log.Warn("could not go back; will retry", "delivery", i.Spec.Name, "release", i.State.Good.Release, "error", err)
		return delivery.NotBack(i, err, d.opts.Now().UTC())
	}
	d.log.Info("went back", "delivery", i.Spec.Name, "to", i.State.Good.Release, "release", release)
	return delivery.WentBack(i, release, changed, d.opts.Now().UTC())
}

func (d *Deliveries) send(ctx context.Context, i delivery.Item) cluster.DeliveryState {
	heard, err := d.opts.Do.Send(ctx, i.Spec, i.State)
	if err != nil {
		d.log.Warn("could not tell all of a delivery", "delivery", i.Spec.Name, "error", err)
	}
	return delivery.Sent(i, heard, err, d.opts.Now().UTC())
}
