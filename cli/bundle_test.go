package cli

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/compose"
)

func TestEverythingTheFileSaysOfABuildTravels(t *testing.T) {
	arg := "1"
	got := buildOptions("shop", compose.Build{
		Service: "web", Target: "t", Args: map[string]*string{"A": &arg}, Labels: map[string]string{"l": "v"}, Platform: "linux/amd64",
		Tags: []string{"x:1"}, CacheFrom: []string{"x:0"}, Network: "host", ShmSize: 5, ExtraHosts: []string{"h:10.0.0.1"},
		NoCache: true, Pull: true,
	}, "Dockerfile")
	want := v1.BuildOptions{
		App: "shop", Service: "web", Dockerfile: "Dockerfile", Target: "t", Args: map[string]*string{"A": &arg},
		Labels: map[string]string{"l": "v"}, Platform: "linux/amd64", Tags: []string{"x:1"}, CacheFrom: []string{"x:0"},
		Network: "host", ShmSize: 5, ExtraHosts: []string{"h:10.0.0.1"}, NoCache: true, Pull: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPublishedPortsAreRoutesWhereTheGatewaysListen(t *testing.T) {
	dir := t.TempDir()
	file := "name: shop\nservices: {web: {image: a, ports: [\"8000:81\", \"80:82\"]}}\n"
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{dir: dir, errw: io.Discard}
	r, err := a.load(t.Context(), sourceFlags{}, nil, v1.ServerInfo{Web: 8000, WebSecure: 8443})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Services["web"]; len(s.Routes) != 1 || s.Routes[0].Port != 81 || len(s.Ports) != 1 || s.Ports[0].Published != 80 {
		t.Errorf("routes %+v, ports %+v", s.Routes, s.Ports)
	}
}
