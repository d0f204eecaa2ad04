package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

// A node says that its engine does not answer, once that is longer than a restart of
// Docker takes, and takes it back.
func TestANodeSaysThatItsEngineIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		says := func(what string, want bool) {
			t.Helper()
			if got := n.store.described().EngineAway; got != want {
				t.Errorf("%s: away %v, want %v", what, got, want)
			}
		}
		says("at first", false)
		n.engine.goAway()
		settleDown(engineAway / 2)
		n.engine.comeBack(time.Now())
		settleDown(2 * engineAway)
		says("after a short absence", false)
		n.engine.goAway()
		settleDown(2 * engineAway)
		says("after a long one", true)
		n.engine.comeBack(time.Now())
		settleDown(2 * time.Second)
		says("when it is back", false)
		// Stuck: what it says of events is still connected, and nothing is answered.
		n.engine.stick(true)
		settleDown(time.Minute + 2*engineAway)
		says("when it is stuck", true)
		n.engine.stick(false)
		settleDown(2 * time.Second)
		says("when it is not any more", false)
		stop()
	})
}
