package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// silence is that of servers which a command waits for something from, such as one that restarts.
type silence struct {
	a     *app
	why   error // nil: they answer
	since time.Time
}

// outlasts reports whether err is no more than that none answers now; it says so once.
func (s *silence) outlasts(err error) bool {
	if cluster.KindOf(err) != cluster.KindTransient {
		return false
	}
	if s.why == nil {
		s.since = s.a.now()
		s.a.note("%v; it waits on until a server answers", err)
	}
	s.why = err
	return true
}

func (s *silence) heard() { s.why = nil }

// late says that nothing was heard until the end of the time that is waited.
func (s *silence) late(of string, after time.Duration, look string) error {
	return &exitError{code: codeTimeout, err: fmt.Errorf("no server says %s after %s; the change goes on: %s: %w", of, after, look, s.why)}
}

// pause waits so long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
