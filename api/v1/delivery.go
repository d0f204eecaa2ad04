package v1

import (
	"cmp"
	"fmt"

	"github.com/fairlead/fairlead/cluster"
)

// DeliveryStatus is a delivery and where it stands.
type DeliveryStatus struct {
	cluster.Delivery
	State cluster.DeliveryState `json:"state"`
}

// Phase is the state in a word.
func (d DeliveryStatus) Phase() string {
	switch {
	case d.Suspend:
		return "suspended"
	case d.State.Phase == cluster.PhaseNew:
		return "new"
	}
	return d.State.Phase
}

// AppDelivery is the delivery that an app follows, in short.
type AppDelivery struct {
	Name      cluster.DeliveryName `json:"name"`
	Phase     string               `json:"phase" enum:"new,waiting,deploying,ready,drifted,failed,held"`
	Suspended bool                 `json:"suspended,omitempty"`
	// Ref and Revision are what the app was made of last.
	Ref      string `json:"ref,omitempty"`
	Revision string `json:"revision,omitempty"`
	Message  string `json:"message,omitempty"`
}

// Short is d as it is shown of its app.
func (d DeliveryStatus) Short() AppDelivery {
	out := AppDelivery{Name: d.Name, Phase: cmp.Or(d.State.Phase, "new"), Suspended: d.Suspend, Message: d.State.Says()}
	if a := d.State.At(); a != nil {
		out.Ref, out.Revision = a.Origin.Ref, a.Origin.Revision
	}
	return out
}

// State is the phase, or that it is suspended.
func (d AppDelivery) State() string {
	if d.Suspended {
		return "suspended"
	}
	return d.Phase
}

// Wrong reports whether somebody should look at it. One that is suspended is as somebody wants it.
func (d AppDelivery) Wrong() bool {
	switch d.State() {
	case cluster.PhaseFailed, cluster.PhaseHeld, cluster.PhaseDrifted:
		return true
	}
	return false
}

// String is d in a line.
func (d AppDelivery) String() string {
	s := fmt.Sprintf("%s: %s", d.Name, d.State())
	if d.Revision != "" {
		s += " at " + cluster.ShortRevision(d.Revision)
	}
	if d.Ref != "" {
		s += " (" + d.Ref + ")"
	}
	if d.Message != "" {
		s += ": " + d.Message
	}
	return s
}

// Settled reports whether request n was followed, and nothing is in progress.
func (d DeliveryStatus) Settled(n int64) bool {
	st := d.State
	return st.Asked >= n && st.Spec != 0 && st.Watch == nil && !st.Going
}

// DeliverySet is a delivery to make, or to change.
type DeliverySet struct {
	cluster.Delivery
	// Replace changes one that is there: all of it is as it says here. One that is suspended
	// stays so, unless Resume is given.
	Replace bool `json:"replace,omitempty"`
	Resume  bool `json:"resume,omitempty"`
}

// DeliveryAsked is a request that was noted.
type DeliveryAsked struct {
	Name   cluster.DeliveryName `json:"name"`
	Number int64                `json:"number"`
}

// DeliveryDiff is how an app differs from what its source has now.
type DeliveryDiff struct {
	Name     cluster.DeliveryName `json:"name"`
	Origin   cluster.Origin       `json:"origin"`
	Verdict  string               `json:"verdict" doc:"what a reconciliation would do: keep, deploy, hold, report"`
	Plan     Plan                 `json:"plan"`
	Warnings []string             `json:"warnings,omitempty"`
	// Images are what the image policies choose now; Writes what of it would be committed.
	Images []cluster.ImageState `json:"images,omitempty"`
	Writes []string             `json:"writes,omitempty"`
}

// TracedRelease is a release and where what it says comes from.
type TracedRelease struct {
	Release ReleaseSummary  `json:"release"`
	Origin  *cluster.Origin `json:"origin,omitempty"`
	From    string          `json:"from,omitempty" doc:"of the package, as whoever installed it named it"`
}

// EarlierRelease is one that tasks are of which are still there.
type EarlierRelease struct {
	TracedRelease
	Of []cluster.TaskID `json:"of"`
}

// Trace leads from the containers of a service back to who made them so.
type Trace struct {
	cluster.ServiceID
	TracedRelease                  // the one that is wanted
	Earlier       []EarlierRelease `json:"earlier,omitempty" doc:"releases with another version of the service that has tasks: while one rolls out, or after it failed"`
	Delivery      *DeliveryStatus  `json:"delivery,omitempty"`
	Tasks         []TaskStatus     `json:"tasks"`
}
