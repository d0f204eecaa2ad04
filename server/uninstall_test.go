package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// fakeCounted is n2, which says after a while who the servers are, or ends.
type fakeCounted struct {
	list   []v1.ServerSummary
	refuse time.Time // until then it answers that it does not know
	alone  bool      // it listens for no other machine
	ends   time.Time // from then on it does not answer
}

func (f *fakeCounted) Status(context.Context) (v1.ClusterStatus, error) {
	if !f.ends.IsZero() && !time.Now().Before(f.ends) {
		return v1.ClusterStatus{}, cluster.Transientf("cannot reach the server: connection refused")
	}
	return v1.ClusterStatus{Node: "n2"}, nil
}

func (f *fakeCounted) Servers(context.Context) ([]v1.ServerSummary, error) {
	if f.alone {
		return nil, &client.Error{Problem: v1.Problem{Kind: cluster.KindInvalid.String(), Detail: "no server can join this cluster"}}
	}
	if time.Now().Before(f.refuse) {
		return nil, &client.Error{Problem: v1.Problem{Kind: cluster.KindTransient.String(), Detail: "no majority of the servers answers"}}
	}
	return f.list, nil
}

// A server whose vote the others count is not removed before they let it go.
func TestAServerThatVotesIsNotUninstalled(t *testing.T) {
	n1 := v1.ServerSummary{Node: "n1", Standing: v1.StandingVoter, Answers: true}
	away := v1.ServerSummary{Node: "n3", Standing: v1.StandingVoter}
	two := v1.ServerSummary{Node: "n2", Standing: v1.StandingVoter, Answers: true}
	is := func(s v1.Standing) v1.ServerSummary { return v1.ServerSummary{Node: "n2", Standing: s} }
	for name, c := range map[string]struct {
		list         []v1.ServerSummary
		refuse, ends time.Duration
		alone        bool
		says         string // "" when it may go
	}{
		"one of two":                     {list: []v1.ServerSummary{n1, two}, says: "first `fairlead server rm n2`"},
		"the other one is away":          {list: []v1.ServerSummary{two, away}, says: "n2 is one of 2 servers"},
		"one of three":                   {list: []v1.ServerSummary{n1, two, away}, says: "n2 is one of 3 servers"},
		"the only one":                   {list: []v1.ServerSummary{two}},
		"the only one, and one joins":    {list: []v1.ServerSummary{two, {Node: "n3", Standing: v1.StandingLearner}}},
		"it was taken out":               {list: []v1.ServerSummary{n1, is(v1.StandingNone)}},
		"nobody knows it":                {list: []v1.ServerSummary{n1}},
		"it learns":                      {list: []v1.ServerSummary{n1, is(v1.StandingLearner)}},
		"on an external etcd":            {list: []v1.ServerSummary{is(v1.StandingClient), {Node: "n1", Standing: v1.StandingClient}}},
		"none can join it":               {alone: true},
		"it does not run":                {list: []v1.ServerSummary{n1, two}, ends: -1},
		"it was taken out, and ends now": {refuse: time.Hour, ends: 3 * time.Second},
		"it starts":                      {list: []v1.ServerSummary{n1, two}, refuse: 3 * time.Second, says: "first `fairlead server rm n2`"},
		"it has no majority":             {refuse: time.Hour, says: "no majority of the servers answers; wait until it can, or --force"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeCounted{list: c.list, refuse: time.Now().Add(c.refuse), alone: c.alone}
			if c.ends != 0 {
				f.ends = time.Now().Add(c.ends)
			}
			err := votesNot(t.Context(), f)
			if (err == nil) != (c.says == "") || err != nil && (cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "--force")) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
		})
	}
	// Without a store of its own, or a server that listens, nobody is asked.
	cfg := Config{DataDir: t.TempDir(), RunDir: t.TempDir()}
	if err := mayLeave(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.etcdDir(), "member-data", "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := mayLeave(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

// A directory that is a mount is removed as far as it can be.
func TestAMountIsEmptied(t *testing.T) {
	busy := func(dir string) error { return &fs.PathError{Op: "unlinkat", Path: dir, Err: syscall.EBUSY} }
	empty, full := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir    string
		remove func(string) error
		fine   bool
	}{
		{empty, busy, true},
		{full, busy, false}, // something in it is in use
		{empty, func(string) error { return syscall.EACCES }, false},
		{filepath.Join(empty, "absent"), os.RemoveAll, true},
		{full, os.RemoveAll, true},
	} {
		if err := removeDir(c.dir, c.remove); (err == nil) != c.fine {
			t.Errorf("%s: %v", c.dir, err)
		}
	}
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("no mount can be made: ", err)
	}
	defer func() { _ = unix.Unmount(mount, unix.MNT_DETACH) }()
	if err := os.MkdirAll(filepath.Join(mount, "pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := removeDir(mount, os.RemoveAll)
	if left, rerr := os.ReadDir(mount); err != nil || rerr != nil || len(left) > 0 {
		t.Errorf("%v, and %v, %v are left", err, left, rerr)
	}
	if err := os.RemoveAll(mount); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("it is no mount: %v", err)
	}
}

// What is installed is whole and for everyone, whatever the umask, and a file that an
// interrupted install left is no hindrance.
func TestWhatIsInstalledIsForEveryone(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, f := range []string{from, to + ".new"} {
		if err := os.WriteFile(f, []byte("program of "+f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyProgram(from, to); err != nil {
		t.Fatal(err)
	}
	s := service{file: filepath.Join(dir, unitName)}
	if err := s.write([]string{"server"}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{to: 0o755, s.file: 0o644} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if b, err := os.ReadFile(to); err != nil || string(b) != "program of "+from {
		t.Errorf("%q, %v", b, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.new")); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}
