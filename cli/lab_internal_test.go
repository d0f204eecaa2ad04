package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/lab"
)

func TestHowALabIsReached(t *testing.T) {
	node := func(name, socket string) lab.NodeStatus {
		return lab.NodeStatus{Machine: lab.Machine{Name: name}, Socket: socket, DockerHost: "unix:///" + name}
	}
	for _, c := range []struct {
		nodes []lab.NodeStatus
		want  string // after the first socket's
	}{
		{[]lab.NodeStatus{node("n1", "/a"), node("n2", "")}, "  docker -H"},
		{[]lab.NodeStatus{node("n1", "/a"), node("n2", "/b"), node("n3", "/c"), node("n4", "")}, "  /b # FAIRLEAD_SOCKET of n2, when n1 is away\n  /c # FAIRLEAD_SOCKET of n3, when n1 is away\n  docker -H"},
	} {
		var out bytes.Buffer
		if err := (&app{out: &out}).labReach(lab.Status{Name: "zoo", Socket: "/a", Nodes: c.nodes}); err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(out.String(), "export FAIRLEAD_SOCKET=/a    # fairlead talks to it from here\n")
		for strings.Contains(got, "  #") {
			got = strings.ReplaceAll(got, "  #", " #")
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%d servers:\n%s", len(c.nodes), out.String())
		}
	}
}
