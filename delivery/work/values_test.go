package work_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/delivery/work"
)

// Values that are kept with a delivery are to its package what they were to who gave them. Those
// of versions before say nothing of types, and are a file's, as they were.
func TestValuesOfADelivery(t *testing.T) {
	f := newForge(t)
	f.write("pkg/Chart.yaml", "apiVersion: v2\nname: pkg\nversion: 1.0.0\n")
	f.write("pkg/values.yaml", "gone: x\n")
	f.write("pkg/templates/app.yaml", "services:\n  web:\n    image: a\n    command: [\"--maxmemory={{ .Values.max }}\", \"{{ .Values.file }} {{ .Values.text }} {{ .Values.gone }} {{ .Values.l }}\"]\n")
	f.write("over.yaml", "max: 5\nfile: 3000000\nof: the source\n")
	f.push("a package")
	d := f.local()
	d.Package, d.Values = "pkg", []string{"over.yaml"}
	given := chart.Values{
		Files: []chart.File{{Name: "mine.yaml", Data: []byte("file: 2000000\n")}},
		Set:   []string{"max=1000000000", "gone=null", "l[0]=-20000000"}, String: []string{"text=1e9"},
	}
	var err error
	if d.Set, err = given.Text(); err != nil {
		t.Fatal(err)
	}
	d.SetTyped = true
	r := f.must(work.Task{Delivery: d, Release: 1})

	cmd := exec.CommandContext(t.Context(), f.w.Command[0], "chart", "template", "shop", filepath.Join(f.tree, "pkg"), "-f", filepath.Join(f.tree, "over.yaml"),
		"--set", "max=1000000000", "--set", "gone=null", "--set", "l[0]=-20000000", "--set-string", "text=1e9", "-f", "-")
	cmd.Stdin = strings.NewReader("file: 2000000\n")
	installed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range r.Bundle.Services["web"].Task.Command {
		if !strings.Contains(string(installed), `"`+arg+`"`) {
			t.Errorf("%q is not in what install makes:\n%s", arg, installed)
		}
	}
	if got := strings.Join(r.Bundle.Services["web"].Task.Command, "|"); got != "--maxmemory=1000000000|2e+06 1e9  [-20000000]" {
		t.Error(got)
	}
	if !strings.Contains(r.Bundle.Package.Values, "max: 1000000000\n") || !strings.Contains(r.Bundle.Package.Values, "file: 2000000.0\n") {
		t.Errorf("kept with the release is\n%s", r.Bundle.Package.Values)
	}

	d.Set, d.SetTyped = "max: 1000000000\nfile: 2000000\n", false
	if got := strings.Join(f.must(work.Task{Delivery: d, Release: 1}).Bundle.Services["web"].Task.Command, "|"); got != "--maxmemory=1e+09|2e+06  x " {
		t.Errorf("as before: %s", got)
	}
}
