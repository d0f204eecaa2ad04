package server

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/store"
)

func (m *local) gatewayConfig() gateway.Config {
	c := gateway.Config{
		Cluster: m.cluster, Node: cluster.NodeID(m.Node), DataDir: m.DataDir, RunDir: m.RunDir, Traefik: m.Traefik,
		Web: m.HTTPPort, WebSecure: m.HTTPSPort, Internal: m.InternalPort, TrustedProxies: m.trusted, Now: m.now,
	}
	if p, err := netip.ParsePrefix(m.Pool); err == nil {
		c.InternalFrom = []netip.Prefix{p}
	}
	return c
}

// startGateway runs Traefik on this node, with the cluster's certificates and users.
func (n *nodeParts) startGateway(mirror *store.Mirror) error {
	cfg := n.gatewayConfig()
	own := control.GatewayStore{Store: store.Guarded(n.store, store.WriterGateway)}
	log := n.Log.Named("gateway")
	if _, err := gateway.New(cfg, own, log); err != nil {
		return err // the configuration is wrong: no later try would be better
	}
	n.bootFiles(cfg)
	run := func(ctx context.Context) error {
		gw, err := gateway.New(cfg, own, log)
		if err != nil {
			return err
		}
		return gw.Run(ctx)
	}
	n.g.Go(func() error {
		return keepUp(n.ctx, n.now, log, "gateway", run, func(ctx context.Context, reason string) {
			if err := own.Fail(ctx, cfg.Node, reason); err != nil && ctx.Err() == nil {
				log.Warn("could not record that the gateway does not work", "error", err)
			}
		})
	})
	n.g.Go(func() error { return n.files(cfg, mirror) })
	return nil
}

// retireGateway ends the gateway that this node ran when it was started before: it
// runs none now, and a Traefik without its gateway would serve old routes for ever.
func (n *nodeParts) retireGateway() {
	cfg := n.gatewayConfig()
	if !gateway.Left(cfg) {
		return
	}
	log := n.Log.Named("gateway")
	log.Info("this node runs no gateway any more: its Traefik ends")
	n.g.Go(func() error {
		own := control.GatewayStore{Store: store.Guarded(n.store, store.WriterGateway)}
		return untilDone(n.ctx, log, "end the gateway of this node", func() error {
			// What is asked last is what tells that it was done.
			if err := own.Retire(n.ctx, cfg.Node); err != nil {
				return err
			}
			return gateway.Shutdown(n.ctx, cfg, log)
		})
	})
}

// waitFor waits for a change, and then a moment for more of them.
func waitFor(ctx context.Context, changed <-chan struct{}, gather time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-changed:
	}
	t := time.NewTimer(gather)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// login opens the sealed credentials of a registry; empty when there are none.
func (m *machine) login(ctx context.Context, st store.Store, host string) (user, password string, err error) {
	e, err := st.Get(ctx, store.RegistryCredentialKey(host))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	var rec v1.RegistryRecord
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return "", "", cluster.Invalidf("the login of %s does not decode: %w", host, err)
	}
	b, err := m.key.Open(rec.Sealed, v1.RegistryContext(host))
	return rec.Username, string(b), err
}
