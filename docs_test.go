package fairlead_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	docLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	// placeName is a path below the root, with the name of a declaration in it or without.
	placeName = regexp.MustCompile(`^([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*)/?(?::([A-Za-z]\w*))?$`)
)

// TestDocsNamePlacesThatExist follows what README.md and docs name: links, paths,
// and declarations written as path.go:Name. A document that names what is gone
// sends a newcomer astray.
func TestDocsNamePlacesThatExist(t *testing.T) {
	docs := []string{"README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	top := topLevel(t)
	names := map[string][]string{} // by Go file
	checked := map[string]int{}
	for _, doc := range docs {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range docLink.FindAllStringSubmatch(string(b), -1) {
			to, _, _ := strings.Cut(m[1], "#")
			if to == "" || strings.Contains(to, "://") {
				continue
			}
			checked[doc]++
			to = filepath.Join(filepath.Dir(doc), to)
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc, m[1])
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(string(b), -1) {
			path, name, ok := place(m[1], top)
			if !ok {
				continue
			}
			checked[doc]++
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s names %s, which does not exist", doc, path)
				continue
			}
			if name == "" {
				continue
			}
			if names[path] == nil {
				names[path] = declared(t, path)
			}
			if !slices.Contains(names[path], name) {
				t.Errorf("%s names %s in %s, which declares no such thing", doc, name, path)
			}
		}
	}
	// The pattern itself could break and find nothing.
	for doc, least := range map[string]int{"docs/ARCHITECTURE.md": 100, "README.md": 4} {
		if checked[doc] < least {
			t.Errorf("%s: only %d places were found in it", doc, checked[doc])
		}
	}
}

// topLevel are the names of what git keeps at the root.
func topLevel(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// place reads a code span that names a file or directory of this repository:
// one below a directory that is there, or any Go or Markdown file.
func place(span string, top []string) (path, name string, ok bool) {
	m := placeName.FindStringSubmatch(span)
	if m == nil {
		return "", "", false
	}
	first, _, below := strings.Cut(m[1], "/")
	ext := filepath.Ext(m[1])
	return m[1], m[2], ext == ".go" || ext == ".md" || below && slices.Contains(top, first)
}

// declared are the names that a Go file declares: functions, methods, types,
// constants, variables.
func declared(t *testing.T, path string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			out = append(out, d.Name.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					out = append(out, s.Name.Name)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						out = append(out, n.Name)
					}
				}
			}
		}
	}
	return out
}

// TestMakefileNamesTestsThatExist: go test -run takes a name that nothing has for
// no failure, and a test that was renamed would no longer run on a current engine.
func TestMakefileNamesTestsThatExist(t *testing.T) {
	b, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(strings.ReplaceAll(string(b), "\\\n", " "), "\nCURRENT := ")
	list, _, _ = strings.Cut(list, "\n")
	if !ok || len(strings.Fields(list)) < 10 {
		t.Fatalf("the Makefile's CURRENT is %q", list)
	}
	var have []string
	for _, pattern := range []string{"integration/*_test.go", "integration/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			have = append(have, declared(t, f)...)
		}
	}
	for name := range strings.FieldsSeq(list) {
		if !slices.Contains(have, name) {
			t.Errorf("the Makefile names %s in CURRENT, and integration has no such test", name)
		}
	}
}
