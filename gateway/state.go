package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead/fairlead/atomicfile"
)

// state is what the next Fairlead needs to take over the Traefik processes.
type state struct {
	Version    int        `json:"version"`
	Boot       string     `json:"boot"` // the kernel's boot ID: PIDs of an earlier boot mean nothing
	Etcd       int        `json:"etcd"` // port of the local etcd endpoint
	Generation int        `json:"generation"`
	Current    *process   `json:"current,omitempty"`
	Old        []*process `json:"old,omitempty"` // replaced, not yet ended
}

func stateFile(c Config) string { return filepath.Join(c.dataDir(), "state.json") }

// loadState returns what an earlier Fairlead left. A file that does not read is
// no reason not to run: processes are found by their command line then.
func loadState(c Config) (state, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return state{}, fmt.Errorf("gateway: %w", err)
	}
	fresh := state{Version: 1, Boot: strings.TrimSpace(string(boot))}
	b, err := os.ReadFile(stateFile(c))
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("gateway: read its state: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil || s.Version != 1 {
		return fresh, nil
	}
	fresh.Generation, fresh.Etcd = s.Generation, s.Etcd
	if s.Boot != fresh.Boot {
		return fresh, nil
	}
	return s, nil
}

func (s state) save(c Config) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("gateway: keep its state: %w", err)
	}
	if err := atomicfile.Write(stateFile(c), append(b, '\n')); err != nil {
		return fmt.Errorf("gateway: keep its state: %w", err)
	}
	return nil
}

func (s state) all() []*process {
	out := make([]*process, 0, len(s.Old)+1)
	if s.Current != nil {
		out = append(out, s.Current)
	}
	return append(out, s.Old...)
}
