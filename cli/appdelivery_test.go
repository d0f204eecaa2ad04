package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// Where a delivery stands is seen where its app is, and what is wrong with it without asking.
func TestAnAppShowsItsDelivery(t *testing.T) {
	h := newHub(t)
	h.deploy("name: shop\nservices: {web: {image: a}}\n")
	h.deploy("name: plain\nservices: {web: {image: a}}\n")
	h.must("", "delivery", "create", "follow", "https://git.example.com/shop.git", "-p", "shop", "-d")
	good := &cluster.Applied{Key: "1", Origin: cluster.Origin{Ref: "main", Revision: strings.Repeat("a", 40)}}
	bad := &cluster.Applied{Key: "2", Origin: cluster.Origin{Ref: "main", Revision: strings.Repeat("b", 40)}}
	row := func(app string, args ...string) string {
		t.Helper()
		for line := range strings.Lines(h.must("", append([]string{"ls"}, args...)...).out) {
			if strings.HasPrefix(line, app+" ") {
				return strings.Join(strings.Fields(line), " ")
			}
		}
		t.Fatalf("no row of %s", app)
		return ""
	}
	for _, tc := range []struct {
		state   cluster.DeliveryState
		suspend bool
		head    string // in status of the app
		wrong   string // in ls
		wide    string // in ls -o wide
		alarm   string // in status of the cluster
	}{
		{head: "\n  delivery follow: new\n", wide: "follow: new"},
		{
			state: cluster.DeliveryState{Phase: cluster.PhaseReady, Applied: good, Good: good},
			head:  "\n  delivery follow: ready at aaaaaaaa (main)\n", wide: "follow: ready at aaaaaaaa (main)",
		},
		{
			state: cluster.DeliveryState{Phase: cluster.PhaseHeld, Applied: bad, Good: good, Failed: "2", Message: "bbbbbbbb failed\nbadly"},
			head:  "\n  ! delivery follow: held at aaaaaaaa (main): bbbbbbbb failed badly\n", wrong: "deploying, delivery held",
			wide:  "follow: held at aaaaaaaa (main)",
			alarm: "delivery follow: held at aaaaaaaa (main): bbbbbbbb failed badly; `fairlead delivery describe follow` tells more\n",
		},
		{
			state: cluster.DeliveryState{Phase: cluster.PhaseDrifted, Applied: good, Good: good, Message: "differs"},
			head:  "\n  ! delivery follow: drifted at aaaaaaaa (main): differs\n", wrong: "deploying, delivery drifted",
			wide: "follow: drifted at aaaaaaaa (main)", alarm: "delivery follow: drifted at",
		},
		{
			state: cluster.DeliveryState{Phase: cluster.PhaseFailed, Message: "no route"},
			head:  "\n  ! delivery follow: failed: no route\n", wrong: "deploying, delivery failed", wide: "follow: failed", alarm: "delivery follow: failed: no route; ",
		},
		{
			state: cluster.DeliveryState{Phase: cluster.PhaseFailed, Message: "no route"}, suspend: true,
			head: "\n  delivery follow: suspended: no route\n", wide: "follow: suspended",
		},
	} {
		tc.state.Name = "follow"
		h.put(store.DeliveryStateKey("follow"), tc.state)
		if tc.suspend {
			h.must("", "delivery", "suspend", "follow")
		}
		if got := h.must("", "status", "shop").out; !strings.Contains(got, tc.head) {
			t.Errorf("%s: status lacks %q:\n%s", tc.state.Phase, tc.head, got)
		}
		got := row("shop")
		if marked := strings.Contains(got, "delivery"); marked != (tc.wrong != "") || !strings.Contains(got, tc.wrong) {
			t.Errorf("%s: ls says %q", tc.state.Phase, got)
		}
		if got := row("shop", "-o", "wide"); !strings.Contains(got, tc.wide) {
			t.Errorf("%s: ls -o wide says %q", tc.state.Phase, got)
		}
		if got := row("plain", "-o", "wide"); strings.Contains(got, "follow") {
			t.Errorf("an app without one: %q", got)
		}
		got = h.must("", "status", "--cluster").out
		if alarmed := strings.Contains(got, "delivery"); alarmed != (tc.alarm != "") || !strings.Contains(got, tc.alarm) {
			t.Errorf("%s: status of the cluster:\n%s", tc.state.Phase, got)
		}
		var whole v1.AppDetail
		if err := json.Unmarshal([]byte(h.must("", "inspect", "shop").out), &whole); err != nil || whole.Delivery == nil || whole.Delivery.Suspended != tc.suspend {
			t.Errorf("%s: inspect has %+v, %v", tc.state.Phase, whole.Delivery, err)
		}
	}
}
