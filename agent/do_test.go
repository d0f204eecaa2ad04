package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// A directory that is mounted is made on the only node, and where the file says so: on
// one of several it would be an empty one in place of another node's.
func TestWhereABindMountIsMade(t *testing.T) {
	only := func() (bool, error) { return true, nil }
	several := func() (bool, error) { return false, nil }
	unknown := func() (bool, error) { return false, cluster.Transientf("nothing is known yet") }
	for name, c := range map[string]struct {
		alone func() (bool, error)
		mount cluster.Mount
		says  string // "": it is made
		kind  cluster.Kind
	}{
		"the only node":                        {alone: only},
		"the only node, never":                 {alone: only, mount: cluster.Mount{NoCreate: true}, says: "create_host_path: false", kind: cluster.KindInvalid},
		"one of several":                       {alone: several, says: "not on node n2", kind: cluster.KindInvalid},
		"one of several, always":               {alone: several, mount: cluster.Mount{Create: true}},
		"one of several, never":                {alone: several, mount: cluster.Mount{NoCreate: true}, says: "create_host_path: false", kind: cluster.KindInvalid},
		"before other nodes are known":         {alone: unknown, says: "nothing is known yet", kind: cluster.KindTransient},
		"before other nodes are known, always": {alone: unknown, mount: cluster.Mount{Create: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			m := c.mount
			m.Type, m.Source = cluster.MountBind, dir
			task := &task{a: &Agent{cfg: Config{Node: "n2", Alone: c.alone}}}
			err := task.ensureMount(t.Context(), nil, m)
			_, missing := os.Stat(dir)
			switch {
			case c.says == "" && (err != nil || missing != nil):
				t.Errorf("it was not made: %v, %v", err, missing)
			case c.says == "":
			case cluster.KindOf(err) != c.kind || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), c.says):
				t.Errorf("it says %v", err)
			case !os.IsNotExist(missing):
				t.Errorf("it was made: %v", missing)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := task.ensureMount(t.Context(), nil, m); err != nil {
				t.Errorf("what is there is mounted: %v", err)
			}
		})
	}
}
