package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
)

// assignment is what an agent keeps on disk, so that a node that boots without
// a control plane runs what it ran. Payloads stay sealed.
type assignment struct {
	Version    int                     `json:"version"`
	Placements []cluster.NodePlacement `json:"placements"`
	Sealed     []cluster.Sealed        `json:"sealed,omitempty"`
	Records    []record                `json:"records,omitempty"`
}

// record is what an agent remembers of a task across its own restarts.
type record struct {
	Status    cluster.Status `json:"status"`
	Pid       int            `json:"pid,omitempty"` // of its container's first process
	EverReady bool           `json:"ever_ready,omitempty"`
	Streak    int            `json:"streak,omitempty"`
}

const (
	assignmentVersion = 1
	// saveGap bounds how often the file is written while much changes.
	saveGap = 250 * time.Millisecond
	// saveRetry is the wait after a write that failed; it doubles to saveRetryMax.
	saveRetry    = time.Second
	saveRetryMax = 30 * time.Second
)

// disk writes the assignment, soon after it changes and never twice at once.
type disk struct {
	cfg     *Config
	report  func(failure string) // called when it changes; "" is none
	kick    chan struct{}
	failure string
}

func newDisk(cfg *Config, report func(string)) *disk {
	return &disk{cfg: cfg, report: report, kick: make(chan struct{}, 1)}
}

func (d *disk) path() string { return filepath.Join(d.cfg.StateDir, "assignment.json") }

func (d *disk) changed() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

func (d *disk) load() (assignment, error) {
	var a assignment
	b, err := os.ReadFile(d.path())
	if errors.Is(err, os.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return assignment{}, fmt.Errorf("%s: %w", d.path(), err)
	}
	if a.Version != assignmentVersion {
		return assignment{}, fmt.Errorf("%s: version %d is not %d", d.path(), a.Version, assignmentVersion)
	}
	return a, nil
}

// run writes what current returns after each change, and once more at the end.
func (d *disk) run(ctx context.Context, current func() assignment) error {
	retry := saveRetry
	for {
		select {
		case <-ctx.Done():
			d.note(d.save(current()))
			return context.Cause(ctx)
		case <-d.kick:
		}
		err := d.save(current())
		d.note(err)
		if err == nil {
			retry = saveRetry
			pause(ctx, saveGap)
			continue
		}
		d.changed()
		pause(ctx, retry)
		retry = min(2*retry, saveRetryMax)
	}
}

func (d *disk) save(a assignment) error {
	a.Version = assignmentVersion
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(d.path(), b)
}

// note says how it went, where that is not as it was: a disk stays full for long.
func (d *disk) note(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure == d.failure {
		return
	}
	d.failure = failure
	if err != nil {
		d.cfg.Log.Error("could not keep the assignment on disk: a reboot without a server would not start these tasks; will retry", "error", err)
	} else {
		d.cfg.Log.Info("the assignment is kept on disk again")
	}
	d.report(failure)
}
