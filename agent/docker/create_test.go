package docker

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func TestHealthOfAContainer(t *testing.T) {
	none := &container.HealthConfig{Test: []string{"NONE"}}
	for name, c := range map[string]struct {
		health *cluster.Health
		test   []string
		want   *container.HealthConfig
	}{
		"the image's own":      {nil, nil, nil},
		"the agent asks HTTP":  {&cluster.Health{HTTPPath: "/", HTTPPort: 80}, nil, none},
		"the agent dials":      {&cluster.Health{TCPPort: 80}, nil, none},
		"off":                  {&cluster.Health{Test: []string{"NONE"}}, nil, none},
		"a test":               {&cluster.Health{Test: []string{"CMD", "a"}, Retries: 2}, nil, &container.HealthConfig{Test: []string{"CMD", "a"}, Retries: 2}},
		"a test in its place":  {&cluster.Health{Test: []string{"CMD", "a"}}, []string{"CMD", "b"}, &container.HealthConfig{Test: []string{"CMD", "b"}}},
		"the image's, retuned": {&cluster.Health{Interval: cluster.Duration(5 * time.Second)}, nil, &container.HealthConfig{Interval: 5 * time.Second}},
	} {
		if diff := cmp.Diff(c.want, health(c.health, c.test)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}
