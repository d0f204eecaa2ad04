package server

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// errEnded is the reason of a part that ended without one.
var errEnded = errors.New("it ended")

// keepUp runs a part of the server until ctx ends, again after a pause whenever
// it fails: what keeps one part from working must not take the others down. A
// reason is logged when it changes; failed gets it each time.
func keepUp(ctx context.Context, now func() time.Time, log hclog.Logger, part string, run func(context.Context) error, failed func(ctx context.Context, reason string)) error {
	pause, last := firstRetry, ""
	for {
		began := now()
		err := run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = errEnded
		}
		if now().Sub(began) > maxRetry { // it had worked
			pause, last = firstRetry, ""
		}
		if reason := err.Error(); reason != last {
			last = reason
			log.Error("a part of the server cannot work; will try again", "part", part, "error", err)
		}
		failed(ctx, last)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		pause = min(2*pause, maxRetry)
	}
}
