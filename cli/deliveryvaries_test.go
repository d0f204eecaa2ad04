package cli

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// A package that makes something else each time is described as such.
func TestDescribedPackageThatVaries(t *testing.T) {
	t.Parallel()
	a := &app{now: func() time.Time { return time.Unix(100, 0) }}
	for _, varies := range []bool{true, false} {
		d := v1.DeliveryStatus{State: cluster.DeliveryState{Varies: varies}}
		said := false
		for _, row := range a.described(d).rows {
			said = said || strings.Contains(strings.Join(row, " "), "draw at random")
		}
		if said != varies {
			t.Errorf("it varies: %v, and it is said: %v", varies, said)
		}
	}
}
