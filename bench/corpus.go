package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fairlead/fairlead/compose"
)

// measureCorpus reads other people's Compose files. FAIRLEAD_CORPUS names their folder.
func measureCorpus(ctx context.Context, b *bench) error {
	dir := os.Getenv("FAIRLEAD_CORPUS")
	if dir == "" {
		dir = filepath.Join(b.root, "..", "shared", "corpus")
	}
	planned, refused := 0, 0
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err != nil || ext != ".yaml" && ext != ".yml" {
			return err
		}
		_, err = compose.Load(ctx, compose.Options{Files: []string{path}, SingleNode: true})
		var p *compose.Problems
		switch {
		case err == nil:
			planned++
		case errors.As(err, &p) && located(p.List):
			refused++
		default:
			b.say("  %s: refused without key and line: %v", path, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the corpus (FAIRLEAD_CORPUS says where it is): %w", err)
	}
	if planned+refused == 0 {
		return fmt.Errorf("no Compose file in %s", dir)
	}
	b.set("corpus_planned", float64(planned))
	b.set("corpus_refused_with_line", float64(refused))
	return nil
}

// located reports whether every problem names its file, line and key.
func located(list []compose.Problem) bool {
	for _, p := range list {
		if p.File == "" || p.Line == 0 || p.Path == "" {
			return false
		}
	}
	return len(list) > 0
}

// badInputRow is a row of a table whose last cell is an exit code.
var badInputRow = regexp.MustCompile(`(?m)^\|.*\| *[0-9]+ *\|$`)

// measureBadInputs counts the rows of docs/bad-inputs.md once the tests that
// write them have held them against the program.
func measureBadInputs(ctx context.Context, b *bench) error {
	doc, err := os.ReadFile(filepath.Join(b.root, "docs", "bad-inputs.md"))
	if errors.Is(err, fs.ErrNotExist) {
		b.say("  there is no docs/bad-inputs.md: not measured")
		return nil
	} else if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "10m", "-v", "-run", "^TestBadInputs$", "./cli", "./integration/e2e")
	cmd.Dir = b.root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("a row does not hold: %w\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS: TestBadInputs "); n != 2 {
		return fmt.Errorf("%d of 2 tests of bad inputs ran:\n%s", n, out)
	}
	b.set("bad_inputs", float64(len(badInputRow.FindAll(doc, -1))))
	return nil
}
