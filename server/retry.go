package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// errEnded is the reason of a part that ended without one.
var errEnded = errors.New("it ended")

// insist asks the embedded etcd again while it is merely slow, as on a disk that is
// busy: a first start has nothing to go on from, and ending would help nobody. A
// server that has served goes on from what it has, and does not wait here; nor does
// one with an external etcd, whose address may be wrong. ended receives the end of
// the embedded one.
func (m *machine) insist(ctx context.Context, ended <-chan error, ask func(context.Context) error) error {
	var away outage.Outage
	for {
		err := ask(ctx)
		if cluster.KindOf(err) != cluster.KindTransient || m.etcd == "" || m.served() {
			away.Over(m.Log, "the embedded etcd answers")
			return err
		}
		away.Failed(m.Log, "the embedded etcd is slow to answer; asking again", "error", err)
		t := time.NewTimer(firstRetry)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case end := <-ended:
			t.Stop()
			return fmt.Errorf("the embedded etcd ended: %w", errors.Join(end, err))
		case <-t.C:
		}
	}
}

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
