package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/compose"
)

func TestQuantileAndMedian(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.2: 1, 0.21: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(v, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := median(v); got != 3 {
		t.Errorf("median is %v, want 3", got)
	}
	if got := median([]float64{4, 1, 2, 10}); got != 3 {
		t.Errorf("median of four is %v, want 3", got)
	}
	if v[0] != 5 {
		t.Error("the values were sorted in place")
	}
}

// A run replaces what it measured, and nothing else.
func TestSaveKeepsOtherKeys(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "bench"), 0o755); err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(root, "bench", "README.md")
	if err := os.WriteFile(readme, []byte("# Head\n"+tableStart+tableEnd+"Tail.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, m := range []map[string]float64{
		{"binary_mb": 50, "rolling_failed": 0}, {"binary_mb": 51},
	} {
		if err := save(root, m, []string{"first | machine", "second"}[i], day.AddDate(0, 0, i)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(root, "bench", "results", "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]float64
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]float64{"binary_mb": 51, "rolling_failed": 0}, got); d != "" {
		t.Errorf("latest.json (-want +got)\n%s", d)
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	row := func(key, want string) {
		t.Helper()
		for l := range strings.Lines(string(text)) {
			if strings.HasPrefix(l, "| `"+key+"` ") {
				if !strings.HasSuffix(l, want+"\n") {
					t.Errorf("the row of %s is %q, want it to end with %q", key, l, want)
				}
				return
			}
		}
		t.Errorf("%s has no row", key)
	}
	row("binary_mb", "| second | 2026-01-03 |")
	row("rolling_failed", "| first / machine | 2026-01-02 |")
	row("bad_inputs", "|  | not measured yet |")
	if !strings.HasPrefix(string(text), "# Head\n") || !strings.HasSuffix(string(text), "Tail.\n") {
		t.Errorf("what is around the table changed:\n%s", text)
	}
	if err := save(root, map[string]float64{"unheard_of": 1}, "m", day); err == nil {
		t.Error("a key without a meaning was saved")
	}
}

// Each group that a figure names exists, and what was measured has a meaning.
func TestFiguresAndGroups(t *testing.T) {
	known := map[string]bool{}
	for _, f := range figures() {
		known[f.key] = true
		name, _, _ := strings.Cut(f.group, " ")
		if !slices.ContainsFunc(groups(), func(g group) bool { return g.name == name }) {
			t.Errorf("%s is measured by the group %q, which does not exist", f.key, name)
		}
		if strings.ContainsAny(f.meaning+f.aim, "|\n") || f.meaning == "" {
			t.Errorf("the meaning of %s does not fit into a cell", f.key)
		}
	}
	b, err := os.ReadFile("results/latest.json")
	if err != nil {
		t.Fatal(err)
	}
	var latest map[string]float64
	if err := json.Unmarshal(b, &latest); err != nil {
		t.Fatalf("latest.json is not one flat object of numbers: %v", err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for key := range latest {
		if !known[key] {
			t.Errorf("latest.json has %s, which nothing explains", key)
		}
		for l := range strings.Lines(string(readme)) {
			if strings.HasPrefix(l, "| `"+key+"` ") && strings.Contains(l, "not measured yet") {
				t.Errorf("latest.json has %s, and README.md says that it was not measured", key)
			}
		}
	}
}

// What the bench measures and what the table explains are the same: a figure without its
// meaning would fail the run that measured it, and one that nothing measures stays empty.
func TestEachFigureIsMeasuredAndExplained(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := regexp.MustCompile(`\b(?:set|read)\("([a-z0-9_]+)"`)
	var measured, explained []string
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range set.FindAllStringSubmatch(string(text), -1) {
			measured = append(measured, m[1])
		}
	}
	for _, f := range figures() {
		explained = append(explained, f.key)
	}
	slices.Sort(measured)
	slices.Sort(explained)
	if d := cmp.Diff(explained, slices.Compact(measured)); d != "" {
		t.Errorf("explained, and not measured (-), or the other way round (+):\n%s", d)
	}
}

func TestChoose(t *testing.T) {
	got, err := choose(groups(), "route, binary")
	if err != nil || len(got) != 2 || got[0].name != "route" || got[1].name != "binary" {
		t.Errorf("chosen: %v, %v", got, err)
	}
	if _, err := choose(groups(), "route,nope"); err == nil {
		t.Error("a group that does not exist was taken")
	}
	if got, err := choose(groups(), ""); err != nil || len(got) != len(groups()) {
		t.Errorf("without names %d groups are chosen, %v", len(got), err)
	}
}

func TestLocated(t *testing.T) {
	whole := compose.Problem{File: "compose.yaml", Line: 3, Path: "services.web.image"}
	lineless := whole
	lineless.Line = 0
	if !located([]compose.Problem{whole}) || located([]compose.Problem{whole, lineless}) || located(nil) {
		t.Error("a refusal counts only when every problem has file, line and key")
	}
}

func TestBadInputRows(t *testing.T) {
	doc := "| # | input | what you see | exit |\n|---|---|---|---|\n| 1 | a | `x \\| y` | 2 |\n| b<br>`c` | d | 1 |\n| *accepted* | e | 0 |\ntext 3 |\n"
	if got := len(badInputRow.FindAllString(doc, -1)); got != 3 {
		t.Errorf("%d rows, want 3", got)
	}
}

// The numbers in /proc are read as they are meant.
func TestProcess(t *testing.T) {
	private, resident, err := memory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if private <= 1 || resident < private || resident > 10_000 {
		t.Errorf("this test has %v MB of its own of %v MB", private, resident)
	}
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before || after-before > 10*time.Second {
		t.Errorf("processor time went from %s to %s", before, after)
	}
}

// A sum of what several tests say lacks none of them: one that was skipped, or ended early, is
// named.
func TestTestsThatSayNoNumbers(t *testing.T) {
	const all = `=== RUN   TestKillPoints
=== RUN   TestKillPoints/deploy
    killpoints_test.go:672: kill points: 12, stuck: 0
=== RUN   TestKillPoints/rm
    killpoints_test.go:672: kill points: 8, stuck: 1
--- FAIL: TestKillPoints (1.00s)
    --- PASS: TestKillPoints/deploy (0.50s)
    --- FAIL: TestKillPoints/rm (0.50s)
`
	for what, tc := range map[string]struct {
		more string
		want []string
	}{
		"all":     {"", nil},
		"skipped": {"=== RUN   TestKillPointsOfSources\n    killsources_test.go:405: confining a process takes root\n--- SKIP: TestKillPointsOfSources (0.00s)\n", []string{"TestKillPointsOfSources"}},
		"ended early": {
			"=== RUN   TestKillPointsOfSources\n=== RUN   TestKillPointsOfSources/a\n    x_test.go:1: kill points: 2, stuck: 0\n=== RUN   TestKillPointsOfSources/b\n    x_test.go:1: without a kill: refused\n",
			[]string{"TestKillPointsOfSources/b"},
		},
		"in turns": {
			"=== RUN   TestOne\n=== PAUSE TestOne\n=== RUN   TestTwo\n=== PAUSE TestTwo\n=== CONT  TestOne\n=== CONT  TestTwo\n=== NAME  TestOne\n    x_test.go:1: kill points: 2, stuck: 0\n=== NAME  TestTwo\n    x_test.go:1: no\n",
			[]string{"TestTwo"},
		},
	} {
		if got := silent(killLine, all+tc.more); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, not %v", what, got, tc.want)
		}
	}
	if got := silent(caseLine, "=== RUN   TestRendersWhatHelmRenders\n=== RUN   TestRendersWhatHelmRenders/a\n    conformance_test.go:47: one\n=== NAME  TestRendersWhatHelmRenders\n    conformance_test.go:47: 90 cases, 90 equal\n"); len(got) > 0 {
		t.Errorf("what is said of all parts together is not taken: %v", got)
	}
}
