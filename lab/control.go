package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/fairlead/fairlead/cluster"
)

// Request is what a lab is asked to do.
type Request struct {
	Op Op `json:"op"`
	// Target is NODE or NODE/UNIT for power, NODE or NODE:NODE for links.
	Target string `json:"target,omitempty"`
	OneWay bool   `json:"one_way,omitempty"`
	Pace   Pace   `json:"pace,omitzero"`
	// Snapshot is a snapshot's name.
	Snapshot string `json:"snapshot,omitempty"`
}

// Op is something that a lab can be asked to do.
type Op string

// What a lab can be asked to do.
const (
	OpStatus   Op = "status"
	OpKill     Op = "kill"
	OpStart    Op = "start"
	OpCut      Op = "cut"
	OpHeal     Op = "heal"
	OpSlow     Op = "slow"
	OpSnapshot Op = "snapshot"
	OpRestore  Op = "restore"
)

// answer is what the lab says.
type answer struct {
	Status Status       `json:"status"`
	Error  string       `json:"error,omitempty"`
	Kind   cluster.Kind `json:"kind,omitempty"`
}

// Ask asks a running lab, and returns what it looks like afterwards.
func Ask(ctx context.Context, d Dir, r Request) (Status, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Status{}, err
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix", d.control()) }}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lab/", bytes.NewReader(body))
	if err != nil {
		return Status{}, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT):
		return Status{}, cluster.Transientf("the lab in %s does not run: `%s` starts it again, `%s` removes it", d, d.command("up"), d.command("down"))
	case errors.Is(err, syscall.EACCES):
		return Status{}, errRoot
	case err != nil:
		return Status{}, cluster.Transientf("ask the lab in %s: %w", d, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return Status{}, cluster.Transientf("ask the lab in %s: %w", d, err)
	}
	if a.Error != "" {
		return a.Status, &cluster.Error{Kind: a.Kind, Msg: a.Error}
	}
	return a.Status, nil
}

// wanted changes what is wanted of a lab as a request says. Requests that change
// nothing of it, copies of disks, are the rack's.
func (r Request) wanted(s *State) error {
	switch r.Op {
	case OpKill, OpStart:
		node, unit, one := strings.Cut(r.Target, "/")
		if _, err := s.Spec.Machine(node); err != nil {
			return err
		}
		if one && unit != UnitDocker && unit != UnitFairlead {
			return cluster.Invalidf("%q: a node has %s/%s and %s/%s", r.Target, node, UnitDocker, node, UnitFairlead)
		}
		if one {
			s.Stopped = s.Stopped.With(r.Target, r.Op == OpKill)
		} else {
			s.Off = s.Off.With(node, r.Op == OpKill)
		}
	case OpCut, OpHeal:
		links, err := s.Spec.ParseLink(r.Target, r.OneWay)
		if err != nil {
			return err
		}
		if r.Op == OpCut {
			s.Cuts = cut(s.Cuts, links)
		} else {
			s.Cuts = heal(s.Cuts, links)
		}
	case OpSlow:
		if _, err := s.Spec.Machine(r.Target); err != nil {
			return err
		}
		if s.Slow == nil {
			s.Slow = map[string]Pace{}
		}
		s.Slow[r.Target] = r.Pace
		if r.Pace == (Pace{}) {
			delete(s.Slow, r.Target)
		}
	case OpStatus, OpSnapshot, OpRestore:
	default:
		return cluster.Invalidf("this lab was started by another version of Fairlead, which cannot %q: take it down, and up again", r.Op)
	}
	return nil
}
