package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/fairlead/fairlead/cluster"
)

const (
	maxFiles        = 100
	maxIncludeDepth = 16
)

// load is one run of Load.
type load struct {
	report
	o     Options
	app   cluster.AppName
	named string   // what names the app, "compose.yaml:1"; "" is the directory
	files []string // absolute, the main ones
	env   map[string]string
	// envFiles made env together with Options.Env, the strongest first.
	envFiles []string
	// asked is the variable that names the files, if it does.
	asked string
	// chosen are the profiles that Options name.
	chosen []string
	idx    index
	shown  []string // every file read
	// contents of the main files.
	contents map[string][]byte
	loading  []string // stack of files, against cycles
}

func newLoader(o Options) (*load, error) {
	if o.Domain == "" {
		o.Domain = "localhost"
	}
	if o.HTTPPort == 0 {
		o.HTTPPort = 80
	}
	if o.HTTPSPort == 0 {
		o.HTTPSPort = 443
	}
	if o.App != "" {
		if err := cluster.ValidAppName(o.App); err != nil {
			return nil, err
		}
	}
	l := &load{o: o, contents: map[string][]byte{}, idx: index{ext: map[*doc][]extend{}}}
	if l.packaged() {
		l.takePackaged()
		return l, nil
	}
	registerRaw() // before anything reads that table
	return l, l.locate()
}

// show is a file's name in messages: relative to the project where it is inside.
func (l *load) show(abs string) string {
	if rel, err := filepath.Rel(l.o.Dir, abs); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return rel
	}
	return abs
}

func (l *load) load(ctx context.Context) (*Result, error) {
	l.readMain()
	if err := l.err(); err != nil {
		return nil, err // not YAML that can be read: nothing more can be said
	}
	l.nameApp()
	for _, d := range l.idx.docs {
		l.check(d)
	}
	p := l.compose(ctx)
	if p == nil {
		return nil, l.err()
	}
	res := newConverter(l, p).convert()
	if err := l.err(); err != nil {
		return nil, err
	}
	res.Warnings, res.Files = sorted(l.warned), l.shown
	return res, nil
}

// readMain reads the main files and all they include and extend.
func (l *load) readMain() {
	var main []*doc
	for _, f := range l.files {
		main = append(main, l.read(request{abs: f, dir: l.o.Dir, env: l.env})...)
	}
	slices.Reverse(main) // the last file is the strongest
	l.idx.docs = main
	for _, d := range main {
		l.follow(d, 0)
	}
}

// request is a file to read, and who asked for it.
type request struct {
	abs, dir string
	env      map[string]string
	by       cluster.Source
	path     string
	base     bool
}

// read parses one file into documents. What is wrong is reported.
func (l *load) read(r request) []*doc {
	name := l.show(r.abs)
	at := r.by
	if at.File == "" {
		at = cluster.Source{File: name}
	}
	if len(l.shown) >= maxFiles {
		l.refuse(at, r.path, fmt.Sprintf("more than %d files", maxFiles), "")
		return nil
	}
	content, err := l.content(r)
	if err != nil {
		if se, ok := errors.AsType[*syntaxError](err); ok {
			l.refuse(cluster.Source{File: name}, "", se.msg, se.advice)
			return nil
		}
		msg := "cannot read the file " + name + ": " + cause(err)
		if r.by.File == "" { // its name stands before it
			msg = "cannot read the file: " + cause(err)
		}
		advice := ""
		if r.by.File == "" && l.asked != "" {
			advice = l.asked + " names it"
		}
		l.refuse(at, r.path, msg, advice)
		return nil
	}
	if !slices.Contains(l.shown, name) {
		l.shown = append(l.shown, name)
	}
	l.contents[r.abs] = content
	roots, err := parseYAML(content)
	if err != nil {
		if se, ok := errors.AsType[*syntaxError](err); ok {
			l.refuse(cluster.Source{File: name, Line: se.line}, "", se.msg, se.advice)
		}
		return nil
	}
	var docs []*doc
	for _, root := range roots {
		if root.kind != mapNode {
			l.refuse(cluster.Source{File: name, Line: root.line}, "", "a Compose file is a mapping, this is "+root.kind.String(), "start with services:")
			continue
		}
		d := &doc{file: name, abs: r.abs, dir: r.dir, root: root, env: r.env, base: r.base}
		l.interpolate(d, root, nil)
		docs = append(docs, d)
	}
	if len(docs) == 0 && len(roots) == 0 && r.by.File == "" && len(l.files) == 1 {
		l.refuse(cluster.Source{File: name, Line: 1}, "", "the file is empty", "start with services:")
	}
	return docs
}

// readLimited reads a regular file of at most most bytes.
func readLimited(f string, most int64) ([]byte, error) {
	s, err := os.Stat(f)
	if err != nil {
		return nil, err
	}
	if !s.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if s.Size() > most {
		return nil, tooLarge(s.Size())
	}
	h, err := os.Open(filepath.Clean(f))
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }() // read only: nothing can be lost
	return readAll(h, most)
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = tooLarge(int64(len(b)))
	}
	return b, err
}

// cause is the part of a file error that says what happened.
func cause(err error) string {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	if errors.Is(err, os.ErrNotExist) {
		return "it is not there"
	}
	return err.Error()
}

// substitute interpolates without logging.
func substitute(s string, m template.Mapping) (string, error) {
	return template.SubstituteWithOptions(s, m, template.WithoutLogging)
}

// compose runs compose-go. When something was refused already, it gets the
// files without that, to find what else is wrong.
func (l *load) compose(ctx context.Context) *types.Project {
	p, err := l.runComposeGo(ctx, false)
	if err != nil && l.includedVariable(err) {
		p, err = l.runComposeGo(ctx, true)
	}
	if err != nil {
		if !l.failed() {
			l.composeError(err)
		}
		return nil
	}
	return p
}

// includedVariable reports whether an error is compose-go's own: it puts the value of a
// variable beside the variable's name in a config of an included file, and then complains
// of both. The files were checked here already.
func (l *load) includedVariable(err error) bool {
	key, _, found := strings.Cut(strings.TrimPrefix(err.Error(), "configs."), ": file|environment|content attributes are mutually exclusive")
	if !found {
		return false
	}
	n, d := l.idx.find("configs", key)
	return n != nil && !slices.Contains(l.files, d.abs) && n.get("environment") != nil && n.get("file") == nil && n.get("content") == nil
}

func (l *load) runComposeGo(ctx context.Context, unchecked bool) (p *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("a value of the wrong type (%v)", r)
		}
	}()
	d := types.ConfigDetails{WorkingDir: l.o.Dir, Environment: types.Mapping(l.env).Clone()}
	if d.Environment == nil {
		d.Environment = types.Mapping{}
	}
	for _, f := range l.files {
		cf := types.ConfigFile{Filename: f, Content: withoutEmpty(withoutVersion(l.contents[f], l.rootOf(f)))}
		if len(cf.Content) == 0 {
			continue // without content, compose-go would open the file itself
		}
		if !l.failed() {
			d.ConfigFiles = append(d.ConfigFiles, cf)
			continue
		}
		for _, m := range l.remainders(f) {
			d.ConfigFiles = append(d.ConfigFiles, types.ConfigFile{Filename: f, Config: m})
		}
	}
	return loader.LoadWithContext(ctx, d, func(o *loader.Options) {
		o.SetProjectName(string(l.app), true)
		o.Profiles = l.o.Profiles
		o.SkipConsistencyCheck = true // checked here, with lines
		o.SkipValidation = unchecked
		o.SkipResolveEnvironment = true
		o.SkipInclude = l.packaged() // refused here; no file of this machine is opened
		casts := maps.Clone(o.Interpolate.TypeCastMapping)
		for _, of := range [][]string{{"volumes", tree.PathMatchList, "tmpfs", "mode"}, {"secrets", tree.PathMatchList, "mode"}, {"configs", tree.PathMatchList, "mode"}} {
			casts[tree.NewPath(append([]string{"services", tree.PathMatchAll}, of...)...)] = func(v string) (any, error) {
				mode, _ := octalMode(v) // checked already
				return mode, nil
			}
		}
		o.Interpolate = &interpolation.Options{Substitute: substitute, LookupValue: d.LookupEnv, TypeCastMapping: casts}
	})
}

func (l *load) rootOf(abs string) *node {
	for _, d := range l.idx.docs {
		if d.abs == abs && !d.base {
			return d.root
		}
	}
	return nil
}

// withoutVersion blanks the line of the old key version, of which compose-go
// would complain to standard error.
func withoutVersion(content []byte, root *node) []byte {
	e := root.entry("version")
	if e == nil || e.line != e.val.line {
		return content
	}
	lines := strings.SplitAfter(string(content), "\n")
	if i := e.line - 1; i < len(lines) && strings.HasPrefix(lines[i], "version") {
		lines[i] = "\n"
	}
	return []byte(strings.Join(lines, ""))
}

// remainders are a file's documents without what was refused, and without what a
// stronger one takes back or replaces: by now the tags that say so are gone.
func (l *load) remainders(abs string) (out []map[string]any) {
	for i, d := range slices.Backward(l.idx.docs) {
		if d.abs != abs || d.base {
			continue
		}
		m, ok := d.root.plain(true).(map[string]any)
		if !ok {
			continue
		}
		delete(m, "version")
		for _, stronger := range l.idx.docs[:i] {
			if slices.Contains(l.files, stronger.abs) && !stronger.base {
				takeBack(m, stronger.root)
			}
		}
		out = append(out, m)
	}
	return out
}

// takeBack deletes from m what n marks with !reset or !override.
func takeBack(m map[string]any, n *node) {
	for _, e := range n.entries {
		if e.val.tag == "!reset" || e.val.tag == "!override" {
			delete(m, e.key)
		} else if below, is := m[e.key].(map[string]any); is {
			takeBack(below, e.val)
		}
	}
}
