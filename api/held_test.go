package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A machine that was imaged anew under its name has none of the volumes that tasks wait for:
// it becomes neither node nor server of that name, and costs no use of a token, until they
// are given up. The machine that has them does, whatever else it lost.
func TestAMachineWithoutItsVolumesIsNotLetIn(t *testing.T) {
	mounts := func(names ...string) cluster.TaskSpec {
		spec := cluster.TaskSpec{Mounts: []cluster.Mount{{Type: cluster.MountTmpfs, Target: "/tmp"}}}
		for _, n := range names {
			spec.Mounts = append(spec.Mounts, cluster.Mount{Type: cluster.MountVolume, Source: n, Target: "/data"})
		}
		return spec
	}
	id := cluster.ServiceID{App: "shop", Name: "db"}
	for name, c := range map[string]struct{ path, as string }{
		"node":   {"/v1/join", `"token":"s","request":"k9"`},
		"server": {"/v1/join-server", `"token":"s","recipient":"age9"`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if _, err := b.Invite(t.Context(), v1.Invite{Server: name == "server", Uses: 3}); err != nil {
				t.Fatal(err)
			}
			ask := func(node string, volumes ...string) string {
				body := `{"node":"` + node + `",` + c.as
				if volumes != nil {
					list, err := json.Marshal(volumes)
					if err != nil {
						t.Fatal(err)
					}
					body += `,"volumes":` + string(list)
				}
				return b.asNode(nil, "POST", c.path, body+"}")
			}
			in := func(got string) bool { return strings.Contains(got, "cert of k9") || strings.Contains(got, `"sealed"`) }
			b.put(store.NodeSpecKey("n2"), cluster.NodeSpec{ID: "n2", Key: "k2"})
			b.put(store.PlacementKey("n2", "t1"), cluster.NodePlacement{Task: "t1", Node: "n2", ServiceID: id, Slot: 1, Spec: mounts("shop_data")})
			b.put(store.PlacementKey("n3", "t2"), cluster.NodePlacement{Task: "t2", Node: "n3", ServiceID: id, Slot: 2, Spec: mounts("shop_else")})
			b.put(store.TaskKey("shop", "t0"), cluster.Task{ID: "t0", ServiceID: id, Slot: 1, Spec: mounts("shop_data", "shop_log"), Outcome: &cluster.Outcome{Node: "n2"}})
			b.put(store.VolumesKey(id), cluster.VolumePlaces{ServiceID: id, Slots: map[int]cluster.VolumePlace{
				3: {Node: "n2", Volumes: []string{"shop_kept"}}, 4: {Node: "n3", Volumes: []string{"shop_there"}},
			}})
			if got := ask("n2"); in(got) || !strings.Contains(got, "`fairlead node rm n2`") || !strings.Contains(got, "it has volumes (shop_data, shop_kept, shop_log)") {
				t.Errorf("while the node is there: %s", got)
			}
			if err := b.RemoveNode(t.Context(), "n2", v1.NodeRemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct {
				volumes []string
				says    string
			}{
				{nil, "(shop_data, shop_kept, shop_log), and this machine does not say which it has"},
				{[]string{}, "(shop_data, shop_kept, shop_log), which this machine does not have"},
				{[]string{"shop_log", "shop_else", "shop_data"}, "(shop_kept), which this machine does not have"},
			} {
				got := ask("n2", x.volumes...)
				if in(got) || !strings.Contains(got, x.says) || !strings.Contains(got, "`fairlead node rm n2 --lose-volumes`") || !strings.Contains(got, "--node") {
					t.Errorf("with %q: %s", x.volumes, got)
				}
			}
			if got := ask("n4"); !in(got) {
				t.Errorf("under another name: %s", got)
			}
			if got := ask("n2", "shop_kept", "shop_log", "other", "shop_data"); !in(got) {
				t.Errorf("with all of them: %s", got)
			}
			list, err := b.Tokens(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, tok := range list {
				if tok.Join && tok.Uses != 1 {
					t.Errorf("of three uses %d are left after two joins", tok.Uses)
				}
			}
		})
	}
}
