package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
)

// Last keeps the endpoints that this node served last on disk, so that a node
// that boots without a store serves names and service addresses all the same.
type Last struct {
	path string
	log  hclog.Logger

	mu    sync.Mutex
	known bool
	eps   []cluster.Endpoints
	rev   cluster.StoreRev
	kick  chan struct{}
}

const (
	lastVersion = 1
	// saveGap bounds how often the file is written while much changes.
	saveGap = time.Second
)

type lastFile struct {
	Version   int                 `json:"version"`
	Endpoints []cluster.Endpoints `json:"endpoints"`
}

// OpenLast reads what was kept at path. A file that does not read keeps a node
// from nothing: the store has it all.
func OpenLast(path string, log hclog.Logger) *Last {
	l := &Last{path: path, log: log, kick: make(chan struct{}, 1)}
	if err := l.load(); err != nil {
		log.Error("could not read the last endpoints; waiting for the store", "error", err)
	}
	return l
}

func (l *Last) load() error {
	b, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f lastFile
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	if f.Version != lastVersion {
		return fmt.Errorf("%s: version %d is not %d", l.path, f.Version, lastVersion)
	}
	l.eps, l.known = f.Endpoints, true
	return nil
}

// Endpoints are the last ones known, false when none are: nothing was ever
// served, or the file does not read. Do not change them.
func (l *Last) Endpoints() ([]cluster.Endpoints, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.eps, l.known
}

// Keep has endpoints written, which stand at a revision, and does not wait for it.
func (l *Last) Keep(eps []cluster.Endpoints, rev cluster.StoreRev) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rev == l.rev {
		return
	}
	l.eps, l.rev, l.known = eps, rev, true
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Run writes what Keep is given until ctx ends, and once more then.
func (l *Last) Run(ctx context.Context) error {
	var written []byte
	for {
		select {
		case <-ctx.Done():
			select {
			case <-l.kick:
				l.save(written)
			default:
			}
			return context.Cause(ctx)
		case <-l.kick:
		}
		written = l.save(written)
		gap := time.NewTimer(saveGap)
		select {
		case <-ctx.Done():
		case <-gap.C:
		}
		gap.Stop()
	}
}

// save writes the endpoints unless the file holds them already, and returns what
// the file holds.
func (l *Last) save(written []byte) []byte {
	eps, _ := l.Endpoints()
	b, err := json.Marshal(lastFile{Version: lastVersion, Endpoints: eps})
	if err == nil && bytes.Equal(b, written) {
		return written
	}
	if err == nil {
		err = atomicfile.Write(l.path, b)
	}
	if err != nil {
		l.log.Error("could not keep the endpoints on disk: after a reboot without a store this node would serve older ones", "error", err)
		return nil
	}
	return b
}
