package api

import (
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func TestStanding(t *testing.T) {
	t.Parallel()
	a := cluster.Address{App: "shop", Service: "web", Slot: 1}.String()
	for want, ts := range map[string]v1.TaskStatus{
		"shop/web.1 waits for secret shop/db":      {Address: a, State: "waiting", Reason: "waits for secret shop/db"},
		"shop/web.1 is waiting: not delivered yet": {Address: a, State: "waiting", Reason: "not delivered yet"},
		"shop/web.1 is starting: exited":           {Address: a, State: "starting", Reason: "exited"},
	} {
		if got := standing(ts); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
