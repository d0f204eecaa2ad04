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

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
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
	named cluster.Source // of the name: that is the app's
	files []string       // absolute, the main ones
	env   map[string]string
	idx   index
	shown []string // every file read
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
	} else if err := l.findFiles(); err != nil {
		return nil, err
	}
	return l, nil
}

// findFiles makes the list of main files and the project directory absolute.
func (l *load) findFiles() error {
	dir := l.o.Dir
	if dir == "" && len(l.o.Files) > 0 {
		dir = filepath.Dir(l.o.Files[0])
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("project directory: %w", err)
	}
	l.o.Dir = dir
	if l.app = l.o.App; l.app == "" {
		l.app = appName(filepath.Base(dir)) // until the file's name: is read
	}
	if len(l.o.Files) == 0 {
		l.files = defaultFiles(dir)
		if len(l.files) == 0 {
			return cluster.NotFoundf("no Compose file in %s: looked for compose.yaml, compose.yml, docker-compose.yaml and docker-compose.yml; name one with -f", dir)
		}
		return nil
	}
	for _, f := range l.o.Files {
		abs, err := filepath.Abs(f)
		if err != nil {
			return fmt.Errorf("file %s: %w", f, err)
		}
		l.files = append(l.files, abs)
	}
	return nil
}

// defaultFiles finds a Compose file and its override by their usual names.
func defaultFiles(dir string) []string {
	for _, name := range []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"} {
		f := filepath.Join(dir, name)
		if !regular(f) {
			continue
		}
		files := []string{f}
		base := strings.TrimSuffix(name, filepath.Ext(name))
		for _, ext := range []string{".yaml", ".yml"} {
			if o := filepath.Join(dir, base+".override"+ext); regular(o) {
				return append(files, o)
			}
		}
		return files
	}
	return nil
}

func regular(f string) bool {
	s, err := os.Stat(f)
	return err == nil && s.Mode().IsRegular()
}

// show is a file's name in messages: relative to the project where it is inside.
func (l *load) show(abs string) string {
	if rel, err := filepath.Rel(l.o.Dir, abs); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return rel
	}
	return abs
}

func (l *load) load(ctx context.Context) (*Result, error) {
	if err := l.readEnv(); err != nil {
		return nil, err
	}
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

// readEnv reads .env or the given files; Options.Env wins.
func (l *load) readEnv() error {
	if l.packaged() {
		l.env = map[string]string{}
		return nil
	}
	files := l.o.EnvFiles
	if len(files) == 0 {
		if f := filepath.Join(l.o.Dir, ".env"); regular(f) {
			files = []string{f}
		}
	}
	env, err := readDotenv(files, l.o.Env)
	if err != nil {
		return cluster.Invalidf("env file: %w", err)
	}
	l.env = env
	return nil
}

// readDotenv merges env files below what is set already.
func readDotenv(files []string, set map[string]string) (env map[string]string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	for _, f := range files {
		if s, serr := os.Stat(f); serr == nil && s.Size() > maxFileSize {
			return nil, fmt.Errorf("%s has %d bytes; at most %d are read", f, s.Size(), maxFileSize)
		}
	}
	fromFiles, err := dotenv.GetEnvFromFile(set, files)
	if err != nil {
		return nil, err
	}
	return types.Mapping(set).Clone().Merge(fromFiles), nil
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
	content, err := l.content(r.abs)
	if err != nil {
		if se, ok := errors.AsType[*syntaxError](err); ok {
			l.refuse(cluster.Source{File: name}, "", se.msg, se.advice)
			return nil
		}
		msg := "cannot read the file " + name + ": " + cause(err)
		if r.by.File == "" { // its name stands before it
			msg = "cannot read the file: " + cause(err)
		}
		l.refuse(at, r.path, msg, "")
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
	b, err := io.ReadAll(io.LimitReader(h, most+1))
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
	p, err := l.runComposeGo(ctx)
	if err != nil {
		if !l.failed() {
			l.composeError(err)
		}
		return nil
	}
	return p
}

func (l *load) runComposeGo(ctx context.Context) (p *types.Project, err error) {
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
		if l.failed() {
			cf = types.ConfigFile{Filename: f, Config: l.remainder(f)}
		}
		d.ConfigFiles = append(d.ConfigFiles, cf)
	}
	return loader.LoadWithContext(ctx, d, func(o *loader.Options) {
		o.SetProjectName(string(l.app), true)
		o.Profiles = l.o.Profiles
		o.SkipConsistencyCheck = true // checked here, with lines
		o.SkipResolveEnvironment = true
		o.SkipInclude = l.packaged() // refused here; no file of this machine is opened
		o.Interpolate = &interpolation.Options{
			Substitute: substitute, LookupValue: d.LookupEnv, TypeCastMapping: o.Interpolate.TypeCastMapping,
		}
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

// remainder is a file's content without what was refused.
func (l *load) remainder(abs string) map[string]any {
	out := map[string]any{}
	for _, d := range slices.Backward(l.idx.docs) {

		if d.abs != abs || d.base {
			continue
		}
		if m, ok := d.root.plain(true).(map[string]any); ok {
			delete(m, "version")
			maps.Copy(out, m)
		}
	}
	return out
}
