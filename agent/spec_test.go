package agent

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/agent/taskinit"
	"github.com/fairlead/fairlead/cluster"
)

// The init runs what the engine would have run.
func TestTheInitRunsWhatTheEngineWould(t *testing.T) {
	img := docker.ImageInfo{Entrypoint: []string{"/image"}, Command: []string{"-i"}}
	for _, c := range []struct {
		what                string
		entrypoint, command []string
		want                []string
	}{
		{"nothing of its own", nil, nil, []string{"/image", "-i"}},
		{"a command", nil, []string{"-c"}, []string{"/image", "-c"}},
		{"an empty command is none", nil, []string{}, []string{"/image", "-i"}},
		{"an entrypoint: the image's command is not for it", []string{"/own"}, nil, []string{"/own"}},
		{"both", []string{"/own"}, []string{"-c"}, []string{"/own", "-c"}},
		{"the entrypoint taken away", []string{}, nil, []string{"-i"}},
		{"the entrypoint taken away, and a command", []string{}, []string{"/c"}, []string{"/c"}},
	} {
		d := docker.Create{Entrypoint: c.entrypoint, Command: c.command, Spec: &cluster.TaskSpec{}}
		throughInit(&d, img)
		if diff := cmp.Diff(c.want, d.Command); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
		if diff := cmp.Diff([]string{taskinit.Program, taskinit.Command}, d.Entrypoint); diff != "" {
			t.Error(diff)
		}
	}
}

// The health check gets the secrets too, whether the file or the image has it.
func TestThroughInitChecksHealth(t *testing.T) {
	own := []string{taskinit.Program, taskinit.Command}
	for _, c := range []struct {
		what   string
		image  []string
		health *cluster.Health
		want   []string
	}{
		{"none", nil, nil, nil},
		{"the file's", []string{"CMD", "/image"}, &cluster.Health{Test: []string{"CMD", "/own", "-x"}}, slices.Concat([]string{"CMD"}, own, []string{"/own", "-x"})},
		{"the image's", []string{"CMD", "/image"}, nil, slices.Concat([]string{"CMD"}, own, []string{"/image"})},
		{"the image's, with the file's times", []string{"CMD-SHELL", "a && b"}, &cluster.Health{Retries: 5}, slices.Concat([]string{"CMD"}, own, []string{"/bin/sh", "-c", "a && b"})},
		{"disabled by the file", []string{"CMD", "/image"}, &cluster.Health{Test: []string{"NONE"}}, nil},
		{"disabled by the image", []string{"NONE"}, nil, nil},
	} {
		d := docker.Create{Spec: &cluster.TaskSpec{Health: c.health}}
		throughInit(&d, docker.ImageInfo{HealthTest: c.image})
		if diff := cmp.Diff(c.want, d.HealthTest); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
	}
}
