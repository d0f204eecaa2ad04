package cli_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// badInput is something that is wrong, and a row of docs/bad-inputs.md: what the
// user sees is held there, word for word.
type badInput struct {
	what  string
	file  string            // compose.yaml, shown in the document unless it is large
	files map[string]string // more files
	setup func(h *hub)
	in    string // standard input
	args  []string
	shown string // the command in the document; args when empty
	code  int
	says  []string // must be in what the user sees, whatever the document holds
	// changes: it is accepted, so the store does change.
	changes bool
	// process: templates are rendered in a process of their own, as ever outside of tests.
	process bool
}

type badSection struct {
	title, text string
	rows        []badInput
}

const badInputsFile = "../docs/bad-inputs.md"

func TestBadInputs(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(badInputsHead)
	n := 0
	for _, s := range badSections() {
		fmt.Fprintf(&doc, "\n## %s\n\n%s\n\n| # | input | what you see | exit |\n|---|---|---|---|\n", s.title, s.text)
		var files strings.Builder
		for _, r := range s.rows {
			n++
			number := n
			t.Run(r.what, func(t *testing.T) {
				got := runBad(t, r)
				fmt.Fprintf(&doc, "| %d | %s<br>%s | %s | %d |\n", number, r.what, code(command(r)), code(got.all), got.code)
			})
			if r.file != "" && len(r.file) < 600 {
				fmt.Fprintf(&files, "\n%d:\n\n```yaml\n%s```\n", number, visible(r.file))
			}
		}
		if files.Len() > 0 {
			doc.WriteString("\nThe files:\n" + files.String())
		}
	}
	if n < 25 {
		t.Errorf("%d bad inputs: at least 25 are to be shown", n)
	}
	old, err := os.ReadFile(badInputsFile)
	if err != nil && os.Getenv("FAIRLEAD_UPDATE") == "" {
		t.Fatal(err)
	}
	// What follows the mark is held by the tests with a real engine.
	mine, theirs, _ := strings.Cut(string(old), engineMark)
	if os.Getenv("FAIRLEAD_UPDATE") != "" && !t.Failed() {
		if err := os.WriteFile(badInputsFile, []byte(doc.String()+engineMark+theirs), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(mine, "\n"), strings.Split(doc.String(), "\n")); d != "" {
		t.Errorf("%s differs from what the program says; when that is right, FAIRLEAD_UPDATE=1 writes it (-document +program)\n%s", badInputsFile, d)
	}
}

const engineMark = "\n<!-- from here on: integration/e2e/badinput_test.go -->\n"

const badInputsHead = `# Bad inputs, and what you see

Written by ` + "`FAIRLEAD_UPDATE=1 go test ./cli -run TestBadInputs`" + `; each row is a test that
runs the command line against a server and holds what it prints, the exit code,
and that nothing was changed in the store (rows marked *accepted* aside). Exit
codes: 1 it was tried and failed, 2 the input is wrong, 3 the server cannot be
reached or refuses the caller, 4 what was named does not exist, 5 timed out
waiting.

Every complaint about a file names its line. A refused file is reported whole,
not up to the first mistake.
`

func runBad(t *testing.T, r badInput) said {
	t.Helper()
	h := newHub(t)
	if !r.process {
		h.templates = inProcess{}
	}
	if r.file != "" {
		h.write("compose.yaml", r.file)
	}
	for name, content := range r.files {
		h.write(name, content)
	}
	if r.setup != nil {
		r.setup(h)
	}
	args := make([]string, len(r.args))
	for i, a := range r.args {
		// The other way round: what a row names by its lasting name.
		args[i] = a
		for j := 0; j+1 < len(h.names); j += 2 {
			args[i] = strings.ReplaceAll(args[i], h.names[j+1], h.names[j])
		}
	}
	before := h.dump()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := h.cliContext(ctx, strings.NewReader(r.in), args...)
	if got.code != r.code {
		t.Errorf("exit code %d, want %d\n%s", got.code, r.code, got.all)
	}
	for _, s := range r.says {
		if !strings.Contains(got.all, s) {
			t.Errorf("it does not say %q:\n%s", s, got.all)
		}
	}
	if r.code != 0 && got.out != "" && !r.changes {
		t.Errorf("a refusal goes to standard error, this is on standard output:\n%s", got.out)
	}
	if strings.ContainsFunc(got.all, func(c rune) bool { return unicode.IsControl(c) && c != '\n' }) {
		t.Errorf("control characters reach the terminal: %q", got.all)
	}
	if len(got.all) > 2000 {
		t.Errorf("%d bytes are too much to read", len(got.all))
	}
	if same := maps.Equal(before, h.dump()); same == r.changes {
		t.Errorf("the store is as before: %v\n%s", same, cmp.Diff(before, h.dump()))
	}
	got.all = strings.TrimSuffix(passing.ReplaceAllString(got.all, ""), "\n")
	return got
}

// passing is progress that one run shows and another is too quick for.
var passing = regexp.MustCompile(`(?m)^ .* ready, (pending.*|running)\n`)

func command(r badInput) string {
	if r.shown != "" {
		return r.shown
	}
	words := []string{"fairlead"}
	for _, a := range r.args {
		if a == "" || strings.ContainsFunc(a, func(c rune) bool {
			return unicode.IsSpace(c) || unicode.IsControl(c) || strings.ContainsRune("'\"&;|<>$", c)
		}) {
			a = fmt.Sprintf("%q", a)
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// code is text in a cell of a table, each line as it is.
func code(s string) string {
	var cells []string
	for l := range strings.SplitSeq(s, "\n") {
		l = strings.ReplaceAll(visible(l), "|", `\|`)
		switch {
		case l == "":
			continue
		case strings.Contains(l, "`"):
			l = "`` " + l + " ``"
		default:
			l = "`" + l + "`"
		}
		cells = append(cells, l)
	}
	return strings.Join(cells, "<br>")
}

// visible shows what a document cannot hold.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			return '\uFFFD'
		}
		return c
	}, s)
}
