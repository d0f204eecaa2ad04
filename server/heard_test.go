package server

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A server knows for how long it has not heard from a majority, and that it hears from it again.
func TestAServerKnowsThatItIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		mirror := store.NewMirror(st, store.Root, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var log bytes.Buffer
		h := newHeard(st, mirror, time.Now, hclog.New(&hclog.LoggerOptions{Output: &log}))
		go func() { _ = mirror.Run(ctx) }()
		go func() { _ = h.run(ctx) }()
		time.Sleep(time.Minute)
		if d := h.stale(); d != 0 {
			t.Fatalf("stale for %s while the store answers", d)
		}
		st.Down(true)
		time.Sleep(currentFor - hearEvery)
		if d := h.stale(); d != 0 {
			t.Errorf("stale for %s within what is allowed", d)
		}
		time.Sleep(time.Minute)
		if d := h.stale(); d < time.Minute || d > time.Minute+currentFor {
			t.Errorf("stale for %s after a minute", d)
		}
		st.Down(false)
		time.Sleep(2 * hearEvery)
		if d := h.stale(); d != 0 {
			t.Errorf("stale for %s while the store answers again", d)
		}
		cancel()
		synctest.Wait()
		if said := log.String(); strings.Count(said, "[WARN]") < 2 || strings.Count(said, "[WARN]") > 6 || strings.Count(said, "hears from a majority again") != 1 {
			t.Errorf("it logs\n%s", said)
		}
	})
}

// That the store answers is not enough where the mirror is not told of changes.
func TestWhatIsHeardMustReachTheMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var follows atomic.Bool
		var answer atomic.Pointer[error]
		ok, missing, away := error(nil), cluster.NotFoundf("nobody leads"), cluster.Transientf("no quorum")
		h := &heard{now: time.Now, follows: follows.Load, ask: func(context.Context) error { return *answer.Load() }}
		for _, c := range []struct {
			err     error
			follows bool
			want    bool
		}{{ok, true, true}, {missing, true, true}, {ok, false, false}, {away, true, false}} {
			answer.Store(&c.err)
			follows.Store(c.follows)
			if got := h.confirmed(t.Context()); got != c.want {
				t.Errorf("%v, follows %v: confirmed %v", c.err, c.follows, got)
			}
		}
		// One that hangs does not hold up the next.
		h.ask = func(ctx context.Context) error { <-ctx.Done(); return cluster.Transientf("%w", context.Cause(ctx)) }
		follows.Store(true)
		if h.confirmed(t.Context()) {
			t.Error("confirmed by a store that hangs")
		}
	})
}
