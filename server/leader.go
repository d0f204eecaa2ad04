package server

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

// runner is a loop of any type.
type runner interface {
	Run(ctx context.Context) error
}

// lead runs the control loops whenever this server leads. Each writes through a
// store that lets it write its own keys alone.
func (m *machine) lead(ctx context.Context, st store.Store, mirror *store.Mirror, samples func() []cluster.Sample, deliver control.Deliverer) error {
	c := store.Candidate{
		Store: st, Name: "leader", ID: m.Node, Unique: true, Now: m.now, Log: m.Log.Named("leader"),
	}
	return c.Lead(ctx, func(ctx context.Context, fenced store.Store, since time.Time) error {
		m.Log.Info("leading")
		as := func(w store.Writer) store.Store { return store.Guarded(fenced, w) }
		named := m.Log.Named
		tree := store.NewMirror(st, store.TraefikRoot, named("mirror"))
		loops := []runner{
			tree,
			control.Rollout(as(store.WriterRollout), mirror, m.now, named("rollout")),
			control.Hooks(as(store.WriterHooks), mirror, m.now, named("hooks")),
			control.Changes(mirror, m.changer, named("hooks")),
			control.Scheduler(as(store.WriterScheduler), mirror, m.now, named("scheduler")),
			control.Registry(as(store.WriterRegistry), mirror, control.RegistryOptions{
				Addresses: m.services, Pool: m.pool(), Since: since, Now: m.now,
			}, named("registry")),
			control.Proxyconf(as(store.WriterProxyconf), mirror, tree, control.ProxyconfOptions{
				Reserved: m.gatewayConfig().Reserved(), Now: m.now,
			}, named("proxyconf")),
			control.Autoscaler(as(store.WriterAutoscaler), mirror, control.AutoscalerOptions{
				Samples: samples, Period: m.AutoscalePeriod.D(), Now: m.now,
			}, named("autoscaler")),
			control.Broker(as(store.WriterBroker), mirror, m.resolver(), m.now, named("broker")),
			control.NewDeliveries(as(store.WriterDelivery), mirror, control.DeliveryOptions{Do: deliver, Now: m.now}, named("delivery")),
			control.GatewayFiles(as(store.WriterBroker), mirror, m.gatewaySecret, named("broker")),
		}
		if m.members != nil {
			loops = append(loops, &memberKeeper{members: m.members, log: named("members"), now: m.now})
		}
		g, ctx := errgroup.WithContext(ctx)
		for _, l := range loops {
			g.Go(func() error { return l.Run(ctx) })
		}
		if err := ignoreCancel(g.Wait()); err != nil {
			return fmt.Errorf("control loops: %w", err)
		}
		return nil
	})
}

// resolver opens secrets, each by the provider that its record names.
func (m *machine) resolver() secrets.Resolver {
	p := secrets.Providers{secrets.ProviderSealed: m.key}
	if m.vault != nil {
		p[secrets.ProviderVault] = m.vault
	}
	return p
}
