package cluster_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// A release comes back as it was, of any size; one of thousands of services is a
// fraction of what it says.
func TestReleasesComeBack(t *testing.T) {
	for services, most := range map[int]int{0: 200, 3: 5_000, 5000: 300_000} {
		want := cluster.Release{
			App: "shop", Number: 7, Created: time.Date(2026, 5, 1, 0, 0, 0, 1, time.UTC), By: "ann", Note: "deploy",
			Package: &cluster.Package{Chart: "shop"}, Services: map[cluster.ServiceName]cluster.ServiceSpec{},
		}
		for i := range services {
			want.Services[cluster.ServiceName(fmt.Sprint("web", i))] = cluster.ServiceSpec{
				Replicas: i, Task: cluster.TaskSpec{Image: "registry.example.com/shop/web:1.5", Env: map[string]string{"PORT": "8080", "PEER": fmt.Sprint(i + 1)}},
			}
		}
		text, err := json.Marshal(want)
		if err != nil || len(text) > most {
			t.Fatalf("%d services are %d bytes, more than %d (%v)", services, len(text), most, err)
		}
		got := cluster.Release{Note: "of before", Tries: 3}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d services: another release comes back: %s", services, diff)
		}
	}
}
