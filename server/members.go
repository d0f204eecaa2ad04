package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// members are the embedded etcd's. *store.Etcd does.
type members interface {
	Members(ctx context.Context) ([]store.Member, error)
	AddLearner(ctx context.Context, peer string) ([]store.Member, error)
	Promote(ctx context.Context, id uint64) error
	RemoveMember(ctx context.Context, id uint64) error
	Ask(ctx context.Context, m store.Member) (store.MemberState, error)
}

const (
	membersEvery = time.Second
	settleTries  = 15
	askTimeout   = 2 * time.Second
)

// become makes this machine's etcd a member of the cluster that it joins, and puts
// into cfg what its first start needs. An interrupted join is resumed; what is left
// of one that the others gave up is removed. untold: they did not say how it stands with
// them, and what is here may be that.
func (m *machine) become(ctx context.Context, cfg *embedded.Config, mayUntold bool) (untold bool, err error) {
	if m.unsettled() { // the others would be told of an address where this machine is not
		return false, m.watchAddress(ctx, m.own(false, m.others), func(_, _ string) error { return errMoved })
	}
	st, err := store.NewEtcd(store.EtcdConfig{Endpoints: m.settings.Etcd, TLS: m.pki.RootTLS()}, m.Log)
	if err != nil {
		return false, err
	}
	defer st.Close() //nolint:errcheck // only asked
	return m.takeRoom(ctx, st, joinLock(st, m.Node), cfg, mayUntold)
}

// startsUntold says whether a server that joins starts what it has, though the others do
// not say how it stands with them. They may have let it vote already, and be no majority
// without it: then each would wait for the other.
func startsUntold(err error, has bool, waited time.Duration) bool {
	return has && waited >= quorumPatience && cluster.KindOf(err) == cluster.KindTransient
}

// takeRoom asks the others until there is room for this machine among them.
func (m *machine) takeRoom(ctx context.Context, st members, lock func(context.Context) (func(), error), cfg *embedded.Config, mayUntold bool) (untold bool, err error) {
	began, said := m.now(), ""
	for {
		all, err := m.ask(ctx, st, lock, cfg)
		if err == nil {
			cfg.Initial = map[string]string{}
			for _, x := range all {
				cfg.Initial[cmp.Or(x.Name, fmt.Sprintf("%x", x.ID))] = x.Peer
			}
			return false, nil
		}
		if kind := cluster.KindOf(err); kind != cluster.KindTransient && kind != cluster.KindOther {
			return false, err
		}
		if mayUntold && startsUntold(err, embedded.HasData(cfg.Dir), m.now().Sub(began)) {
			m.Log.Warn("the other servers do not say how this one stands with them; starting what it has of the store, for they may wait for it", "reason", err)
			return true, nil
		}
		if err.Error() != said {
			said = err.Error()
			m.Log.Info("waits to join the other servers", "reason", err)
		}
		t := time.NewTimer(membersEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return false, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// joinTTL is how long, in seconds, a server that dies while it asks for room keeps
// others from asking; longer than etcd works on what was asked.
const joinTTL = 10

// joinLock lets one server at a time ask for room. etcd refuses a second learner only
// once that is in its log, and a member that starts again before its next snapshot
// then takes the refused one for a member: nothing that it would refuse may be asked.
func joinLock(st store.Store, node string) func(ctx context.Context) (release func(), err error) {
	st = store.Guarded(st, store.WriterServer)
	return func(ctx context.Context) (func(), error) {
		key := store.LockKey("join")
		if _, err := st.Get(ctx, key); cluster.KindOf(err) != cluster.KindNotFound {
			return nil, cmp.Or(err, error(store.ErrLearnerBusy))
		}
		lctx, release := context.WithCancel(ctx)
		lease, _, err := st.Lease(lctx, joinTTL)
		if err == nil {
			_, err = st.Commit(ctx, store.Txn{If: []store.Cond{{Key: key}}, Then: []store.Op{{Key: key, Value: []byte(node), Lease: lease}}})
		}
		if err != nil {
			release()
			if cluster.KindOf(err) == cluster.KindConflict {
				err = store.ErrLearnerBusy
			}
			return nil, err
		}
		return release, nil
	}
}

// ask makes room for this machine among the members, or finds it.
func (m *machine) ask(ctx context.Context, st members, lock func(context.Context) (func(), error), cfg *embedded.Config) ([]store.Member, error) {
	all, err := st.Members(ctx)
	if err != nil {
		return nil, err
	}
	has := embedded.HasData(cfg.Dir)
	i := slices.IndexFunc(all, func(x store.Member) bool { return x.Peer == cfg.Peer() })
	switch {
	case i >= 0 && (has || all[i].Name == ""):
		all[i].Name = cfg.Name
		return all, nil
	case i >= 0 && !all[i].Learner:
		return nil, cluster.Invalidf("server %s is in the store already, and its data is not here: on another server `fairlead server rm %s`, then start this one again", all[i].Name, all[i].Name)
	case i >= 0:
		return nil, errors.Join(cluster.Transientf("an earlier attempt is removed"), st.RemoveMember(ctx, all[i].ID))
	case has: // the others gave it up
		if err := embedded.Forget(cfg.Dir); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(all, func(x store.Member) bool { return x.Name == cfg.Name }) {
		return nil, cluster.Invalidf("there is a server named %s in the store, elsewhere: give this one another name with --node", cfg.Name)
	}
	release, err := lock(ctx)
	if err != nil {
		return nil, err
	}
	all, err = addLearner(ctx, st, cfg)
	if cluster.KindOf(err) == cluster.KindTransient && !errors.Is(err, store.ErrLearnerBusy) && !errors.Is(err, store.ErrIncomplete) {
		time.AfterFunc(joinTTL*time.Second, release) // it may still come about
	} else {
		release()
	}
	return all, err
}

// addLearner adds this machine while nobody else may be added.
func addLearner(ctx context.Context, st members, cfg *embedded.Config) ([]store.Member, error) {
	all, err := st.Members(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(x store.Member) bool { return x.Learner }) {
		return nil, store.ErrLearnerBusy
	}
	if all, err = st.AddLearner(ctx, cfg.Peer()); err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Peer == cfg.Peer() {
			all[i].Name = cfg.Name
		}
	}
	return all, nil
}

// memberKeeper lets servers that joined vote, and takes out those that never came.
type memberKeeper struct {
	members members
	log     hclog.Logger
	now     func() time.Time
	since   map[uint64]time.Time
	heard   map[uint64]time.Time
}

// Run works until ctx ends.
func (k *memberKeeper) Run(ctx context.Context) error {
	k.since, k.heard = map[uint64]time.Time{}, map[uint64]time.Time{}
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	for {
		if err := k.round(ctx); err != nil && ctx.Err() == nil {
			k.log.Debug("could not look after the servers that join; will retry", "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (k *memberKeeper) round(ctx context.Context) error {
	all, err := k.members.Members(ctx)
	if err != nil {
		return err
	}
	var learners []joining
	now := k.now()
	since := map[uint64]time.Time{}
	for _, x := range all {
		if !x.Learner {
			continue
		}
		first, seen := k.since[x.ID]
		if !seen {
			first = now
		}
		since[x.ID] = first
		actx, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := k.members.Ask(actx, x)
		cancel()
		if err == nil {
			k.heard[x.ID] = now
		}
		if heard := k.heard[x.ID]; heard.After(first) {
			first = heard
		}
		learners = append(learners, joining{ID: x.ID, Name: x.Name, Since: first, Answers: err == nil})
	}
	k.since = since
	for _, a := range planMembers(learners, now) {
		switch a := a.(type) {
		case promote:
			switch err := k.members.Promote(ctx, a.ID); {
			case err == nil:
				k.log.Info("a server has joined and votes", "server", a.Name)
			case !errors.Is(err, store.ErrNotCaughtUp):
				return err
			}
		case drop:
			k.log.Warn("a server that was joining does not answer; others may join now, and it may try again", "server", a.Name)
			if err := k.members.RemoveMember(ctx, a.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// roster is what the API asks about servers.
type roster struct {
	*admission
	members members
}

var _ api.Servers = (*roster)(nil)

// Addresses implements api.Servers.
func (r *roster) Addresses() []string {
	servers, _ := r.where()
	slices.Sort(servers)
	return servers
}

// neverStarted is said of a server that was given the keys, and of which nothing more is known.
const neverStarted = "it was let in, and has not started yet"

// serverNames are all that the store has a record of.
func serverNames(v store.View) map[cluster.NodeID]bool {
	out := map[cluster.NodeID]bool{}
	for _, k := range v.Keys(store.PrefixServers) {
		id, _, _ := strings.Cut(strings.TrimPrefix(k, store.PrefixServers), "/")
		out[cluster.NodeID(id)] = true
	}
	return out
}

// List implements api.Servers.
func (r *roster) List(ctx context.Context) ([]v1.ServerSummary, error) {
	if r.external() {
		return r.clients(ctx), nil
	}
	known, letIn := map[string]cluster.ServerInfo{}, map[cluster.NodeID]bool{}
	r.mirror.Read(func(v store.View) {
		letIn = serverNames(v)
		for _, s := range store.Servers(v) {
			known[string(s.Node)] = s
		}
	})
	all, err := r.members.Members(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, r.silent(ctx, known))
	}
	out := make([]v1.ServerSummary, len(all))
	var wg sync.WaitGroup
	for i, x := range all {
		wg.Go(func() { out[i] = r.summary(ctx, x, known[x.Name]) })
	}
	wg.Wait()
	for id := range letIn {
		if slices.ContainsFunc(all, func(x store.Member) bool { return x.Name == string(id) }) {
			continue
		}
		s, ran := known[string(id)]
		none := v1.ServerSummary{Node: id, API: s.API, Version: s.Version, Standing: v1.StandingNone, Problem: "it was taken out of the store"}
		if !ran {
			none.Problem = neverStarted
		}
		out = append(out, none)
	}
	slices.SortFunc(out, func(a, b v1.ServerSummary) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}

// silent says which servers do not answer when no majority does, and what that means.
func (r *roster) silent(ctx context.Context, known map[string]cluster.ServerInfo) string {
	names := slices.Sorted(maps.Keys(known))
	answers := make([]bool, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			_, err := r.members.Ask(ctx, store.Member{Name: name, Client: known[name].Etcd})
			answers[i] = err == nil
		})
	}
	wg.Wait()
	var away []string
	for i, name := range names {
		if !answers[i] {
			away = append(away, fmt.Sprintf("%s (%s)", name, known[name].API))
		}
	}
	text := "no majority of the servers answers, or this one is cut off from it"
	if len(away) > 0 {
		text += fmt.Sprintf(": from here %s of %d do not. Bring servers back until %d answer", strings.Join(away, ", "), len(names), len(names)/2+1)
	}
	return text + ". Until then what runs runs on, and nothing can be changed"
}

func (r *roster) summary(ctx context.Context, x store.Member, info cluster.ServerInfo) v1.ServerSummary {
	s := v1.ServerSummary{Node: cluster.NodeID(x.Name), API: info.API, Version: info.Version, Standing: v1.StandingVoter}
	if x.Learner {
		s.Standing = v1.StandingLearner
	}
	if x.Name == "" {
		s.Problem = neverStarted + ": " + x.Peer
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	state, err := r.members.Ask(ctx, x)
	if err != nil {
		s.Problem = "its store does not answer at " + x.Client
		return s
	}
	s.Answers, s.Leader, s.Size = true, state.Leader == x.ID, state.Size
	return s
}

// watch keeps alarms about servers until ctx ends.
func (r *roster) watch(ctx context.Context) error {
	tick := time.NewTicker(alarmEvery)
	defer tick.Stop()
	for {
		list, err := r.List(ctx)
		if ctx.Err() == nil {
			text := serverAlarms(list, err)
			r.alarms.mu.Lock()
			r.alarms.servers = text
			r.alarms.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// serverAlarms says what an operator should know of the servers.
func serverAlarms(list []v1.ServerSummary, err error) (out []string) {
	if err != nil {
		return []string{"nothing can be changed now: no majority of the servers answers, or this one is cut off from it"}
	}
	for _, s := range list {
		comes := s.Standing == v1.StandingLearner || s.Standing == v1.StandingNone && s.Problem == neverStarted
		if s.Problem != "" && !comes {
			out = append(out, fmt.Sprintf("server %s: %s", s.Node, s.Problem))
		}
	}
	return out
}

// MayRemove implements api.Servers.
func (r *roster) MayRemove(ctx context.Context, id cluster.NodeID) error {
	list, err := r.List(ctx)
	if err != nil {
		return err
	}
	if r.external() {
		return mayForget(list, id)
	}
	var all []standing
	for _, s := range list {
		if s.Standing == v1.StandingNone && s.Node == id {
			return nil // what is left of it is forgotten
		}
		if s.Standing != v1.StandingNone {
			all = append(all, standing{Name: string(s.Node), Learner: s.Standing == v1.StandingLearner, Answers: s.Answers})
		}
	}
	return mayRemove(all, string(id), r.Node)
}

// Remove implements api.Servers.
func (r *roster) Remove(ctx context.Context, id cluster.NodeID) error {
	if err := r.MayRemove(ctx, id); err != nil || r.external() {
		return err // an external etcd has no members of ours
	}
	members, err := r.members.Members(ctx)
	if err != nil {
		return err
	}
	for _, x := range members {
		if x.Name == string(id) {
			return removeMember(ctx, r.members, x.ID)
		}
	}
	return nil
}

// removeMember waits out that a server has just come back: etcd counts those alone that have
// been connected for five seconds.
func removeMember(ctx context.Context, st members, id uint64) error {
	for try := 1; ; try++ {
		err := st.RemoveMember(ctx, id)
		if !errors.Is(err, store.ErrUnsettled) {
			return err
		}
		if try == settleTries {
			return fmt.Errorf("%w, and they are not: `fairlead server ls` shows which server does not answer", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(membersEvery):
		}
	}
}

// Keys implements api.Servers.
func (r *roster) Keys(join v1.ServerJoin) (v1.ServerMembership, error) {
	if err := sameStore(r.EtcdEndpoints, join.External); err != nil {
		return v1.ServerMembership{}, err
	}
	plain, err := r.clusterKeys()
	if err != nil {
		return v1.ServerMembership{}, err
	}
	data, err := secrets.SealTo(plain, join.Recipient)
	if err != nil {
		return v1.ServerMembership{}, err
	}
	servers, etcd := r.where()
	return v1.ServerMembership{
		Cluster: r.cluster, Node: join.Node, CA: string(r.pki.PEM()), Sealed: data, Etcd: etcd, Servers: servers,
		Pool: r.Pool, ServiceRange: r.ServiceRange, Domain: r.Domain, AutoscalePeriod: r.AutoscalePeriod,
		External: join.External,
	}, nil
}
