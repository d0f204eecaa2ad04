package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestABindMountIsMadeUnlessItMustNotBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	m := cluster.Mount{Type: cluster.MountBind, Source: dir, NoCreate: true}
	err := (&task{}).ensureMount(t.Context(), nil, m)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "create_host_path") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it was made: %v", err)
	}
	m.NoCreate = false
	if err := (&task{}).ensureMount(t.Context(), nil, m); err != nil {
		t.Error(err)
	}
	m.NoCreate = true
	if err := (&task{}).ensureMount(t.Context(), nil, m); err != nil {
		t.Errorf("what is there is mounted: %v", err)
	}
}
