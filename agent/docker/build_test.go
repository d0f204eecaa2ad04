package docker

import (
	"slices"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/google/go-cmp/cmp"
)

func TestBothBuildersGetEveryOption(t *testing.T) {
	arg := "1"
	b := Build{
		Tags: []string{"x:1"}, Dockerfile: "D", Target: "t", Args: map[string]string{"A": arg}, Labels: map[string]string{"l": "v"},
		Platform: "linux/amd64", NoCache: true, Pull: true, Network: "host", ExtraHosts: []string{"h:10.0.0.1"}, ShmSize: 64 << 20,
		CacheFrom: []string{"x:0", "y:0"},
	}
	want := build.ImageBuildOptions{
		Tags: []string{"x:1"}, Dockerfile: "D", Target: "t", BuildArgs: map[string]*string{"A": &arg}, Labels: map[string]string{"l": "v"},
		Platform: "linux/amd64", NoCache: true, PullParent: true, NetworkMode: "host", ExtraHosts: []string{"h:10.0.0.1"}, ShmSize: 64 << 20,
		CacheFrom: []string{"x:0", "y:0"}, Remove: true, ForceRemove: true, Version: build.BuilderV1,
	}
	if diff := cmp.Diff(want, b.options()); diff != "" {
		t.Errorf("classic builder: -want +got:\n%s", diff)
	}
	buildx := []string{
		"buildx", "build", "--builder", "default", "--load", "--provenance", "false", "--progress", "plain", "-t", "x:1", "-f", "D", "--target", "t", "--platform", "linux/amd64",
		"--network", "host", "--add-host", "h:10.0.0.1", "--shm-size", "67108864", "--cache-from", "x:0", "--cache-from", "y:0",
		"--build-arg", "A=1", "--label", "l=v", "--no-cache", "--pull", "-",
	}
	if got := b.buildxArgs(); !slices.Equal(got, buildx) {
		t.Errorf("buildx: -want +got:\n%s", cmp.Diff(buildx, got))
	}
}

// Of what buildx prints the reason is told, however it is cut, whatever comes after.
func TestReasonOfAFailedBuild(t *testing.T) {
	for _, c := range []struct {
		writes []string
		want   string
	}{
		{nil, ""},
		{[]string{"#1 building\n", "#2 done\n\n"}, "#2 done"},
		{[]string{"#1 building\nERR", "OR: failed: no such ", "file\n", "\nView build details: here\n"}, "ERROR: failed: no such file"},
		{[]string{"ERROR: first\n", "ERROR: second"}, "ERROR: second"},
	} {
		var why string
		said := reason(&why)
		for _, w := range c.writes {
			if n, err := said.Write([]byte(w)); n != len(w) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := said.flush(); err != nil || why != c.want {
			t.Errorf("%q: %q, %v", c.writes, why, err)
		}
	}
}
