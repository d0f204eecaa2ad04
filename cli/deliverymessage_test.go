package cli

import (
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestDeliveryMessage(t *testing.T) {
	t.Parallel()
	images := []cluster.ImageState{{}, {ImageChoice: cluster.ImageChoice{Policy: "web", Tag: "1.1.0"}, Unwritten: "no push"}}
	for want, st := range map[string]cluster.DeliveryState{
		"": {}, "late": {Message: "late", Images: images},
		"web 1.1.0 is not committed: no push": {Images: images},
	} {
		if got := deliveryMessage(st); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
