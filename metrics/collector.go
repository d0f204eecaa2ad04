package metrics

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
)

// Target is a container to measure.
type Target struct {
	Task      cluster.TaskID
	Container string // Docker's full ID; its control group is named by it
	Pid       int    // of its first process, in the host's PID namespace; 0: it does not run
}

// Config configures a Collector.
type Config struct {
	Proc   string // "" means /proc
	Cgroup string // "" means /sys/fs/cgroup
	Now    func() time.Time
	Log    hclog.Logger
}

// Collector measures the containers of a node. It is safe for concurrent use.
type Collector struct {
	cfg Config

	mu      sync.Mutex
	read    map[cluster.TaskID]reading
	samples map[cluster.TaskID]cluster.Sample
}

// reading is what was read of a target, to take differences from.
type reading struct {
	Target
	at     time.Time
	cpu    uint64 // nanoseconds
	files  files
	failed bool // and this was logged
}

// minWindow is the shortest interval that CPU is averaged over: shorter ones say
// more about the kernel's accounting than about the container.
const minWindow = 500 * time.Millisecond

// New makes a Collector.
func New(cfg Config) *Collector {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Cgroup == "" {
		cfg.Cgroup = "/sys/fs/cgroup"
	}
	return &Collector{cfg: cfg, read: map[cluster.TaskID]reading{}, samples: map[cluster.TaskID]cluster.Sample{}}
}

// Run measures what targets returns, every interval, until ctx ends; it returns
// the context's cause.
func (c *Collector) Run(ctx context.Context, every time.Duration, targets func(context.Context) ([]Target, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ts, err := targets(ctx)
		switch {
		case err == nil:
			c.Collect(ts)
		case ctx.Err() == nil:
			c.cfg.Log.Warn("could not list the containers to measure; will retry", "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Collect reads all targets once, and forgets every other.
func (c *Collector) Collect(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := make(map[cluster.TaskID]reading, len(targets))
	samples := make(map[cluster.TaskID]cluster.Sample, len(targets))
	for _, t := range targets {
		if t.Pid <= 0 {
			continue
		}
		last, known := c.read[t.Task]
		if known && last.Target != t {
			last, known = reading{}, false // its container was made or started anew
		}
		now, memory, err := c.measure(t, last)
		if err != nil {
			if !last.failed {
				c.cfg.Log.Debug("could not measure a container", "task", string(t.Task), "error", err)
			}
			read[t.Task] = reading{Target: t, failed: true}
			continue
		}
		window := now.at.Sub(last.at)
		switch {
		case !known || last.failed || now.cpu < last.cpu:
			read[t.Task] = now
		case window < minWindow:
			read[t.Task] = last
			if s, ok := c.samples[t.Task]; ok {
				samples[t.Task] = s
			}
		default:
			read[t.Task] = now
			samples[t.Task] = cluster.Sample{
				Task: t.Task, CPU: millicores(now.cpu-last.cpu, window), Memory: memory, At: now.at, Window: cluster.Duration(window),
			}
		}
	}
	c.read, c.samples = read, samples
}

// measure reads one target. Where its files are is found once.
func (c *Collector) measure(t Target, last reading) (reading, int64, error) {
	out := reading{Target: t, files: last.files}
	if out.files == (files{}) {
		f, err := c.locate(t)
		if err != nil {
			return out, 0, err
		}
		out.files = f
	}
	cpu, memory, err := out.files.read()
	out.cpu, out.at = cpu, c.cfg.Now()
	return out, int64(min(memory, 1<<62)), err
}

// millicores turns nanoseconds of CPU in an interval into thousandths of a core, rounded.
func millicores(ns uint64, in time.Duration) int64 {
	return int64(float64(ns)*1000/float64(in) + 0.5)
}

// Samples returns the newest samples, sorted by task.
func (c *Collector) Samples() []cluster.Sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]cluster.Sample, 0, len(c.samples))
	for _, s := range c.samples {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b cluster.Sample) int { return strings.Compare(string(a.Task), string(b.Task)) })
	return out
}
