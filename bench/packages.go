package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
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

// counted sums up two numbers of lines that a test logs. A test that fails counts too:
// that is what its second number tells.
func (b *bench) counted(ctx context.Context, line *regexp.Regexp, test, pkg string) (first, second int, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "60m", "-v", "-run", test, pkg)
	cmd.Dir, cmd.Env = b.root, append(os.Environ(), "FAIRLEAD_KILL_POINTS=all")
	out, failure := cmd.CombinedOutput()
	found := line.FindAllSubmatch(out, -1)
	if len(found) == 0 {
		return 0, 0, fmt.Errorf("%s of %s says no numbers: %w\n%s", test, pkg, failure, out)
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
