package chart_test

import (
	"context"
	"os"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/chart/charttest"
)

// serve is the argument that makes this test program the process of a Renderer.
const serve = "serve-a-renderer"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serve {
		if err := chart.Serve(context.Background(), os.Stdin, os.Stdout, os.Exit); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func renderer(t *testing.T) chart.Renderer {
	t.Helper()
	self, err := charttest.Self(serve)
	if err != nil {
		t.Fatal(err)
	}
	return chart.Renderer{Command: self}
}

// TestRendersWhatHelmRenders: each case by Helm's library used directly, and by this
// package: every file the same, byte for byte, and every error.
func TestRendersWhatHelmRenders(t *testing.T) {
	n, differ, err := charttest.Equal(t.Context(), t.TempDir(), chart.Render)
	if err != nil {
		t.Fatal(err)
	}
	for name, why := range differ {
		t.Errorf("%s: %s", name, why)
	}
	if n < 40 {
		t.Errorf("%d cases: at least 40 are wanted", n)
	}
	t.Logf("%d cases, %d equal", n, n-len(differ))
}

// TestAnotherProcessRendersTheSame: nothing is lost on the way there and back. The
// cases are those whose values, files and errors are of another kind each.
func TestAnotherProcessRendersTheSame(t *testing.T) {
	n, differ, err := charttest.Equal(t.Context(), t.TempDir(), renderer(t).Render,
		"alias", "compose", "exec-error", "fail", "files", "import-values", "notes", "null-removes-default", "precedence", "release",
		"schema-fails", "set-file", "set-json", "set-large-number", "subchart-of-subchart", "template-name", "values-documents")
	if err != nil {
		t.Fatal(err)
	}
	for name, why := range differ {
		t.Errorf("%s: %s", name, why)
	}
	if n != 17 {
		t.Errorf("%d cases", n)
	}
}
