package docker

import (
	"context"
	"net/netip"
	"os"
	"strings"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/fairlead/fairlead/cluster"
)

// LabelNetwork carries a network's name in Fairlead, which Docker's may differ from.
const LabelNetwork = "io.fairlead.network"

// Network is a Docker network.
type Network struct {
	ID, Name string
	Driver   string
	Bridge   string // interface on the host; bridge networks only
	Subnets  []netip.Prefix
	Gateway  netip.Addr // IPv4
	// Dynamic is the part of the first subnet that the engine takes addresses
	// from by itself; not valid: all of it.
	Dynamic  netip.Prefix
	Internal bool
	Labels   map[string]string
}

const optBridge = "com.docker.network.bridge.name"

// Networks returns every network of the engine.
func (e *Engine) Networks(ctx context.Context) ([]Network, error) {
	list, err := e.cli.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, kind(err)
	}
	out := make([]Network, 0, len(list))
	for _, n := range list {
		x := Network{ID: n.ID, Name: n.Name, Driver: n.Driver, Internal: n.Internal, Labels: n.Labels, Bridge: n.Options[optBridge]}
		if x.Bridge == "" && n.Driver == "bridge" && len(n.ID) >= 12 {
			x.Bridge = "br-" + n.ID[:12]
		}
		for _, c := range n.IPAM.Config {
			p, err := netip.ParsePrefix(c.Subnet)
			if err != nil {
				continue
			}
			x.Subnets = append(x.Subnets, p)
			if r, err := netip.ParsePrefix(c.IPRange); err == nil && len(x.Subnets) == 1 {
				x.Dynamic = r
			}
			if !p.Addr().Is4() || x.Gateway.IsValid() {
				continue
			}
			// Some engines write the gateway with its prefix length.
			gw, _, _ := strings.Cut(c.Gateway, "/")
			if a, err := netip.ParseAddr(gw); err == nil {
				x.Gateway = a
			} else {
				x.Gateway = p.Masked().Addr().Next()
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// CreateNetwork makes a bridge network and returns its ID. Trusted interfaces
// may bring packets to its containers from outside the bridge.
func (e *Engine) CreateNetwork(ctx context.Context, n Network, trusted []string) (string, error) {
	opts := map[string]string{optBridge: n.Bridge}
	if len(trusted) > 0 {
		opts["com.docker.network.bridge.trusted_host_interfaces"] = strings.Join(trusted, ":")
	}
	ipam := &network.IPAM{Driver: "default"}
	for i, s := range n.Subnets {
		c := network.IPAMConfig{Subnet: s.String(), Gateway: n.Gateway.String()}
		if i == 0 && n.Dynamic.IsValid() {
			c.IPRange = n.Dynamic.String()
		}
		ipam.Config = append(ipam.Config, c)
	}
	r, err := e.cli.NetworkCreate(ctx, n.Name, network.CreateOptions{
		Driver: "bridge", Internal: n.Internal, IPAM: ipam, Options: opts, Labels: n.Labels,
	})
	return r.ID, kind(err)
}

// RemoveNetwork removes a network; the engine refuses while containers use it.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	err := kind(e.miscounted(ctx, id, e.cli.NetworkRemove(ctx, id)))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil
	}
	return err
}

// EnsureVolume makes the named volume with the labels unless it exists. An
// existing one is taken as it is. With external set it must exist.
func (e *Engine) EnsureVolume(ctx context.Context, m cluster.Mount, labels map[string]string) error {
	_, err := e.cli.VolumeInspect(ctx, m.Source)
	if err = kind(err); cluster.KindOf(err) != cluster.KindNotFound {
		return err
	}
	if m.External {
		return cluster.NotFoundf("volume %s does not exist and is external: make it with docker volume create %s", m.Source, m.Source)
	}
	_, err = e.cli.VolumeCreate(ctx, volume.CreateOptions{Name: m.Source, Driver: m.Driver, DriverOpts: m.DriverOpts, Labels: labels})
	return kind(err)
}

// VolumeNames are the names of all volumes that the engine has.
func (e *Engine) VolumeNames(ctx context.Context) ([]string, error) {
	list, err := e.cli.VolumeList(ctx, volume.ListOptions{})
	names := make([]string, 0, len(list.Volumes))
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return names, kind(err)
}

func fileMode(m int) os.FileMode { return os.FileMode(m & 0o7777) }
