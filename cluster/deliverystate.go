package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Origin is where a release came from, when a delivery made it.
type Origin struct {
	Delivery DeliveryName `json:"delivery"`
	URL      string       `json:"url"`
	Ref      string       `json:"ref,omitempty"` // "main", "v1.4.0"
	// Revision is the commit, VERSION@DIGEST of a repository's package, or the digest of what
	// a registry has.
	Revision string    `json:"revision"`
	Author   string    `json:"author,omitempty"`
	Subject  string    `json:"subject,omitempty"` // the first line of the commit's message
	At       time.Time `json:"at,omitzero"`       // of the commit, by its author's clock
	// Images were chosen beside what the source says.
	Images []ImageChoice `json:"images,omitempty"`
}

// Applied is a revision that was deployed.
type Applied struct {
	Origin  Origin `json:"origin"`
	Key     string `json:"key"`
	Release int    `json:"release"`
	Install bool   `json:"install,omitempty"` // the app was not there before it
	// Content tells what the source asked for from anything else it could.
	Content string `json:"content,omitempty"`
}

// DeliveryWatch is a release whose outcome is waited for.
type DeliveryWatch struct {
	Release  int       `json:"release"`
	Since    time.Time `json:"since"`
	Rollback bool      `json:"rollback,omitempty"`
	Kept     bool      `json:"kept,omitempty"` // the last good one again, while the source is away
	Late     bool      `json:"late,omitempty"` // its time is up; it is watched still
}

// DeliveryEvent is something that happened to a delivery.
type DeliveryEvent struct {
	ID       int64     `json:"id"` // counts from 1
	At       time.Time `json:"at"`
	Event    string    `json:"event"`
	Revision string    `json:"revision,omitempty"`
	Author   string    `json:"author,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Release  int       `json:"release,omitempty"`
	Images   string    `json:"images,omitempty"` // that were chosen beside the revision
	Message  string    `json:"message,omitempty"`
}

// DeliveryState is where a delivery stands. Writer: delivery.
type DeliveryState struct {
	Name    DeliveryName `json:"name"`
	Phase   string       `json:"phase"`
	Message string       `json:"message,omitempty"`
	// Seen is the newest revision of the source; Applied the last that was deployed,
	// and Good the last that became healthy.
	Seen    *Origin  `json:"seen,omitempty"`
	Applied *Applied `json:"applied,omitempty"`
	Good    *Applied `json:"good,omitempty"`
	// Accepted is the app's release when the source was last seen to ask for no other.
	Accepted int            `json:"accepted,omitempty"`
	Watch    *DeliveryWatch `json:"watch,omitempty"`
	// Failed is the key of a revision that was gone back from, and Terms those of the
	// delivery that it failed under.
	Failed string   `json:"failed,omitempty"`
	Terms  string   `json:"terms,omitempty"`
	Drift  []string `json:"drift,omitempty"`
	// Failures in a row, and Checks ever; Next is when to look again.
	Failures int       `json:"failures,omitempty"`
	Checks   int64     `json:"checks,omitempty"`
	Checked  time.Time `json:"checked,omitzero"` // last looked at the source, with success
	Next     time.Time `json:"next,omitzero"`
	Asked    int64     `json:"asked,omitempty"` // the last DeliveryAsk that was followed
	// Spec is the store revision of the delivery that was last followed.
	Spec   StoreRev     `json:"spec,omitempty"`
	Images []ImageState `json:"images,omitempty"`
	// Going says that a rollback is to be made; Next is then when to try, and the source is
	// looked at by Looked, when that was last done, with success or without. With Drift the app was
	// back already, and that is how it was changed by hand since.
	Going  bool      `json:"going_back,omitempty"`
	Looked time.Time `json:"looked,omitzero"`
	// Stuck is why the app cannot be gone back to Good from what failed.
	Stuck string `json:"stuck,omitempty"`
	// Varies says that the package makes something else each time that it is rendered; what it
	// made first stays.
	Varies bool `json:"varies,omitempty"`
	// History is what happened, the newest last; Outbox is what is still to be sent.
	// Told are sums of what was told of a revision that does not become healthy.
	History []DeliveryEvent `json:"history,omitempty"`
	Told    []string        `json:"told,omitempty"`
	Outbox  []DeliveryEvent `json:"outbox,omitempty"`
	// Heard is the last event of the outbox that a receiver had, by Notice.Key.
	Heard      map[string]int64 `json:"heard,omitempty"`
	NotifyNext time.Time        `json:"notify_next,omitzero"`
	NotifyErr  string           `json:"notify_error,omitempty"`
	Events     int64            `json:"events,omitempty"` // ever
	// AppCreated is the app whose releases Applied, Good and Watch are; 0: it was not there yet.
	AppCreated StoreRev `json:"app_created,omitempty"`

	Rev StoreRev `json:"-"`
}

// Of is the state as far as it is about an app that was created then (0: there is none). What
// another one of that name was, before it was removed, is none of it: its releases are gone.
func (s DeliveryState) Of(created StoreRev) DeliveryState {
	if s.AppCreated == 0 || s.AppCreated == created {
		return s
	}
	s.Applied, s.Good, s.Watch, s.Failed, s.Drift, s.Going, s.Stuck, s.Told = nil, nil, nil, "", nil, false, "", nil
	s.Accepted = 0
	s.Phase, s.Message, s.AppCreated, s.Failures = PhaseNew, "", 0, 0
	return s
}

// At is what the app was made of last: what was deployed, or the last good revision where that was
// gone back from; nil: nothing yet.
func (s DeliveryState) At() *Applied {
	if s.Back() {
		return s.Good
	}
	return s.Applied
}

// Back reports whether what was deployed was gone back from: the app stays at the last good
// revision, but for what is changed by hand.
func (s DeliveryState) Back() bool {
	return s.Applied != nil && s.Good != nil && s.Applied.Key == s.Failed && (!s.Going || s.Restores()) && s.Stuck == ""
}

// Restores reports whether the rollback that is to be made undoes what was changed by hand.
func (s DeliveryState) Restores() bool { return s.Going && len(s.Drift) > 0 }

// Says is what is to be said of a delivery in a line.
func (s DeliveryState) Says() string {
	if i := slices.IndexFunc(s.Images, func(i ImageState) bool { return i.Unwritten != "" }); i >= 0 && s.Message == "" {
		return fmt.Sprintf("%s is not committed: %s", s.Images[i], s.Images[i].Unwritten)
	}
	return s.Message
}

// DeliveryAsk asks for a look at the source now. Writer: API.
type DeliveryAsk struct {
	Number int64     `json:"number"`          // counts up
	Again  bool      `json:"again,omitempty"` // also what failed and was gone back from
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}
