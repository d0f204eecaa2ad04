package work

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// Commits that Git packs as what differs from another one are read as well, and files passed over.
func TestLineageOfAPack(t *testing.T) {
	dir := t.TempDir()
	git := func(in []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return out
	}
	git(nil, "init", "-q", "--bare", "-b", "main")
	var in strings.Builder
	message := strings.Repeat("words that all of them have ", 100)
	for i := range 40 {
		says := fmt.Sprint(message, i)
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Ann <ann@example.com> %d +0000\ndata %d\n%s\n", 1_700_000_000+i, len(says), says)
		file := fmt.Sprint(strings.Repeat("lines\n", 100), i)
		fmt.Fprintf(&in, "M 100644 inline file\ndata %d\n%s\n", len(file), file)
	}
	git([]byte(in.String()), "fast-import", "--quiet")
	all := strings.Fields(string(git(nil, "rev-list", "main")))
	for _, how := range []string{"--delta-base-offset", "--no-delta-base-offset"} {
		pack := git([]byte("main\n^"+all[30]+"\n"), "pack-objects", "--quiet", "--revs", "--stdout", "--no-reuse-delta", how)
		git(pack, "index-pack", "--stdin", filepath.Join(dir, how+".pack"))
		deltas := 0
		for line := range strings.Lines(string(git(nil, "verify-pack", "-v", filepath.Join(dir, how+".idx")))) {
			if f := strings.Fields(line); len(f) == 7 && f[1] == "commit" {
				deltas++
			}
		}
		if deltas == 0 {
			t.Fatal("no commit is packed by what differs")
		}
		for seen, lost := range map[string]bool{all[30]: false, all[12]: false, strings.Repeat("1", 40): true} {
			l := lineage{seen: plumbing.NewHash(seen), known: true}
			if err := l.read(bytes.NewReader(pack)); err != nil {
				t.Fatal(err)
			}
			// Of what differs from something by its name alone it is not known whether it is a commit.
			unclear := lost && how == "--no-delta-base-offset"
			if got, err := l.lost(plumbing.NewHash(all[0])); got != (lost && !unclear) || (err != nil) != unclear {
				t.Errorf("%s, %s: lost %v, %v, of %d commits", how, seen, got, err, len(l.commits))
			}
			if lost && len(l.commits) != 30 {
				t.Errorf("%s: %d commits", how, len(l.commits))
			}
		}

		// What came only in part tells nothing.
		l := lineage{seen: plumbing.NewHash(strings.Repeat("1", 40))}
		if err := l.read(bytes.NewReader(pack)); err != nil {
			t.Fatal(err)
		}
		if got, err := l.lost(plumbing.NewHash(all[0])); got || err == nil {
			t.Errorf("of a host that does not know it, and sent no first commit: %v, %v", got, err)
		}
		l.known = true
		if got, err := l.lost(plumbing.NewHash(all[35])); got || err == nil {
			t.Errorf("without the commit that was asked for: %v, %v", got, err)
		}
		if err := l.read(bytes.NewReader(pack[:len(pack)/2])); err == nil {
			t.Error("half a pack was read to its end")
		}
	}
}
