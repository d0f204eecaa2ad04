package server

import (
	"context"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/cluster"
)

// shelf is a node's images.
type shelf struct {
	api.ImageHost
	has string
	err error
}

func (s shelf) ImageID(_ context.Context, ref string) (string, error) {
	switch {
	case s.err != nil:
		return "", s.err
	case ref != s.has:
		return "", cluster.NotFoundf("no such image: %s", ref)
	}
	return "sha256:1", nil
}

// A node that cannot be asked may be the one that has an image: that none has it is only
// said where all were asked.
func TestFindImage(t *testing.T) {
	dead := shelf{err: cluster.Transientf("its engine does not answer")}
	for name, tc := range map[string]struct {
		hosts map[cluster.NodeID]shelf // n3 is not connected
		want  cluster.NodeID
		kind  cluster.Kind
		says  string
	}{
		"the first that has it":      {map[cluster.NodeID]shelf{"n1": {has: "a:2"}, "n2": {has: "a:1"}}, "n2", 0, ""},
		"beside a dead engine":       {map[cluster.NodeID]shelf{"n1": dead, "n2": {has: "a:1"}}, "n2", 0, ""},
		"none has it":                {map[cluster.NodeID]shelf{"n1": {}, "n2": {}, "n3": {}}, "", cluster.KindNotFound, "no other node has the image a:1"},
		"none but one that is dead":  {map[cluster.NodeID]shelf{"n1": {}, "n2": dead, "n3": {}}, "", cluster.KindTransient, "n2: its engine does not answer"},
		"none but one that is apart": {map[cluster.NodeID]shelf{"n1": {}, "n2": {}}, "", cluster.KindTransient, "n3: node n3 is not connected"},
	} {
		host := func(n cluster.NodeID) (api.ImageHost, error) {
			h, ok := tc.hosts[n]
			if !ok {
				return nil, cluster.Transientf("node %s is not connected", n)
			}
			return h, nil
		}
		node, h, err := findImage(t.Context(), []cluster.NodeID{"n1", "n2", "n3"}, host, "a:1", "a:1")
		if tc.says == "" {
			if err != nil || node != tc.want || h != tc.hosts[tc.want] {
				t.Errorf("%s: %s, %v", name, node, err)
			}
			continue
		}
		if cluster.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cluster.Transientf("given up"))
	if _, _, err := findImage(ctx, []cluster.NodeID{"n1"}, func(cluster.NodeID) (api.ImageHost, error) { return dead, nil }, "a:1", "a:1"); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("given up: %v", err)
	}
}
