package work_test

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// TestAFullDisk: the server's disk has no room for what is fetched. That is said, is worth
// another try, and leaves nothing behind: with room it works.
func TestAFullDisk(t *testing.T) {
	f := newForge(t)
	if err := os.MkdirAll(f.w.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", f.w.Dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no disk of one megabyte: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(f.w.Dir, 0) })
	large := make([]byte, 2<<20)
	_, _ = rand.Read(large)
	f.write("compose.yaml", compose("web:1"))
	f.write("large", hex.EncodeToString(large))
	f.push("too large")
	url, ca := f.https("")
	fromGit := f.local()
	fromGit.Source.URL, fromGit.Source.CA = url, ca
	s := newShelf(t)
	s.artifact("config", fluxConfig, nil, []string{"latest"}, part{fluxContent, archive(t, map[string]string{"compose.yaml": compose("web:1"), "large": hex.EncodeToString(large)}), nil})
	for name, d := range map[string]cluster.Delivery{"git": fromGit, "git here": f.local(), "artifact": s.delivery("config")} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.refused(work.Task{Delivery: d}, cluster.KindTransient, "no space left")
			if left, _ := filepath.Glob(filepath.Join(f.w.Dir, "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	f.t = t
	f.git(f.tree, "rm", "-q", "large")
	f.push("small")
	f.must(work.Task{Delivery: fromGit})
}
