package cli_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A command that waits for a change waits on while no server answers, says so once, and ends as
// ever; one whose time is up says that none answered.
func TestAWaitOutlivesItsServer(t *testing.T) {
	h := twoNodes(t)
	h.deploy("name: shop\nservices: {web: {image: a, deploy: {replicas: 2}}}\n")
	h.ready("shop", 2)
	var dead atomic.Int64 // how many questions of a command that waits are not answered
	before := func(r *http.Request) {
		waits := strings.HasSuffix(r.URL.Path, "/watch") || strings.HasSuffix(r.URL.Path, "/tasks") || strings.HasSuffix(r.URL.Path, "/deliveries/shop")
		if r.Method == http.MethodGet && waits && dead.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
	}
	h.before.Store(&before)
	const says = "; it waits on until a server answers\n"
	waits := func(args ...string) {
		t.Helper()
		dead.Store(4)
		if s := h.must("", args...); strings.Count(s.err, says) != 1 || dead.Load() > 0 {
			t.Errorf("%v says, with %d that were not needed:\n%s", args, dead.Load(), s.all)
		}
	}
	h.must("", "delivery", "create", "shop", "https://git.example.com/shop.git", "--detach")
	spec, err := h.store.Get(t.Context(), store.DeliveryKey("shop"))
	if err != nil {
		t.Fatal(err)
	}
	for asked := range int64(3) { // whichever is asked for now
		h.put(store.DeliveryStateKey("shop"), cluster.DeliveryState{Name: "shop", Phase: cluster.PhaseReady, Asked: asked + 1, Spec: cluster.StoreRev(spec.Rev)})
	}
	waits("delivery", "reconcile", "shop")
	h.must("", "delivery", "reconcile", "shop", "--again", "-d")
	var ask cluster.DeliveryAsk
	if e, err := h.store.Get(t.Context(), store.DeliveryAskKey("shop")); err != nil || json.Unmarshal(e.Value, &ask) != nil || !ask.Again {
		t.Errorf("asked to try again: %+v, %v", ask, err)
	}

	dead.Store(1 << 30)
	for _, args := range [][]string{{"delivery", "reconcile", "shop", "--timeout", "1s"}, {"restart", "shop", "--timeout", "1s"}} {
		if s := h.cli("", args...); s.code != 5 || !strings.Contains(s.err, "no server says how shop is after 1s; the change goes on: ") {
			t.Errorf("%v ends with %d:\n%s", args, s.code, s.all)
		}
	}
	dead.Store(0)
	h.must("", "delivery", "rm", "shop")
	waits("rm", "shop", "-y")
}
