package cluster_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestConstraints(t *testing.T) {
	n := &cluster.Node{
		NodeSpec: cluster.NodeSpec{ID: "n1", Labels: map[string]string{"zone": "A", "Case": "x"}},
		Info: cluster.NodeInfo{
			Hostname: "alpha", Address: "10.1.2.3", OS: "linux", Arch: "x86_64",
			Roles: []string{"server", "gateway"}, Labels: map[string]string{"disk": "ssd"},
		},
	}
	for text, want := range map[string]bool{
		"node.id==n1": true, "node.id!=n1": false, "node.id == N1": true,
		"node.hostname==alpha": true, "node.hostname != alpha": false, "NODE.HostName==alpha": true,
		"node.role==manager": true, "node.role!=manager": false, "node.role==worker": false, "node.role==gateway": true, "node.role==agent": false,
		"node.platform.os==linux": true, "node.platform.arch==amd64": true, "node.platform.arch==x86_64": true, "node.platform.arch!=arm64": true,
		"node.labels.zone==a": true, "node.labels.zone!=b": true, "node.labels.none==x": false, "node.labels.none!=x": true,
		"node.labels.Case==x": true, "node.labels.case==x": false, "node.labels.zone==a==b": false,
		"engine.labels.disk==ssd": true, "engine.labels.disk!=ssd": false, "node.ip==10.1.2.3": true, "node.ip==10.1.0.0/16": true, "node.ip!=10.2.0.0/16": true,
	} {
		c, err := cluster.ParseConstraint(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Holds(n); got != want {
			t.Errorf("%s is %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"node.labels.zone=a": "neither == nor !=", "": "neither", "node.labels.==a": "not an attribute", "zone==a": "not an attribute",
		"node.labels.zone==": "no value", "==a": "not an attribute", "node.labels.zone~=a": "neither",
	} {
		if _, err := cluster.ParseConstraint(text); err == nil || !strings.Contains(err.Error(), want) || cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%q: error %v, want one of kind invalid with %q", text, err, want)
		}
	}
}
