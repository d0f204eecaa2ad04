// Package outage says in the log that something does not work: once, then more and more
// rarely while it is tried again, and when it works again. A server that waits for a
// majority tries for hours, and a log that says so each second hides what else is there.
package outage

import (
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// often is how many attempts are at most between two lines.
const often = 512

// Outage is one thing that may fail again and again. The zero value is one that works.
type Outage struct {
	mu     sync.Mutex
	failed int // attempts in a row
}

// Failed warns that an attempt failed, if it is the first, or half of those since have
// not been told of.
func (o *Outage) Failed(log hclog.Logger, msg string, args ...any) {
	o.mu.Lock()
	o.failed++
	n := o.failed
	o.mu.Unlock()
	if !due(n) {
		return
	}
	if n > 1 {
		args = append(slices.Clip(args), "attempts", n)
	}
	log.Warn(msg, args...)
}

// due reports whether the n-th failure in a row is told of.
func due(n int) bool { return n&(n-1) == 0 || n%often == 0 }

// Over says that it works again, if it did not.
func (o *Outage) Over(log hclog.Logger, msg string, args ...any) {
	o.mu.Lock()
	n := o.failed
	o.failed = 0
	o.mu.Unlock()
	if n > 0 {
		log.Info(msg, append(slices.Clip(args), "attempts", n)...)
	}
}
