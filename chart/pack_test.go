package chart_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/chart"
)

// What a file is called keeps no package from being made: what is unpacked is what was packed,
// and the same files in another order make the same archive.
func TestPackKeepsNames(t *testing.T) {
	for _, name := range []string{"files/größe.conf", "files/設定/файл", "files/a b+c.conf", "files/\xff.bin", "files/" + strings.Repeat("long/", 20) + "x", "files/" + strings.Repeat("ü/", 60) + "x", "templates/größe.yaml"} {
		dir := t.TempDir()
		for file, text := range map[string]string{"Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.2.0\n", "values.yaml": "a: 1\n", name: "über: 1\n"} {
			path := filepath.Join(dir, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		files, err := chart.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		called, b, err := chart.Pack(files)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		slices.Reverse(files)
		if _, again, err := chart.Pack(files); err != nil || !bytes.Equal(b, again) {
			t.Errorf("%q: the same files make another archive, %v", name, err)
		}
		back, err := chart.ReadArchive(called, bytes.NewReader(b))
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		byName := func(a, b chart.File) int { return strings.Compare(a.Name, b.Name) }
		slices.SortFunc(files, byName)
		slices.SortFunc(back, byName)
		if diff := cmp.Diff(files, back); diff != "" || string(chart.Get(back, name)) != "über: 1\n" {
			t.Errorf("%q: %s", name, diff)
		}
	}
}
