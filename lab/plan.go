package lab

import "slices"

// Snapshot is what a plan is made of: what is wanted, and what the rack sees.
type Snapshot struct {
	State State
	// Machines is what is seen, by name.
	Machines map[string]Seen
	// Rules are those that the switch has.
	Rules string
	// Serving says that a server of the lab answers.
	Serving bool
}

// Seen is what the rack sees of a machine.
type Seen struct {
	Running bool
	Joined  bool // has a certificate: needs no token
	Invited bool // has been given a token since it was started
	Stopped Set  // units that the machine was told not to run
	Pace    Pace
}

// Step is something that the rack does.
//
//sumtype:decl
type Step interface{ step() }

type (
	// SetRules gives the switch its rules.
	SetRules struct{ Rules string }
	// PowerOff ends a machine, and all that runs on it.
	PowerOff struct{ Node string }
	// PowerOn starts a machine and connects it to the switch.
	PowerOn struct{ Node string }
	// SetPace makes a machine's link so slow.
	SetPace struct {
		Node string
		Pace Pace
	}
	// Tell tells a machine which of its units not to run.
	Tell struct {
		Node    string
		Stopped Set
	}
	// Invite lets machines join the cluster, as servers or as nodes.
	Invite struct {
		Nodes  []string
		Server bool
	}
)

func (SetRules) step() {}
func (PowerOff) step() {}
func (PowerOn) step()  {}
func (SetPace) step()  {}
func (Tell) step()     {}
func (Invite) step()   {}

// Plan says what to do now. What is cut is cut before anything is started that
// could send by it.
func Plan(s Snapshot) []Step {
	var out []Step
	if want := SwitchRules(s.State.Cuts); s.Rules != want {
		out = append(out, SetRules{want})
	}
	var servers, nodes []string // to invite
	machines := s.State.Spec.Machines()
	serving := s.Serving && !s.State.Off.Has(machines[0].Name) // not for much longer
	for _, m := range machines {
		seen, off := s.Machines[m.Name], s.State.Off.Has(m.Name)
		switch {
		case seen.Running && off:
			out = append(out, PowerOff{m.Name})
			continue
		case off:
			continue
		case !seen.Running:
			out = append(out, PowerOn{m.Name})
			continue // what it needs next is seen when it runs
		}
		if want := s.State.Slow[m.Name]; seen.Pace != want {
			out = append(out, SetPace{m.Name, want})
		}
		if want := stopped(s.State, m.Name); !slices.Equal(seen.Stopped, want) {
			out = append(out, Tell{m.Name, want})
		}
		switch {
		case !serving || !m.joins() || seen.Joined || seen.Invited:
		case m.Server:
			servers = append(servers, m.Name)
		default:
			nodes = append(nodes, m.Name)
		}
	}
	if len(servers) > 0 {
		out = append(out, Invite{servers, true})
	}
	if len(nodes) > 0 {
		out = append(out, Invite{nodes, false})
	}
	return out
}

// stopped are the units that a machine must not run.
func stopped(s State, node string) Set {
	var out Set
	for _, u := range []string{UnitDocker, UnitFairlead} {
		if s.Stopped.Has(node + "/" + u) {
			out = out.With(u, true)
		}
	}
	return out
}
