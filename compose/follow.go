package compose

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/template"

	"github.com/fairlead/fairlead/cluster"
)

// interpolate fills the values of a document from its environment, as
// compose-go will, and reports what cannot be.
func (l *load) interpolate(d *doc, n *node, path []string) {
	switch n.kind {
	case mapNode:
		for _, e := range n.entries {
			l.interpolate(d, e.val, append(slices.Clone(path), e.key))
		}
	case listNode:
		for i, it := range n.items {
			step := "[" + strconv.Itoa(i) + "]"
			if k, _, pair := strings.Cut(it.raw, "="); pair && variableRE.MatchString(k) {
				step = k // an item of environment, labels or args
			}
			l.interpolate(d, it, append(slices.Clone(path), step))
		}
	case scalarNode:
		if strings.Contains(n.raw, "$") {
			l.interpolateScalar(d, n, dotted(path...))
		}
	case nullNode:
	}
}

var variableRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func (l *load) interpolateScalar(d *doc, n *node, path string) {
	at := cluster.Source{File: d.file, Line: n.line}
	var asked []string
	lookup := func(name string) (string, bool) {
		if name == consts.ComposeProjectName && path != "name" {
			return string(l.app), true
		}
		asked = append(asked, name)
		v, ok := d.env[name]
		return v, ok
	}
	v, err := substitute(n.raw, lookup)
	if err != nil {
		if _, ok := errors.AsType[*template.MissingRequiredError](err); ok {
			advice := "set it in the environment or in .env"
			if l.packaged() {
				advice = "write {{ required … .Values.… }}; a dollar sign itself is written $$"
			}
			l.refuse(at, path, err.Error(), advice)
		} else {
			l.refuse(at, path, "invalid interpolation in "+quote(n.raw), "write $$ for a plain $")
		}
		n.bad = true
		return
	}
	n.value = v
	if l.packaged() {
		left := unset(n.raw, lookup)
		for _, name := range left {
			l.refuse(at, path, fmt.Sprintf("the variable %s: a package has values instead", name), "write {{ .Values.… }}; a dollar sign itself is written $$")
			n.bad = true
		}
		for _, name := range slices.Compact(slices.Sorted(slices.Values(asked))) {
			if !slices.Contains(left, name) {
				l.warn(at, path, fmt.Sprintf("the variable %s has its default for good: a package has values instead", name), "write {{ .Values.… }}; a dollar sign itself, as a shell's, is written $$")
			}
		}
		return
	}
	l.warnUnset(at, path, n.raw, lookup)
}

// follow reads what a document includes, and the files its services extend.
func (l *load) follow(d *doc, depth int) {
	if slices.Contains(l.loading, d.abs) {
		return // the cycle is reported where it is closed
	}
	l.loading = append(l.loading, d.abs)
	defer func() { l.loading = l.loading[:len(l.loading)-1] }()
	if inc := d.root.get("include"); inc != nil && inc.kind == listNode && !l.packaged() {
		for i, it := range inc.items {
			l.include(d, it, dotted("include", "["+strconv.Itoa(i)+"]"), depth)
		}
	}
	services := d.root.get("services")
	if services == nil || services.kind != mapNode {
		return
	}
	for _, s := range services.entries {
		l.extends(d, s, depth)
	}
}

func (l *load) include(d *doc, it *node, path string, depth int) {
	at := cluster.Source{File: d.file, Line: it.line}
	paths := []*node{it}
	if it.kind == mapNode {
		paths = nil
		switch p := it.get("path"); {
		case p == nil:
		case p.kind == listNode:
			paths = p.items
		default:
			paths = []*node{p}
		}
	}
	if len(paths) == 0 && it.kind == mapNode {
		l.refuse(at, path, "it names no file", "write path: with the file to include")
		it.bad = true
		return
	}
	var requests []request
	for _, p := range paths {
		if p.kind != scalarNode {
			continue // the schema says so
		}
		abs, ok := l.local(at, path, p.value, d.dir)
		if !ok {
			it.bad = true
			return
		}
		if slices.Contains(l.loading, abs) || depth >= maxIncludeDepth {
			l.refuse(at, path, "include goes in a circle through "+l.show(abs), "")
			it.bad = true
			return
		}
		r := request{abs: abs, by: at, path: path}
		if len(requests) == 0 {
			r.dir, r.env = l.includeEnv(d, it, at, path, filepath.Dir(abs))
		} else { // the first one's are those of all
			r.dir, r.env = requests[0].dir, requests[0].env
		}
		if r.env == nil {
			it.bad = true
			return
		}
		requests = append(requests, r)
	}
	for _, r := range slices.Backward(requests) { // a later one overrides
		docs := l.read(r)
		if docs == nil {
			it.bad = true
			return
		}
		l.idx.docs = append(l.idx.docs, docs...)
		for _, x := range docs {
			l.follow(x, depth+1)
		}
	}
}

// includeEnv is the project directory and environment of an included file.
func (l *load) includeEnv(d *doc, it *node, at cluster.Source, path, dir string) (string, map[string]string) {
	if p := it.get("project_directory"); p != nil && p.kind == scalarNode && p.value != "" {
		dir = p.value
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(d.dir, dir)
		}
	}
	var files []string
	ef := it.get("env_file")
	switch {
	case ef == nil:
		if f := filepath.Join(dir, ".env"); regular(f) {
			files = []string{f}
		}
	case ef.kind == scalarNode:
		files = []string{ef.value}
	case ef.kind == listNode:
		for _, x := range ef.items {
			files = append(files, x.value)
		}
	}
	var abs []string
	for _, f := range files {
		if f == "/dev/null" {
			continue
		}
		if !filepath.IsAbs(f) {
			f = filepath.Join(d.dir, f)
		}
		abs = append(abs, f)
	}
	for _, f := range abs {
		l.warnUnsetIn(f, path+".env_file", d.env)
	}
	env, err := readDotenv(abs, d.env)
	if err != nil {
		l.refuse(at, path+".env_file", err.Error(), "")
		return dir, nil
	}
	if env == nil {
		env = map[string]string{}
	}
	return dir, env
}

var remoteRE = regexp.MustCompile(`^([a-z][a-z0-9+.-]*://|oci:|git@|github\.com/)`)

// local resolves the path of another file; remote ones are refused.
func (l *load) local(at cluster.Source, path, f, dir string) (string, bool) {
	switch {
	case f == "":
		l.refuse(at, path, "the path is empty", "")
		return "", false
	case remoteRE.MatchString(f):
		l.refuse(at, path, quote(f)+" is not a local file", "fetch it first, and name the copy")
		return "", false
	case strings.ContainsRune(f, 0):
		l.refuse(at, path, "the path holds a NUL byte", "")
		return "", false
	}
	if !filepath.IsAbs(f) {
		f = filepath.Join(dir, f)
	}
	return filepath.Clean(f), true
}

// extends records what a service extends, and reads the file when it is another one.
func (l *load) extends(d *doc, s entry, depth int) {
	ext := s.val.get("extends")
	if ext == nil {
		return
	}
	path := dotted("services", s.key, "extends")
	at := cluster.Source{File: d.file, Line: s.val.entry("extends").line}
	e := extend{service: s.key, docs: []*doc{d}}
	file := ""
	switch ext.kind {
	case scalarNode:
		e.base = ext.value
	case mapNode:
		if b := ext.get("service"); b != nil {
			e.base = b.value
		}
		if f := ext.get("file"); f != nil {
			file = f.value
		}
	default:
		return // the schema says so
	}
	if file != "" && l.packaged() {
		ext.bad = true // the key itself is refused
		return
	}
	if file != "" {
		abs, ok := l.local(at, path, file, d.dir)
		if !ok || depth >= maxIncludeDepth {
			ext.bad = true
			return
		}
		e.docs = l.baseDocs(request{abs: abs, dir: filepath.Dir(abs), env: d.env, by: at, path: path, base: true}, depth)
		if e.docs == nil {
			ext.bad = true
			return
		}
	} else {
		// a base may stand in another of the main files, or in an included one
		for _, x := range l.idx.docs {
			if !x.base && x != d {
				e.docs = append(e.docs, x)
			}
		}
	}
	if e.base == "" {
		l.refuse(at, path, "it names no service", "write extends: {service: NAME}, with file: where it is in another file")
		ext.bad = true
		return
	}
	if !slices.ContainsFunc(e.docs, func(x *doc) bool { return x.root.get("services").get(e.base) != nil }) {
		where := e.docs[0].file
		l.refuse(at, path, fmt.Sprintf("there is no service %s in %s", quote(e.base), where), didYouMean(e.base, serviceNames(e.docs)))
		ext.bad = true
		return
	}
	l.idx.ext[d] = append(l.idx.ext[d], e)
	if l.circular(d, s.key) {
		l.refuse(at, path, "extends goes in a circle", "")
		ext.bad = true
	}
}

func (l *load) baseDocs(r request, depth int) []*doc {
	var docs []*doc
	for _, x := range l.idx.docs {
		if x.abs == r.abs && x.base {
			docs = append(docs, x)
		}
	}
	if docs != nil {
		return docs
	}
	docs = l.read(r)
	l.idx.docs = append(l.idx.docs, docs...)
	for _, x := range docs {
		services := x.root.get("services")
		if services == nil || services.kind != mapNode {
			continue
		}
		for _, s := range services.entries {
			l.extends(x, s, depth+1)
		}
	}
	return docs
}

// circular reports whether following extends from a service comes back to it.
func (l *load) circular(d *doc, service string) bool {
	var seen []view
	var visit func(d *doc, s string, first bool) bool
	visit = func(x *doc, s string, first bool) bool {
		if !first && x == d && s == service {
			return true
		}
		v := view{x, s}
		if slices.Contains(seen, v) {
			return false
		}
		seen = append(seen, v)
		for _, e := range l.idx.ext[x] {
			if e.service != s {
				continue
			}
			for _, b := range e.docs {
				if b.root.get("services").get(e.base) != nil && visit(b, e.base, false) {
					return true
				}
			}
		}
		return false
	}
	return visit(d, service, true)
}

func serviceNames(docs []*doc) []string {
	var names []string
	for _, d := range docs {
		if s := d.root.get("services"); s != nil {
			for _, e := range s.entries {
				names = append(names, e.key)
			}
		}
	}
	return names
}

// nameApp decides the app's name: given, else that of the environment, else the
// file's, else the directory's.
func (l *load) nameApp() {
	if l.o.App != "" {
		l.app = l.o.App
		return
	}
	if v := l.env[consts.ComposeProjectName]; v != "" {
		at := l.setBy(consts.ComposeProjectName)
		if at.File != "" {
			l.named = fmt.Sprintf("%s:%d", at.File, at.Line)
		} else {
			l.named = consts.ComposeProjectName
		}
		l.takeName(v, at, consts.ComposeProjectName)
		return
	}
	for _, d := range l.idx.docs {
		n := d.root.get("name")
		if d.base || n == nil || n.kind != scalarNode || n.value == "" || !slices.Contains(l.files, d.abs) {
			continue
		}
		l.named = fmt.Sprintf("%s:%d", d.file, n.line)
		l.takeName(n.value, cluster.Source{File: d.file, Line: n.line}, "name")
		return
	}
	base := filepath.Base(l.o.Dir)
	l.app = appName(base)
	if types := strings.ToLower(base); types != string(l.app) {
		l.warn(cluster.Source{File: l.show(l.files[0])}, "name", fmt.Sprintf("the app is named %s after the directory %s", l.app, quote(base)),
			"write name: in the file to choose another; volumes of an earlier docker compose under another name need a name: of their own")
	}
}

// takeName calls the app what it can be called; another name is refused.
func (l *load) takeName(name string, at cluster.Source, path string) {
	if l.app = cluster.AppName(name); cluster.ValidAppName(l.app) == nil {
		return
	}
	l.app = appName(name)
	advice := ""
	if l.app != "app" {
		advice = "for example " + path + ": " + string(l.app)
		if path != "name" {
			advice = "for example " + path + "=" + string(l.app)
		}
	}
	l.refuse(at, path, fmt.Sprintf("%s cannot name an app: use 1 to 40 lower-case letters, digits and -, starting with a letter or digit", quote(name)), advice)
}

// appName makes a valid app name out of any text.
func appName(s string) cluster.AppName {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r == '_', r == ' ', r == '.':
			return '-'
		}
		return -1
	}, strings.ToLower(s))
	s = strings.Trim(s[:min(len(s), 40)], "-")
	if s == "" {
		return "app"
	}
	return cluster.AppName(s)
}

var (
	composePathRE = regexp.MustCompile(`\b(services|volumes|networks|secrets|configs)(\.[A-Za-z0-9_-]+)+`)
	serviceRE     = regexp.MustCompile(`service "([^"]+)"`)
	lineRE        = regexp.MustCompile(`line (\d+)`)
)

// composeError gives an error of compose-go a place, by the path in its text.
func (l *load) composeError(err error) {
	msg := err.Error()
	if list, several := strings.CutPrefix(msg, "decoding failed due to the following error(s):"); several {
		for line := range strings.SplitSeq(list, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				l.composeProblem(decodedRE.ReplaceAllStringFunc(line, plainPath))
			}
		}
		return
	}
	l.composeProblem(strings.ReplaceAll(msg, "\n", " "))
}

// decodedRE is a path as the decoder writes it: 'services[web].ports[0].target'.
var decodedRE = regexp.MustCompile(`^'[a-z]+(\[[^\]]*\]|\.[A-Za-z0-9_-]+)*'`)

// plainPath is that path as it stands in the file; numbers of items are left out.
func plainPath(decoded string) string {
	path := strings.Trim(decoded, "'")
	path = strings.NewReplacer("[", ".", "]", "").Replace(itemRE.ReplaceAllString(path, ""))
	return path + ":"
}

var itemRE = regexp.MustCompile(`\[[0-9]+\]`)

func (l *load) composeProblem(msg string) {
	for _, f := range l.files {
		msg = strings.ReplaceAll(msg, "validating "+f+": ", "")
		msg = strings.ReplaceAll(msg, f, l.show(f))
	}
	if m := composePathRE.FindString(msg); m != "" {
		path := strings.Split(m, ".")
		text, advice := strings.TrimLeft(strings.Replace(msg, m, "", 1), ": "), ""
		if path[0] == "secrets" && strings.HasPrefix(text, "one of ") {
			advice = "write external: true for one that is in the store, or generated"
		}
		l.refuse(l.idx.at(path...), m, text, advice)
		return
	}
	if m := serviceRE.FindStringSubmatch(msg); m != nil {
		l.refuse(l.idx.at("services", m[1]), dotted("services", m[1]), msg, "")
		return
	}
	at := l.idx.at("services")
	if m := lineRE.FindStringSubmatch(msg); m != nil {
		at.Line, _ = strconv.Atoi(m[1]) // digits: cannot fail
	}
	l.refuse(at, "", msg, "")
}
