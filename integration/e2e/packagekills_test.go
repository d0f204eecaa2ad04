package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/need"
)

// slowPackage writes a package with a hook ahead of every change, and one behind it, that take as
// long as it says.
func (n *node) slowPackage(image, version, before, after string) string {
	n.write("killed/Chart.yaml", "apiVersion: v2\nname: killed\nversion: "+version+".0.0\n")
	hook := func(name, takes, on string) string {
		return fmt.Sprintf("  %s:\n    image: %s\n    command: [wait, %s]\n    x-fairlead: {hook: {on: [%[4]s-install, %[4]s-upgrade, %[4]s-rollback, %[4]s-delete]}}\n", name, image, takes, on)
	}
	n.write("killed/templates/app.yaml", strings.TrimPrefix(web(image, "killed", version, 2, ""), "\nname: killed\n")+hook("before", before, "pre")+hook("after", after, "post"))
	return filepath.Join(n.dir, "killed")
}

// TestServerKilledInPackageChanges kills the server in an installation, an upgrade, a rollback and a
// removal, ahead of what it changes and behind it: the next one goes on, takes the next change, and
// tells whoever waits.
func TestServerKilledInPackageChanges(t *testing.T) {
	n := start(t)
	image := n.image()
	hookRuns := func(name string) func() error {
		return func() error {
			out, err := n.try("ps", "killed", "--all")
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, "killed/"+name+".") && strings.Contains(line, "running") {
					return nil
				}
			}
			return errors.New(out)
		}
	}
	release := func(number int, version string) func() error {
		return func() error {
			list := get[[]struct {
				Number int
				State  string
			}](n, "history", "killed")
			if len(list) == 0 || list[0].Number != number || list[0].State != "complete" {
				return fmt.Errorf("history is %+v, want release %d, complete", list, number)
			}
			body, err := n.answer("http://killed.example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		}
	}
	gone := func() error {
		if out, err := n.try("history", "killed"); err == nil {
			return fmt.Errorf("its history is there:\n%s", out)
		}
		if left := n.containers("killed"); len(left) > 0 {
			return fmt.Errorf("left are %v", left)
		}
		return nil
	}
	for _, hook := range []string{"before", "after"} {
		takes := map[string]string{"before": "0s", "after": "0s"}
		takes[hook] = "12s" // long enough to be seen on a slow machine
		one := func() string { return n.slowPackage(image, "1", takes["before"], takes["after"]) }
		for _, change := range []struct {
			args []string
			pkg  func() string
			ends func() error
		}{
			{[]string{"install", "killed"}, one, release(1, "1")},
			{[]string{"upgrade", "killed"}, func() string { return n.slowPackage(image, "2", takes["before"], takes["after"]) }, release(2, "2")},
			{[]string{"rollback", "killed"}, nil, release(3, "1")},
			{[]string{"uninstall", "killed"}, nil, gone},
		} {
			args := change.args
			if change.pkg != nil {
				args = append(slices.Clone(args), change.pkg())
			}
			ctx, cancel := context.WithTimeout(t.Context(), need.Patience*3*time.Minute)
			waits := n.command(ctx, args...)
			var says bytes.Buffer
			waits.Stdout, waits.Stderr = &says, &says
			if err := waits.Start(); err != nil {
				t.Fatal(err)
			}
			n.eventually(time.Minute, fmt.Sprintf("%s: the hook %s it runs", args[0], hook), hookRuns(hook))
			n.stop(syscall.SIGKILL)
			n.up()
			if err := waits.Wait(); err != nil || !strings.Contains(says.String(), "it waits on until a server answers") {
				t.Errorf("%s, whose server was killed in the hook %s it, ends with %v:\n%s", args[0], hook, err, says.String())
			}
			cancel()
			if err := change.ends(); err != nil {
				t.Errorf("%s, killed in the hook %s it: %v", args[0], hook, err)
			}
		}
	}
}
