package agent

import (
	"context"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

// description is what the node says about itself, and that it has to say it again.
type description struct {
	mu       sync.Mutex
	engine   docker.Info
	known    bool      // the engine was asked
	gone     time.Time // since when it does not answer; zero: it does
	disk     string    // why the assignment cannot be kept; "": it can
	address  string    // that other nodes reach; "": there is none yet
	overlap  string    // what of the machine overlaps with the cluster's ranges; "": nothing
	networks map[cluster.NetworkName]netip.Prefix
	wake     chan struct{}
}

func newDescription(address string) *description {
	return &description{address: address, wake: make(chan struct{}, 1)}
}

func (d *description) setEngine(i docker.Info) {
	d.mu.Lock()
	d.engine, d.known = i, true
	d.mu.Unlock()
	d.again()
}

// lost takes note that the engine does not answer since now, and says so again when
// that is long.
func (d *description) lost(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone.IsZero() {
		d.gone = now
		time.AfterFunc(engineAway, d.again)
	}
}

// back takes note that the engine answers.
func (d *description) back() {
	d.mu.Lock()
	d.gone = time.Time{}
	d.mu.Unlock()
	d.again()
}

// setDisk takes note of why the assignment cannot be kept on disk, or that it can.
func (d *description) setDisk(failure string) {
	d.mu.Lock()
	d.disk = failure
	d.mu.Unlock()
	d.again()
}

// where is the address that other nodes reach this one by.
func (d *description) where() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.address
}

// SetAddress takes note of the address that other nodes reach this one by now.
func (a *Agent) SetAddress(address string) {
	a.about.mu.Lock()
	a.about.address = address
	a.about.mu.Unlock()
	a.about.again()
}

// SetOverlap takes note of which of the machine's own networks overlap with the
// cluster's ranges; "": none does.
func (a *Agent) SetOverlap(text string) {
	a.about.mu.Lock()
	same := a.about.overlap == text
	a.about.overlap = text
	a.about.mu.Unlock()
	if !same {
		a.about.again()
	}
}

// setNetworks takes note of the networks that the node made; those of others are
// nobody's to reach.
func (d *description) setNetworks(nets []Network) {
	out := map[cluster.NetworkName]netip.Prefix{}
	for _, n := range nets {
		if !n.External {
			out[n.Name] = n.Subnet
		}
	}
	d.mu.Lock()
	same := maps.Equal(out, d.networks)
	d.networks = out
	d.mu.Unlock()
	if !same {
		d.again()
	}
}

func (d *description) again() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *description) info(cfg *Config) (cluster.NodeInfo, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.engine
	info := cluster.NodeInfo{
		ID: cfg.Node, Hostname: i.Hostname, Address: d.address, OS: i.OS, Arch: i.Arch, Engine: i.Version,
		Version: cfg.Version, CPU: i.CPU, Memory: i.Memory, PublicKey: cfg.Identity.Recipient().String(),
		Roles: cfg.Roles, Labels: i.Labels, Networks: maps.Clone(d.networks), EngineAway: !d.gone.IsZero() && cfg.Now().Sub(d.gone) >= engineAway,
		DiskFailure: d.disk, Overlap: d.overlap,
	}
	if info.OS == "" {
		info.OS = runtime.GOOS
	}
	return info, d.known && d.address != ""
}

// describe writes what the node says about itself whenever that changes.
func (a *Agent) describe(ctx context.Context) error {
	var away outage.Outage
	for wait := 100 * time.Millisecond; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.about.wake:
		}
		info, known := a.about.info(&a.cfg)
		if !known {
			continue
		}
		if err := a.cfg.Store.WriteInfo(ctx, info); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			away.Failed(a.cfg.Log, "could not write the node's description; will retry", "error", err)
			pause(ctx, wait)
			wait = min(2*wait, 5*time.Second)
			a.about.again()
			continue
		}
		away.Over(a.cfg.Log, "wrote the node's description")
		wait = 100 * time.Millisecond
	}
}
