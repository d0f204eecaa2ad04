package agent

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Who is told of a run's end may take long: the task goes on meanwhile, and its
// next start is told after that.
func TestTheEndOfARunIsToldInTurnAndHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		var mu sync.Mutex
		var told []string
		say := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s)
		}
		taken := make(chan struct{})
		n.change = func(c *Config) {
			c.OnStart = func(context.Context, Started) { say("start") }
			c.OnEnd = func(cluster.TaskID) { <-taken; say("end") }
		}
		p := fakeTask(1)
		n.store.set(true, p)
		_, stop := n.start()
		settleDown(10 * time.Second)
		n.engine.end(string(p.Task), 1, true)
		settleDown(time.Minute)
		if s := n.store.status(p.Task); !s.Ready || s.Restarts != 1 {
			t.Errorf("while its end is not taken in, the task is %s", show(s))
		}
		mu.Lock()
		if !slices.Equal(told, []string{"start"}) {
			t.Errorf("told %v before the end was taken in", told)
		}
		mu.Unlock()
		close(taken)
		synctest.Wait()
		mu.Lock()
		if want := []string{"start", "end", "start"}; !slices.Equal(told, want) {
			t.Errorf("told %v, not %v", told, want)
		}
		mu.Unlock()
		stop()
		if want := []string{"start", "end", "start", "end"}; !slices.Equal(told, want) {
			t.Errorf("told %v when the agent had ended, not %v", told, want)
		}
	})
}
