package lab

// What the rack and a machine tell each other, as a stream of JSON values.

// order is what the rack tells a machine. The first one starts it.
type order struct {
	Boot  *boot  `json:"boot,omitempty"`
	Stop  *stop  `json:"stop,omitempty"`
	Pace  *Pace  `json:"pace,omitempty"` // of what the machine sends
	Token string `json:"token,omitempty"`
	Halt  bool   `json:"halt,omitempty"` // end all units gently, then yourself
}

// stop names the units not to run from now on; the others run.
type stop struct {
	Units Set `json:"units"`
}

// boot is what a machine needs to know to start. Its link is there by then.
type boot struct {
	Lab     string    `json:"lab"`
	Dir     Dir       `json:"dir"`
	Self    Machine   `json:"self"`
	All     []Machine `json:"all"`
	Units   []Unit    `json:"units"`
	Stopped Set       `json:"stopped"`
}

// report is what a machine tells the rack.
type report struct {
	// Failed says why it could not start; nothing else follows.
	Failed string      `json:"failed,omitempty"`
	Units  []UnitState `json:"units"`
}

// UnitState is a unit of a machine.
type UnitState struct {
	Name   string `json:"name"`
	PID    int    `json:"pid,omitempty"` // on the machine; 0: it does not run
	Starts int    `json:"starts"`
	// Ended is how it ended last.
	Ended string `json:"ended,omitempty"`
}
