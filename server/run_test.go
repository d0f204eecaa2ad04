package server

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// Two servers share neither directory: the run directory holds sockets and the
// secrets of containers.
func TestADirectoryIsOneServersOwn(t *testing.T) {
	data, run := t.TempDir(), t.TempDir()
	release, err := takeDirs(Config{DataDir: data, RunDir: run})
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	for _, c := range []Config{{DataDir: data, RunDir: other}, {DataDir: other, RunDir: run}} {
		_, err := takeDirs(c)
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// What was refused holds nothing.
	again, err := takeDir(other, "server.pid")
	if err != nil {
		t.Fatal(err)
	}
	again()
	release()
	if release, err = takeDirs(Config{DataDir: data, RunDir: run}); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := os.Stat(filepath.Join(run, "server.lock")); err != nil {
		t.Error(err)
	}
}
