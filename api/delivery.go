package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
	"github.com/fairlead/fairlead/store"
)

// Sources fetches what deliveries bring.
type Sources interface {
	// Fetch returns what the source has now, made for this cluster.
	Fetch(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (Fetched, error)
	// Decide says what a reconciliation would do about it.
	Decide(d cluster.Delivery, st cluster.DeliveryState, f Fetched, p v1.Plan) string
}

// Fetched is what a source has.
type Fetched struct {
	Origin   cluster.Origin
	Forced   bool // its branch's history was replaced
	Bundle   v1.Bundle
	Content  string // tells what it asks for from anything else; "": not known
	Warnings []string
	Varies   bool // its package makes something else each time that it is rendered
	// InputBefore is the input of its package as releases of the version before have it.
	InputBefore string
	// Images are what the image policies chose; Wrote says what of it was committed, or
	// would be.
	Images []cluster.ImageState
	Wrote  []string
}

func (s *Server) registerDeliveries(api huma.API) {
	const tag = "deliveries"
	handle(api, op(http.MethodGet, "/deliveries", "list-deliveries", tag, "List deliveries, and where they stand"), s.listDeliveries)
	handle(api, op(http.MethodGet, "/deliveries/{delivery}", "get-delivery", tag, "All that is known about a delivery"), s.getDelivery)
	handle(api, op(http.MethodPut, "/deliveries/{delivery}", "set-delivery", tag, "Make an app follow a source"), s.setDelivery)
	handle(api, op(http.MethodDelete, "/deliveries/{delivery}", "remove-delivery", tag, "Follow a source no longer; the app stays"), s.removeDelivery)
	handle(api, op(http.MethodPost, "/deliveries/{delivery}/reconcile", "reconcile-delivery", tag, "Look at the source now"), s.reconcile)
	handle(api, op(http.MethodPost, "/deliveries/{delivery}/suspend", "suspend-delivery", tag, "Leave the app as it is until resumed"), s.suspend)
	handle(api, op(http.MethodPost, "/deliveries/{delivery}/resume", "resume-delivery", tag, "Follow the source again"), s.resume)
	handle(api, op(http.MethodGet, "/deliveries/{delivery}/diff", "diff-delivery", tag, "What the source has now would change; changes nothing"), s.diffDelivery)
	handle(api, op(http.MethodGet, "/apps/{app}/services/{service}/trace", "trace-service", tag, "From a service's containers back to who made them so"), s.trace)
	hook := op(http.MethodPost, "/hooks/{delivery}", "hook", tag, "Webhook of GitHub, GitLab, Gitea, or with an HMAC; needs a signature in place of a token")
	hook.MaxBodyBytes, hook.Security = maxHook, []map[string][]string{}
	hook.RequestBody = &huma.RequestBody{}
	handle(api, hook, s.hook)
	hook.RequestBody.Required = false // none is a body too: whoever sends it has nothing to say but that it is time
}

// DeliveryPath names a delivery.
type DeliveryPath struct {
	Delivery string `path:"delivery" maxLength:"40"`
}

func (p DeliveryPath) name() cluster.DeliveryName { return cluster.DeliveryName(p.Delivery) }

func noDelivery(n cluster.DeliveryName) error {
	return cluster.NotFoundf("there is no delivery %q; `fairlead delivery get` lists those there are", n)
}

// deliveries reads all deliveries, by name.
func deliveries(v store.View) []v1.DeliveryStatus {
	out := []v1.DeliveryStatus{}
	for _, e := range store.All[cluster.Delivery](v, store.PrefixDeliveries, func(k string) bool { return segment(k, 2) == "spec" }) {
		d := v1.DeliveryStatus{Delivery: e.V}
		d.Rev = cluster.StoreRev(e.Rev)
		if st, ok, err := store.One[cluster.DeliveryState](v, store.DeliveryStateKey(e.V.Name)); ok && err == nil && store.Belongs(st, e) {
			d.State = st.V
			d.State.Rev = cluster.StoreRev(st.Rev)
			if a, _, err := store.One[cluster.App](v, store.AppKey(e.V.App)); err == nil {
				d.State = d.State.Of(cluster.StoreRev(a.Created))
			}
		}
		out = append(out, d)
	}
	return out
}

// readFollowing is read, with the deliveries that the apps follow.
func (s *Server) readFollowing(app cluster.AppName) *model {
	m := s.read(app)
	m.following = map[cluster.AppName]v1.AppDelivery{}
	s.Mirror.Read(func(v store.View) {
		for _, d := range deliveries(v) {
			m.following[d.App] = d.Short()
		}
	})
	return m
}

// advised says where a delivery stands, and what tells more.
func advised(d v1.AppDelivery) string {
	return fmt.Sprintf("%s; `fairlead delivery describe %s` tells more", d, d.Name)
}

func (s *Server) delivery(n cluster.DeliveryName) (v1.DeliveryStatus, error) {
	var all []v1.DeliveryStatus
	s.Mirror.Read(func(v store.View) { all = deliveries(v) })
	i := slices.IndexFunc(all, func(d v1.DeliveryStatus) bool { return d.Name == n })
	if i < 0 {
		return v1.DeliveryStatus{}, noDelivery(n)
	}
	return all[i], nil
}

func (s *Server) listDeliveries(context.Context, *noInput) (out []v1.DeliveryStatus, _ error) {
	s.Mirror.Read(func(v store.View) { out = deliveries(v) })
	return out, nil
}

func (s *Server) getDelivery(_ context.Context, in *DeliveryPath) (v1.DeliveryStatus, error) {
	return s.delivery(in.name())
}

type setDeliveryInput struct {
	DeliveryPath
	Body v1.DeliverySet
}

func (s *Server) setDelivery(ctx context.Context, in *setDeliveryInput) (v1.DeliveryStatus, error) {
	d := in.Body.Delivery
	if d.Name != "" && d.Name != in.name() {
		return v1.DeliveryStatus{}, cluster.Invalidf("the delivery is %s in the path, and %s in what was sent", in.Delivery, d.Name)
	}
	d.Name, d.Created, d.By = in.name(), s.Now().UTC(), who(ctx)
	if err := d.Validate(); err != nil {
		return v1.DeliveryStatus{}, err
	}
	for _, p := range d.Images {
		if err := image.Check(p); err != nil {
			return v1.DeliveryStatus{}, err
		}
	}
	err := s.decide(ctx, func(ctx context.Context) error {
		all, counted, err := s.follows()
		if err != nil {
			return err
		}
		old, err := fits(d, all, in.Body.Replace)
		if err != nil {
			return err
		}
		d := d
		d.Suspend = d.Suspend || old.Suspend && !in.Body.Resume
		st, err := following(d, int64(old.Rev), counted)
		if err != nil {
			return err
		}
		s.Log.Info("set a delivery", "delivery", d.Name, "app", d.App, "source", d.Source.URL, "by", who(ctx))
		return s.commit(ctx, nil, []step{st})
	})
	if err != nil {
		return v1.DeliveryStatus{}, err
	}
	return s.delivery(d.Name)
}

// follows reads what apps follow, and the counter that every change of it compares.
func (s *Server) follows() (all []v1.DeliveryStatus, counted store.Value[int], err error) {
	s.Mirror.Read(func(v store.View) {
		all = deliveries(v)
		counted, _, err = store.One[int](v, store.FollowsKey)
	})
	return all, counted, err
}

// following writes a delivery that was decided on what all others follow.
func following(d cluster.Delivery, rev int64, counted store.Value[int]) (step, error) {
	st, err := put(store.DeliveryKey(d.Name), d, rev)
	if err != nil {
		return st, err
	}
	count, err := put(store.FollowsKey, counted.V+1, counted.Rev)
	return step{append(st.conds, count.conds...), append(st.ops, count.ops...)}, err
}

// fits refuses a delivery that the others leave no room for, and returns the one that it
// replaces.
func fits(d cluster.Delivery, all []v1.DeliveryStatus, replace bool) (old cluster.Delivery, _ error) {
	needs := map[cluster.DeliveryName][]cluster.DeliveryName{d.Name: d.DependsOn}
	for _, o := range all {
		switch {
		case o.Name == d.Name && !replace:
			return old, cluster.Invalidf("the delivery %s is there already; --replace changes it", d.Name)
		case o.Name == d.Name && o.App != d.App: // what it knows are releases of that app
			return old, cluster.Invalidf("the delivery %s is of the app %s: to deliver %s, `fairlead delivery rm %s` first, and create it then", d.Name, o.App, d.App, d.Name)
		case o.Name == d.Name:
			old = o.Delivery
			continue
		case o.App == d.App:
			return old, cluster.Invalidf("the app %s follows the delivery %s already: an app has one source", d.App, o.Name)
		}
		needs[o.Name] = o.DependsOn
	}
	seen := map[cluster.DeliveryName]bool{}
	for todo := slices.Clone(d.DependsOn); len(todo) > 0; todo = todo[1:] {
		n := todo[0]
		if n == d.Name {
			return old, cluster.Invalidf("the delivery %s would depend on itself, by way of %s", d.Name, join(d.DependsOn))
		}
		if !seen[n] {
			seen[n] = true
			todo = append(todo, needs[n]...)
		}
	}
	return old, nil
}

// unfollowed refuses to remove an app that a delivery would bring back. What it returns holds
// as long as that is so.
func (s *Server) unfollowed(app cluster.AppName) (store.Cond, error) {
	all, counted, err := s.follows()
	if err != nil {
		return store.Cond{}, err
	}
	for _, d := range all {
		if d.App == app && !d.Suspend {
			return store.Cond{}, cluster.Invalidf("the delivery %s follows %s and would bring it back: `fairlead delivery suspend %s` or `fairlead delivery rm %s` first", d.Name, app, d.Name, d.Name)
		}
	}
	return store.Cond{Key: store.FollowsKey, Rev: counted.Rev}, nil
}

type removeDeliveryInput struct {
	DeliveryPath
	Force bool `query:"force" doc:"also where others depend on it, which wait for it then"`
}

func (s *Server) removeDelivery(ctx context.Context, in *removeDeliveryInput) (nothing, error) {
	return nothing{}, s.decide(ctx, func(ctx context.Context) error {
		all, counted, err := s.follows()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(d v1.DeliveryStatus) bool { return d.Name == in.name() })
		if i < 0 {
			return noDelivery(in.name())
		}
		d := all[i]
		if needy := dependents(d.Name, all); len(needy) > 0 && !in.Force {
			return cluster.Invalidf("other deliveries depend on %s and would wait for it for ever: %s; change them first (`fairlead delivery create … --replace`), or remove it all the same with --force", d.Name, join(needy))
		}
		steps := []step{{conds: []store.Cond{{Key: store.FollowsKey, Rev: counted.Rev}}}, remove(store.DeliveryKey(d.Name), int64(d.Rev))}
		s.Mirror.Read(func(v store.View) {
			if e, ok := v.Entry(store.DeliveryAskKey(d.Name)); ok {
				steps = append(steps, remove(e.Key, e.Rev))
			}
		})
		s.Log.Info("removed a delivery", "delivery", d.Name, "by", who(ctx))
		return s.commit(ctx, nil, steps)
	})
}

// dependents are the deliveries that depend on one.
func dependents(n cluster.DeliveryName, all []v1.DeliveryStatus) (names []cluster.DeliveryName) {
	for _, d := range all {
		if slices.Contains(d.DependsOn, n) {
			names = append(names, d.Name)
		}
	}
	return names
}

type reconcileInput struct {
	DeliveryPath
	Again bool `query:"again" doc:"try a revision again that failed and was gone back from"`
}

func (s *Server) reconcile(ctx context.Context, in *reconcileInput) (v1.DeliveryAsked, error) {
	d, err := s.delivery(in.name())
	if err == nil && d.Suspend {
		err = cluster.Invalidf("the delivery %s is suspended; `fairlead delivery resume %s` lets it go on", d.Name, d.Name)
	}
	if err != nil {
		return v1.DeliveryAsked{}, err
	}
	return s.ask(ctx, in.name(), who(ctx), in.Again)
}

// ask asks for a look at a source now.
func (s *Server) ask(ctx context.Context, name cluster.DeliveryName, by string, again bool) (v1.DeliveryAsked, error) {
	var out v1.DeliveryAsked
	return out, s.decide(ctx, func(ctx context.Context) error {
		d, err := s.delivery(name)
		if err != nil {
			return err
		}
		var was store.Value[cluster.DeliveryAsk]
		s.Mirror.Read(func(v store.View) { was, _, err = store.One[cluster.DeliveryAsk](v, store.DeliveryAskKey(name)) })
		if err != nil {
			return err
		}
		out = v1.DeliveryAsked{Name: name, Number: was.V.Number + 1}
		again := again || was.V.Again && was.V.Number > d.State.Asked // nobody has followed that yet
		st, err := put(store.DeliveryAskKey(name), cluster.DeliveryAsk{Number: out.Number, Again: again, By: by, At: s.Now().UTC()}, was.Rev)
		if err != nil {
			return err
		}
		return s.commit(ctx, nil, []step{st})
	})
}

func (s *Server) suspend(ctx context.Context, in *DeliveryPath) (v1.DeliveryStatus, error) {
	return s.setSuspend(ctx, in.name(), true)
}

func (s *Server) resume(ctx context.Context, in *DeliveryPath) (v1.DeliveryStatus, error) {
	return s.setSuspend(ctx, in.name(), false)
}

func (s *Server) setSuspend(ctx context.Context, name cluster.DeliveryName, to bool) (v1.DeliveryStatus, error) {
	err := s.decide(ctx, func(ctx context.Context) error {
		d, err := s.delivery(name)
		if err != nil || d.Suspend == to {
			return err
		}
		d.Suspend = to
		_, counted, err := s.follows()
		if err != nil {
			return err
		}
		st, err := following(d.Delivery, int64(d.Rev), counted)
		if err != nil {
			return err
		}
		s.Log.Info("suspended or resumed a delivery", "delivery", name, "suspended", to, "by", who(ctx))
		return s.commit(ctx, nil, []step{st})
	})
	if err != nil {
		return v1.DeliveryStatus{}, err
	}
	return s.delivery(name)
}

func (s *Server) diffDelivery(ctx context.Context, in *DeliveryPath) (v1.DeliveryDiff, error) {
	d, err := s.delivery(in.name())
	if err != nil {
		return v1.DeliveryDiff{}, err
	}
	if s.Sources == nil {
		return v1.DeliveryDiff{}, errors.New("this server fetches no sources")
	}
	f, err := s.Sources.Fetch(ctx, d.Delivery, d.State)
	if err != nil {
		return v1.DeliveryDiff{}, err
	}
	p, err := s.PlanDelivery(ctx, d.Delivery, f)
	if err != nil {
		return v1.DeliveryDiff{}, err
	}
	return v1.DeliveryDiff{
		Name: d.Name, Origin: f.Origin, Verdict: s.Sources.Decide(d.Delivery, d.State, f, p), Plan: p, Warnings: f.Warnings,
		Images: f.Images, Writes: f.Wrote,
	}, nil
}
