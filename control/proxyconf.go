package control

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/loop"
	"github.com/fairlead/fairlead/proxyconf"
	"github.com/fairlead/fairlead/store"
)

// ProxyconfOptions are the parts of Proxyconf that come from configuration.
type ProxyconfOptions struct {
	// Reserved are the public ports of the gateways' own entry points, with the
	// entry point's name (80: "web").
	Reserved map[int]string
	Now      func() time.Time
}

// Proxyconf returns the loop that writes Traefik's tree. m mirrors store.Root,
// tree mirrors store.TraefikRoot.
func Proxyconf(st store.Store, m, tree *store.Mirror, o ProxyconfOptions, log hclog.Logger) *loop.Loop[proxyconf.Snapshot, proxyconf.Action] {
	p := &proxyconfStore{store: st, mirror: m, tree: tree, options: o, log: log}
	return &loop.Loop[proxyconf.Snapshot, proxyconf.Action]{
		Name: "proxyconf", Snapshot: p.snapshot, Plan: p.plan, Apply: p.apply,
		Changed: m.Changed, Resync: proxyconfResync, Gather: 10 * time.Millisecond, Log: log,
	}
}

const proxyconfResync = 30 * time.Second

type proxyconfStore struct {
	store     store.Store
	mirror    *store.Mirror
	tree      *store.Mirror
	options   ProxyconfOptions
	log       hclog.Logger
	committed int64 // revision of the last write below store.TraefikRoot

	revs map[string]int64 // of the keys in the last snapshot

	// Most changes of the store (heartbeats, statuses, acknowledgements) are none
	// here, and a plan reads the whole tree: what was planned without result is
	// not planned again before the next resync.
	print, quiet fingerprint
	quietSince   time.Time
	skip         bool // the present snapshot was left empty
}

func (p *proxyconfStore) snapshot(ctx context.Context) (proxyconf.Snapshot, error) {
	var s proxyconf.Snapshot
	if err := caughtUp(ctx, p.mirror, 0); err != nil {
		return s, err
	}
	if err := caughtUp(ctx, p.tree, p.committed); err != nil {
		return s, err
	}
	s.Reserved = p.options.Reserved
	p.print = p.fingerprint()
	// Decided once: the snapshot that is left empty must not be planned.
	p.skip = p.print == p.quiet && p.options.Now().Sub(p.quietSince) < proxyconfResync
	if p.skip {
		return s, nil
	}
	p.mirror.Read(func(v store.View) {
		s.Rev = cluster.StoreRev(v.Rev())
		s.Services, s.Endpoints = store.Services(v), store.EndpointSets(v)
		s.Recorded = map[cluster.ServiceID]string{}
		for _, d := range store.All[cluster.Decision](v, proxyconfDecisions, nil) {
			app, name, _ := strings.Cut(strings.TrimPrefix(d.Key, proxyconfDecisions), "/")
			s.Recorded[cluster.ServiceID{App: cluster.AppName(app), Name: cluster.ServiceName(name)}] = d.V.Reason
		}
	})
	p.tree.Read(func(v store.View) {
		keys := v.Keys(store.TraefikRoot)
		s.Current, p.revs = make(map[string]string, len(keys)), make(map[string]int64, len(keys))
		for _, k := range keys {
			if k != store.TraefikRoot && !strings.HasPrefix(k, store.TraefikRoot+"/") {
				continue // another program's key that merely starts with the same letters
			}
			e, _ := v.Entry(k)
			s.Current[k], p.revs[k] = string(e.Value), e.Rev
		}
	})
	return s, nil
}

// fingerprint tells one state of what a plan reads from another.
type fingerprint struct {
	keys int
	sum  uint64
	tree int64
}

func (p *proxyconfStore) fingerprint() fingerprint {
	f := fingerprint{tree: p.tree.Rev()}
	h := fnv.New64a()
	var b [8]byte
	p.mirror.Read(func(v store.View) {
		for _, prefix := range []string{store.PrefixApps, store.PrefixEndpoints, proxyconfDecisions} {
			for _, k := range v.Keys(prefix) {
				e, _ := v.Entry(k)
				binary.LittleEndian.PutUint64(b[:], uint64(e.Rev)) //nolint:gosec // only told apart
				_, _ = h.Write(b[:])
				f.keys++
			}
		}
	})
	f.sum = h.Sum64()
	return f
}

func (p *proxyconfStore) plan(s proxyconf.Snapshot) []proxyconf.Action {
	if p.skip {
		return nil
	}
	acts := proxyconf.Plan(s)
	if len(acts) == 0 {
		p.quiet, p.quietSince = p.print, p.options.Now()
	}
	return acts
}

const proxyconfDecisions = store.PrefixDecisions + "proxyconf/"

// apply records the refusals, then writes the tree, in one transaction when it fits:
// who sees that a gateway has a declaration sees also what of it was refused.
func (p *proxyconfStore) apply(ctx context.Context, _ proxyconf.Snapshot, acts []proxyconf.Action) error {
	var writes []proxyconf.Write
	var records []store.Op
	for _, a := range acts {
		switch a := a.(type) {
		case proxyconf.Write:
			writes = append(writes, a)
		case proxyconf.Refuse:
			p.log.Warn("refused to route", "service", a.Service.String(), "reason", a.Reason())
			op, err := store.PutJSON(proxyconfDecisions+a.Service.String(), cluster.Decision{
				Loop: "proxyconf", Object: a.Service.String(), Verdict: "not routed", Reason: a.Reason(), At: p.options.Now(),
			})
			if err != nil {
				return err
			}
			records = append(records, op)
		case proxyconf.Accept:
			records = append(records, store.Op{Key: proxyconfDecisions + a.Service.String(), Delete: true})
		}
	}
	for len(records) > 0 {
		n := min(len(records), store.MaxOps)
		if _, err := p.store.Commit(ctx, store.Txn{Then: records[:n]}); err != nil {
			return fmt.Errorf("record refusals: %w", err)
		}
		records = records[n:]
	}
	// One comparison is left for the marker, the fence of every transaction.
	for _, batch := range proxyconf.Batches(writes, store.MaxOps-1) {
		if err := p.write(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (p *proxyconfStore) write(ctx context.Context, batch []proxyconf.Write) error {
	t := store.Txn{If: []store.Cond{{Key: proxyconf.MarkerKey, Rev: p.revs[proxyconf.MarkerKey]}}}
	for _, w := range batch {
		if w.Key != proxyconf.MarkerKey {
			t.If = append(t.If, store.Cond{Key: w.Key, Rev: p.revs[w.Key]})
		}
		t.Then = append(t.Then, store.Op{Key: w.Key, Value: []byte(w.Value), Delete: w.Delete})
	}
	rev, err := p.store.Commit(ctx, t)
	if err != nil {
		return fmt.Errorf("write %d of Traefik's keys: %w", len(batch), err)
	}
	p.committed = rev
	return nil
}
