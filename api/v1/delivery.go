package v1

import (
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

// Trace leads from the containers of a service back to who made them so.
type Trace struct {
	cluster.ServiceID
	Release  ReleaseSummary  `json:"release"`
	Origin   *cluster.Origin `json:"origin,omitempty"`
	From     string          `json:"from,omitempty" doc:"of the package, as whoever installed it named it"`
	Delivery *DeliveryStatus `json:"delivery,omitempty"`
	Tasks    []TaskStatus    `json:"tasks"`
}
