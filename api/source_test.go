package api_test

import (
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func TestAReleaseSaysWhoseSourceItShows(t *testing.T) {
	b := newBench(t)
	deployed(t, b, bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:1")}))
	if _, err := b.Restart(t.Context(), "shop", v1.RestartRequest{}); err != nil {
		t.Fatal(err)
	}
	other := bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": service("web:2")})
	other.Rendered = "services: other"
	deployed(t, b, other)
	for n, want := range map[int]int{1: 0, 2: 1, 3: 0} {
		d, err := b.Release(t.Context(), "shop", n)
		if err != nil || d.SourceOf != want {
			t.Errorf("release %d: source of %d, want %d, %v", n, d.SourceOf, want, err)
		}
	}
}
