package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// killLine is what the tests of control called TestKillPoints… say of each operation: of
// those that people ask for, of reconciliations, and of what comes from Git and registries.
var killLine = regexp.MustCompile(`kill points: ([0-9]+), stuck: ([0-9]+)`)

// caseLine is what chart/conformance_test.go says of the cases of the chart language.
var caseLine = regexp.MustCompile(`([0-9]+) cases, ([0-9]+) equal`)

// measurePackages kills servers in the middle of changes with hooks, and compares what
// charts render to with Helm's own library.
func measurePackages(ctx context.Context, b *bench) error {
	points, stuck, err := b.counted(ctx, killLine, "^TestKillPoints", "./control")
	if err != nil {
		return err
	}
	cases, equal, err := b.counted(ctx, caseLine, "^TestRendersWhatHelmRenders$", "./chart")
	if err != nil {
		return err
	}
	b.set("package_kill_points", float64(points))
	b.set("package_kill_points_stuck", float64(stuck))
	b.set("helm_cases", float64(cases))
	b.set("helm_cases_equal", float64(equal))
	return nil
}

// counted sums up two numbers of lines that tests log. A test that fails counts too: that is
// what its second number tells. Without the numbers of one of them there is no sum: it was
// skipped, or ended before.
func (b *bench) counted(ctx context.Context, line *regexp.Regexp, test, pkg string) (first, second int, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "60m", "-v", "-run", test, pkg)
	cmd.Dir, cmd.Env = b.root, append(os.Environ(), "FAIRLEAD_KILL_POINTS=all")
	out, failure := cmd.CombinedOutput()
	found := line.FindAllSubmatch(out, -1)
	if len(found) == 0 {
		return 0, 0, fmt.Errorf("%s of %s says no numbers: %w\n%s", test, pkg, failure, out)
	}
	if missing := silent(line, string(out)); len(missing) > 0 {
		return 0, 0, fmt.Errorf("%s of %s: %s says no numbers (%v)\n%s", test, pkg, strings.Join(missing, ", "), cmd.ProcessState, out)
	}
	for _, m := range found {
		x, _ := strconv.Atoi(string(m[1]))
		y, _ := strconv.Atoi(string(m[2]))
		first, second = first+x, second+y
	}
	if failure != nil {
		b.say("  %s: %v", test, failure)
	}
	return first, second, nil
}

// turn is a line of `go test -v` that says whose lines come then.
var turn = regexp.MustCompile(`^=== (RUN|NAME|CONT) +(\S+)`)

// silent are the tests of such an output that log no such line; those do that are part of one
// that logs it, or have a part that does.
func silent(line *regexp.Regexp, out string) (names []string) {
	var said []string
	name := ""
	for l := range strings.Lines(out) {
		switch m := turn.FindStringSubmatch(l); {
		case m != nil:
			if name = m[2]; !slices.Contains(names, name) {
				names = append(names, name)
			}
		case line.MatchString(l):
			said = append(said, name)
		}
	}
	return slices.DeleteFunc(names, func(n string) bool {
		return slices.ContainsFunc(said, func(s string) bool {
			return s == n || strings.HasPrefix(s, n+"/") || strings.HasPrefix(n, s+"/")
		})
	})
}
