package lab

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
)

// State is a lab as it is wanted now; its file is written before it is made so.
type State struct {
	Spec Spec `json:"spec"`
	// EngineDir has the programs of the engine; "" are those on PATH.
	EngineDir string `json:"engine_dir,omitempty"`
	Traefik   string `json:"traefik,omitempty"`
	// Ports are those of 127.0.0.1 that lead to gateways.
	Ports []Port `json:"ports,omitempty"`
	// Off are the machines without power, Stopped the units (n1/docker) that were killed.
	Off     Set `json:"off,omitempty"`
	Stopped Set `json:"stopped,omitempty"`
	// Cuts are the links that pass nothing.
	Cuts []Cut `json:"cuts,omitempty"`
	// Slow is by machine.
	Slow map[string]Pace `json:"slow,omitempty"`
}

// errRoot is for others than root.
var errRoot = &cluster.Error{Kind: cluster.KindForbidden, Msg: "labs are root's: run it with sudo"} //nolint:gochecknoglobals // an error

// Port leads from this machine to a gateway.
type Port struct {
	Node string `json:"node"`
	To   int    `json:"to"`   // 80 or 443 of the node
	Port int    `json:"port"` // of 127.0.0.1; 0: any, and the state says which it became
}

// Set is a set of names, kept sorted.
type Set []string

// Has reports whether the set has a name.
func (s Set) Has(name string) bool { _, ok := slices.BinarySearch(s, name); return ok }

// With returns the set with a name or without it.
func (s Set) With(name string, in bool) Set {
	i, ok := slices.BinarySearch(s, name)
	switch {
	case ok == in:
		return s
	case in:
		return slices.Insert(slices.Clone(s), i, name)
	}
	return slices.Delete(slices.Clone(s), i, i+1)
}

// clone is a copy that shares nothing that a change touches.
func (s State) clone() State {
	s.Ports, s.Cuts = slices.Clone(s.Ports), slices.Clone(s.Cuts)
	s.Slow = maps.Clone(s.Slow)
	return s
}

// marked reports whether a directory has the mark of a lab's.
func marked(d Dir) (bool, error) {
	_, err := os.Lstat(d.mark())
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// isLab reports whether a directory is a lab's: what is not is neither used nor removed. Labs
// of earlier versions have a state and no mark.
func isLab(d Dir) (bool, error) {
	if is, err := marked(d); is || err != nil {
		return is, err
	}
	s, err := load(d)
	return err == nil && s.Spec.Validate() == nil, nil
}

// load reads the state of what may be a lab.
func load(d Dir) (s State, err error) {
	b, err := os.ReadFile(d.state())
	if err != nil {
		return State{}, err
	}
	return s, json.Unmarshal(b, &s)
}

// Read returns a lab's state; KindNotFound when there is none, or another's directory.
func Read(d Dir) (State, error) {
	s, err := load(d)
	if errors.Is(err, fs.ErrPermission) {
		return State{}, errRoot
	}
	is, merr := marked(d)
	switch {
	case merr != nil:
		return State{}, merr
	case !is && (err != nil || s.Spec.Validate() != nil):
		return State{}, cluster.NotFoundf("there is no lab in %s: `%s` makes one", d, d.command("up"))
	case absent(err):
		return State{}, cluster.NotFoundf("the lab is half-made: `%s` makes it anew, `%s` removes it", d.command("up"), d.command("down"))
	case err != nil:
		return State{}, cluster.Invalidf("read the lab's state: %w; `%s` removes it", err, d.command("down"))
	}
	return s, nil
}

func (s State) write(d Dir) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(d.state(), append(b, '\n'))
}
