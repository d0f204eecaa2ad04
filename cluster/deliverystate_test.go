package cluster_test

import (
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestWhatIsSaidOfADelivery(t *testing.T) {
	t.Parallel()
	images := []cluster.ImageState{{}, {ImageChoice: cluster.ImageChoice{Policy: "web", Tag: "1.1.0"}, Unwritten: "no push"}}
	for want, st := range map[string]cluster.DeliveryState{
		"": {}, "late": {Message: "late", Images: images},
		"web 1.1.0 is not committed: no push": {Images: images},
	} {
		if got := st.Says(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A revision that was gone back from is not what the app is made of.
func TestWhereAnAppIs(t *testing.T) {
	t.Parallel()
	good, bad := &cluster.Applied{Key: "good"}, &cluster.Applied{Key: "bad"}
	for what, tc := range map[string]struct {
		st   cluster.DeliveryState
		want *cluster.Applied
	}{
		"nothing yet":      {cluster.DeliveryState{}, nil},
		"deployed":         {cluster.DeliveryState{Applied: bad}, bad},
		"another failed":   {cluster.DeliveryState{Applied: good, Good: good, Failed: "bad"}, good},
		"tried again":      {cluster.DeliveryState{Applied: bad, Good: good}, bad},
		"goes back":        {cluster.DeliveryState{Applied: bad, Good: good, Failed: "bad", Going: true}, bad},
		"there is no way":  {cluster.DeliveryState{Applied: bad, Good: good, Failed: "bad", Stuck: "the route is taken"}, bad},
		"it has gone back": {cluster.DeliveryState{Applied: bad, Good: good, Failed: "bad"}, good},
	} {
		if got := tc.st.At(); got != tc.want {
			t.Errorf("%s: %+v", what, got)
		}
	}
}
