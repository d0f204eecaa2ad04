package docker

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/fairlead/fairlead/cluster"
)

// Create is everything that makes a container. Spec gives what is not set here.
type Create struct {
	Name       string
	Image      string // reference or ID
	Hostname   string
	Env        []string
	Labels     map[string]string
	Entrypoint []string
	Command    []string
	// HealthTest replaces Spec.Health.Test, or the image's own where there is none.
	HealthTest []string
	Networks   []Attachment
	DNS        []string // servers to ask, in this order
	DNSSearch  []string
	Mounts     []cluster.Mount
	Files      []File
	Spec       *cluster.TaskSpec
	// LogDriver and LogOpts are used where Spec names no log driver.
	LogDriver string
	LogOpts   map[string]string
}

// Attachment attaches a container to a network, by Docker's ID, with a fixed
// address or, where it is not valid, one that the engine chooses at each start.
type Attachment struct {
	ID      string
	Address netip.Addr
}

func (a Attachment) settings() *network.EndpointSettings {
	s := &network.EndpointSettings{}
	if a.Address.IsValid() {
		s.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a.Address.String()}
	}
	return s
}

// File is one file of the host, mounted read-only.
type File struct{ Source, Target string }

// Create makes a container and attaches it to its networks; it does not start it.
func (e *Engine) Create(ctx context.Context, c Create) (string, error) {
	cfg, host, err := c.config()
	if err != nil {
		return "", err
	}
	var netcfg *network.NetworkingConfig
	var later []Attachment
	if len(c.Networks) > 0 {
		host.NetworkMode = container.NetworkMode(c.Networks[0].ID)
		netcfg = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
		for i, n := range c.Networks {
			// Engines before API 1.44 take one network when a container is made.
			if i > 0 && versions.LessThan(e.cli.ClientVersion(), "1.44") {
				later = append(later, n)
				continue
			}
			netcfg.EndpointsConfig[n.ID] = n.settings()
		}
	}
	r, err := e.cli.ContainerCreate(ctx, cfg, host, netcfg, platform(c.Spec.Platform), c.Name)
	if err != nil {
		return "", kind(err)
	}
	for _, n := range later {
		err := e.cli.NetworkConnect(ctx, n.ID, r.ID, n.settings())
		if k := kind(err); k != nil && cluster.KindOf(k) != cluster.KindConflict {
			// Half made is worse than not made: the next attempt would adopt it.
			_ = e.Remove(context.WithoutCancel(ctx), r.ID)
			return "", k
		}
	}
	return r.ID, nil
}

func (c Create) config() (*container.Config, *container.HostConfig, error) {
	s := c.Spec
	exposed, bindings, err := ports(s)
	if err != nil {
		return nil, nil, err
	}
	cfg := &container.Config{
		Hostname: c.Hostname, User: s.User, ExposedPorts: exposed, Tty: s.TTY, OpenStdin: s.StdinOpen,
		Env: c.Env, Cmd: c.Command, Entrypoint: c.Entrypoint, Image: c.Image, WorkingDir: s.WorkingDir,
		Labels: c.Labels, StopSignal: s.StopSignal, Healthcheck: health(s.Health, c.HealthTest),
	}
	if s.StopGrace > 0 {
		secs := int((s.StopGrace.D() + time.Second - 1) / time.Second)
		cfg.StopTimeout = &secs
	}
	host := &container.HostConfig{
		PortBindings: bindings, RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapAdd: s.CapAdd, CapDrop: s.CapDrop, DNS: c.DNS, DNSSearch: c.DNSSearch, DNSOptions: s.DNSOptions,
		ExtraHosts: s.ExtraHosts, GroupAdd: s.GroupAdd, Privileged: s.Privileged, ReadonlyRootfs: s.ReadOnly,
		SecurityOpt: s.SecurityOpt, Sysctls: s.Sysctls, ShmSize: s.ShmSize,
		LogConfig:   container.LogConfig{Type: c.LogDriver, Config: c.LogOpts},
		NetworkMode: container.NetworkMode(s.NetworkMode),
	}
	if s.Init {
		host.Init = &s.Init
	}
	if s.LogDriver != "" || len(s.LogOpts) > 0 {
		host.LogConfig = container.LogConfig{Type: s.LogDriver, Config: s.LogOpts}
	}
	resources(&host.Resources, s)
	for _, d := range s.Devices {
		dev, err := device(d)
		if err != nil {
			return nil, nil, err
		}
		host.Devices = append(host.Devices, dev)
	}
	for _, m := range c.Mounts {
		host.Mounts = append(host.Mounts, mounted(m))
	}
	for _, f := range c.Files {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: f.Source, Target: f.Target, ReadOnly: true})
	}
	return cfg, host, nil
}

func resources(r *container.Resources, s *cluster.TaskSpec) {
	r.NanoCPUs = s.Resources.LimitCPU * 1e6
	r.Memory = s.Resources.LimitMemory
	r.MemoryReservation = s.Resources.ReserveMemory
	if r.Memory > 0 {
		r.MemoryReservation = min(r.MemoryReservation, r.Memory)
	}
	if n := s.Resources.ReserveCPU; n > 0 {
		r.CPUShares = max(2, n*1024/1000)
	}
	if n := s.Resources.LimitPids; n > 0 {
		r.PidsLimit = &n
	}
	for _, u := range s.Ulimits {
		r.Ulimits = append(r.Ulimits, &units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
}

func ports(s *cluster.TaskSpec) (nat.PortSet, nat.PortMap, error) {
	set, m := nat.PortSet{}, nat.PortMap{}
	for _, p := range s.Expose {
		port, err := nat.NewPort("tcp", strconv.Itoa(p))
		if err != nil {
			return nil, nil, cluster.Invalidf("expose %d: %w", p, err)
		}
		set[port] = struct{}{}
	}
	for _, p := range s.NodePorts {
		proto := p.Protocol
		if proto == "" {
			proto = "tcp"
		}
		port, err := nat.NewPort(proto, strconv.Itoa(p.Target))
		if err != nil {
			return nil, nil, cluster.Invalidf("port %d: %w", p.Target, err)
		}
		set[port] = struct{}{}
		b := nat.PortBinding{HostIP: p.HostIP}
		if p.Published != 0 {
			b.HostPort = strconv.Itoa(p.Published)
		}
		m[port] = append(m[port], b)
	}
	return set, m, nil
}

func health(h *cluster.Health, test []string) *container.HealthConfig {
	switch {
	case h == nil && test == nil:
		return nil
	case h == nil:
		return &container.HealthConfig{Test: test} // the times are the image's
	case h.HTTPPort != 0 || h.TCPPort != 0:
		// The agent itself probes HTTP and TCP: the image's own check must not count beside it.
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	if test == nil {
		test = h.Test // empty: Docker takes the image's own test, and the times from here
	}
	return &container.HealthConfig{
		Test: test, Interval: h.Interval.D(), Timeout: h.Timeout.D(), Retries: h.Retries, StartPeriod: h.StartPeriod.D(),
	}
}

func mounted(m cluster.Mount) mount.Mount {
	out := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Type {
	case cluster.MountVolume:
		out.VolumeOptions = &mount.VolumeOptions{NoCopy: m.NoCopy}
		if m.Driver != "" && m.Source == "" { // named ones exist by now, as they are
			out.VolumeOptions.DriverConfig = &mount.Driver{Name: m.Driver, Options: maps.Clone(m.DriverOpts)}
		}
	case cluster.MountTmpfs:
		out.Source = ""
		if m.TmpfsSize > 0 || m.TmpfsMode > 0 {
			out.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.TmpfsSize, Mode: fileMode(m.TmpfsMode)}
		}
	}
	return out
}

// device reads "host[:container[:permissions]]".
func device(s string) (container.DeviceMapping, error) {
	p := strings.Split(s, ":")
	d := container.DeviceMapping{PathOnHost: p[0], PathInContainer: p[0], CgroupPermissions: "rwm"}
	if len(p) > 1 && p[1] != "" {
		d.PathInContainer = p[1]
	}
	if len(p) > 2 && p[2] != "" {
		d.CgroupPermissions = p[2]
	}
	if p[0] == "" || len(p) > 3 || strings.Trim(d.CgroupPermissions, "rwm") != "" {
		return d, cluster.Invalidf("device %q: write HOST:CONTAINER:PERMISSIONS, such as /dev/snd:/dev/snd:rw", s)
	}
	return d, nil
}

func platform(s string) *ocispec.Platform {
	if s == "" {
		return nil
	}
	p := slices.Concat(strings.Split(s, "/"), []string{"", ""})
	return &ocispec.Platform{OS: p[0], Architecture: p[1], Variant: p[2]}
}
