package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// shelf is a node's images.
type shelf struct {
	api.ImageHost
	has     string
	content string // "" of an older node
	err     error
}

func (s shelf) Identity(_ context.Context, ref string) (cluster.ImageIdentity, error) {
	switch {
	case s.err != nil:
		return cluster.ImageIdentity{}, s.err
	case ref != s.has:
		return cluster.ImageIdentity{}, cluster.NotFoundf("no such image: %s", ref)
	}
	return cluster.ImageIdentity{ID: "sha256:1", Content: s.content}, nil
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
		"the first that has it":       {map[cluster.NodeID]shelf{"n1": {has: "a:2"}, "n2": {has: "a:1"}}, "n2", 0, ""},
		"not one of other content":    {map[cluster.NodeID]shelf{"n1": {has: "a:1", content: "evil"}, "n2": {has: "a:1", content: "good"}}, "n2", 0, ""},
		"one that says no content":    {map[cluster.NodeID]shelf{"n1": {has: "a:1"}, "n2": {has: "a:1", content: "good"}}, "n1", 0, ""},
		"none has it of that content": {map[cluster.NodeID]shelf{"n1": {has: "a:1", content: "evil"}, "n2": {}, "n3": {}}, "", cluster.KindNotFound, "no other node has the image a:1"},
		"beside a dead engine":        {map[cluster.NodeID]shelf{"n1": dead, "n2": {has: "a:1"}}, "n2", 0, ""},
		"none has it":                 {map[cluster.NodeID]shelf{"n1": {}, "n2": {}, "n3": {}}, "", cluster.KindNotFound, "no other node has the image a:1"},
		"none but one that is dead":   {map[cluster.NodeID]shelf{"n1": {}, "n2": dead, "n3": {}}, "", cluster.KindTransient, "n2: its engine does not answer"},
		"none but one that is apart":  {map[cluster.NodeID]shelf{"n1": {}, "n2": {}}, "", cluster.KindTransient, "n3: node n3 is not connected"},
	} {
		host := func(n cluster.NodeID) (api.ImageHost, error) {
			h, ok := tc.hosts[n]
			if !ok {
				return nil, cluster.Transientf("node %s is not connected", n)
			}
			return h, nil
		}
		got, err := findImage(t.Context(), []cluster.NodeID{"n1", "n2", "n3"}, host, "a:1", cluster.ImageWant{Ref: "a:1", Content: "good"})
		if tc.says == "" {
			if err != nil || got.node != tc.want || got.host != tc.hosts[tc.want] {
				t.Errorf("%s: %s, %v", name, got.node, err)
			}
			continue
		}
		if cluster.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cluster.Transientf("given up"))
	if _, err := findImage(ctx, []cluster.NodeID{"n1"}, func(cluster.NodeID) (api.ImageHost, error) { return dead, nil }, "a:1", cluster.ImageWant{Ref: "a:1"}); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("given up: %v", err)
	}
}

// That a registry has it is believed of no image whose content was noted here: it was built or
// pushed. Nor of one that a release is pinned to, which may not be what the registry gives now.
func TestWhatARegistryHas(t *testing.T) {
	pulled := foundImage{image: cluster.ImageIdentity{ID: "sha256:1", Pulled: true}}
	for name, tc := range map[string]struct {
		found   foundImage
		ask     cluster.ImageAsk
		content string
		want    bool
	}{
		"pulled":           {pulled, cluster.ImageAsk{Ref: "a:1"}, "", true},
		"loaded":           {foundImage{image: cluster.ImageIdentity{ID: "sha256:1"}}, cluster.ImageAsk{Ref: "a:1"}, "", false},
		"built or pushed":  {pulled, cluster.ImageAsk{Ref: "a:1"}, "c", false},
		"asked for by ID":  {pulled, cluster.ImageAsk{Ref: "a:1", ID: "sha256:1"}, "", false},
		"of an older node": {foundImage{}, cluster.ImageAsk{Ref: "a:1"}, "", false},
	} {
		if got := tc.found.inRegistry(tc.ask, tc.content); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// An image that no ID or content tells is taken of nodes that have nothing to gain by sending
// another: servers' own, and those that have the same app's already.
func TestWhoseImagesAreBelieved(t *testing.T) {
	mem := store.NewMemory()
	var ops []store.Op
	put := func(key string, v any) {
		op, err := store.PutJSON(key, v)
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, op)
	}
	for _, n := range []cluster.NodeID{"n1", "n2", "n3", "n4", "n5", "n6"} {
		put(store.NodeInfoKey(n), cluster.NodeInfo{ID: n, Roles: []string{"agent"}})
		if n != "n6" {
			put(store.AliveKey(n), struct{}{})
		}
		if n == "n1" {
			put(store.ServerInfoKey(n), struct{}{})
		} else {
			put(store.NodeSpecKey(n), cluster.NodeSpec{ID: n, Key: "key of " + string(n)})
		}
	}
	runs := func(n cluster.NodeID, app cluster.AppName, image string) {
		id := cluster.TaskID(string(app) + "_web.1." + string(n))
		put(store.PlacementKey(n, id), cluster.NodePlacement{Task: id, Node: n, ServiceID: cluster.ServiceID{App: app, Name: "web"}, Spec: cluster.TaskSpec{Image: image}})
	}
	runs("n2", "bank", "bank:1") // asks
	runs("n3", "bank", "bank:1")
	runs("n4", "bank", "bank:2")
	runs("n5", "evil", "bank:1") // whoever deploys there has it, and is no friend of bank's
	runs("n6", "bank", "bank:1") // is away
	put(store.ImageKey("pushed:1"), cluster.ImageRecord{Ref: "pushed:1", Content: "c"})
	if _, err := mem.Commit(t.Context(), store.Txn{Then: ops}); err != nil {
		t.Fatal(err)
	}
	m := store.NewMirror(mem, store.Root, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		<-done //nolint:errcheck // the context's end
	}()
	<-m.Ready()
	for name, tc := range map[string]struct {
		ask     cluster.ImageAsk
		want    string
		content string
	}{
		"of a registry":         {cluster.ImageAsk{Ref: "bank:1", Apps: []cluster.AppName{"bank"}}, "n1 n3", ""},
		"of no app known":       {cluster.ImageAsk{Ref: "bank:1"}, "n1", ""},
		"but for one that lied": {cluster.ImageAsk{Ref: "bank:1", Apps: []cluster.AppName{"bank"}, Not: []cluster.NodeID{"n3"}}, "n1", ""},
		"known by its ID":       {cluster.ImageAsk{Ref: "bank:1", ID: "sha256:1"}, "n1 n3 n4 n5", ""},
		"pushed":                {cluster.ImageAsk{Ref: "pushed:1", Apps: []cluster.AppName{"bank"}}, "n1 n3 n4 n5", "c"},
	} {
		m.Read(func(v store.View) {
			nodes, content := imageSources(v, "n2", tc.ask)
			if got := strings.Trim(fmt.Sprint(nodes), "[]"); got != tc.want || content != tc.content {
				t.Errorf("%s: %s of %q, not %s of %q", name, got, content, tc.want, tc.content)
			}
		})
	}
}
