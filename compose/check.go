package compose

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"

	"github.com/fairlead/fairlead/cluster"
)

// maxItems bounds a list: some are compared item by item.
const maxItems = 2000

// check examines one document as written: unknown keys, keys that are not
// honoured, values of a wrong type. What is refused is marked bad.
func (l *load) check(d *doc) {
	if d.base {
		l.checkBase(d)
		return
	}
	l.checkKeys(d, d.root, keyTree(), nil)
	l.checkNames(d)
	l.checkTwice(d)
	l.checkExternal(d)
	l.checkLabelFiles(d)
	l.checkExtensions(d)
	l.checkSchema(d)
}

// checkBase examines only the services that others extend: nothing else of
// that file is used.
func (l *load) checkBase(d *doc) {
	used := map[string]bool{}
	for _, list := range l.idx.ext {
		for _, e := range list {
			if slices.Contains(e.docs, d) {
				used[e.base] = true
			}
		}
	}
	services := d.root.get("services")
	if services == nil {
		return
	}
	kept := &node{kind: mapNode, line: services.line}
	for _, e := range services.entries {
		if used[e.key] {
			kept.entries = append(kept.entries, e)
		}
	}
	part := &doc{file: d.file, abs: d.abs, dir: d.dir, root: &node{kind: mapNode, line: 1, entries: []entry{{key: "services", line: services.line, val: kept}}}}
	l.checkKeys(part, part.root, keyTree(), nil)
	l.checkTwice(part)
	l.checkLabelFiles(part)
	l.checkExtensions(part)
	l.checkSchema(part)
}

// checkKeys compares the keys of a mapping, and those below, with the table.
func (l *load) checkKeys(d *doc, n *node, k *keyNode, path []string) {
	switch n.kind {
	case listNode:
		if len(n.items) > maxItems {
			l.refuse(cluster.Source{File: d.file, Line: n.line}, dotted(path...), fmt.Sprintf("a list of %d; at most %d", len(n.items), maxItems), "")
			n.bad = true
			return
		}
		if c := k.children["[]"]; c != nil {
			for i, it := range n.items {
				l.checkKeys(d, it, c, append(slices.Clone(path), "["+strconv.Itoa(i)+"]"))
			}
		}
	case mapNode:
		if len(k.children) == 0 {
			return // a value that may be a mapping, or a wrong type: the schema knows
		}
		for i := range n.entries {
			l.checkKey(d, &n.entries[i], k, append(slices.Clone(path), n.entries[i].key))
		}
	case scalarNode:
		if k.typ != 0 {
			l.checkValue(d, n, k.typ, dotted(path...))
		}
	case nullNode:
	}
}

func (l *load) checkKey(d *doc, e *entry, k *keyNode, path []string) {
	at, name := cluster.Source{File: d.file, Line: e.line}, dotted(path...)
	c := k.child(e.key)
	switch {
	case c == nil && strings.HasPrefix(e.key, "x-"):
		l.checkExtension(at, e, k, name)
	case c == nil:
		l.refuse(at, name, "unknown key", didYouMean(e.key, k.names()))
		e.val.bad = true
	case l.packaged() && !l.secretFiles(path) && outside(path) != "" && !e.val.empty():
		l.refuse(at, name, "a package brings all it needs, and this is of the machine that installs it", outside(path))
		e.val.bad = true
	case (c.rule.use == refused || c.rule.use == warned) && l.replaced(d, path):
	case c.rule.use != honoured && l.o.NoBuild && below(path, "build"):
	case c.rule.use == refused && c.rule.asks(e.val):
		l.refuse(at, name, "not supported", c.rule.note)
		e.val.bad = true
	case c.rule.use == warned && (c.rule.asks(e.val) || e.key == "version"):
		l.warn(at, name, "ignored", c.rule.note)
	case c.rule.use == honoured && !c.rule.free:
		l.checkKeys(d, e.val, c, path)
	}
}

// below reports whether a path leads into what a service says of key.
func below(path []string, key string) bool {
	return len(path) > 3 && path[0] == "services" && path[2] == key
}

// replaced reports whether a stronger file takes back what d says at path, by !reset or
// !override.
func (l *load) replaced(d *doc, path []string) bool {
	for _, stronger := range l.idx.docs[:max(0, slices.Index(l.idx.docs, d))] {
		n := stronger.root
		for _, step := range path {
			if n = n.get(step); n == nil {
				break
			}
			if n.tag == "!reset" || n.tag == "!override" {
				return true
			}
		}
	}
	return false
}

// checkExtension looks at an x- key: Compose ignores those, but not ours.
func (l *load) checkExtension(at cluster.Source, e *entry, k *keyNode, name string) {
	switch {
	case e.key == "x-fairlead":
		l.refuse(at, name, "x-fairlead does not belong here", "it goes at the top of the file, into a service, or into a secret")
		e.val.bad = true
	case k.children["x-fairlead"] != nil && distance(e.key, "x-fairlead", 4) < 4:
		l.refuse(at, name, "unknown key", "did you mean x-fairlead?")
		e.val.bad = true
	}
}

// checkNames refuses names that cannot be keys, DNS labels or file names.
func (l *load) checkNames(d *doc) {
	for _, section := range []string{"services", "networks", "volumes", "secrets", "configs"} {
		s := d.root.get(section)
		if s == nil || s.kind != mapNode {
			continue
		}
		for _, e := range s.entries {
			var err error
			if section == "services" {
				err = cluster.ValidServiceName(cluster.ServiceName(e.key))
			} else {
				err = cluster.ValidName(strings.TrimSuffix(section, "s"), e.key)
			}
			if err != nil {
				l.refuse(cluster.Source{File: d.file, Line: e.line}, dotted(section, shorten(e.key)), shortened(err.Error()), "")
				e.val.bad = true
			}
		}
	}
	if s := d.root.get("services"); s != nil && s.kind == mapNode {
		seen := map[string]entry{}
		for _, e := range s.entries {
			low := strings.ToLower(e.key)
			if first, dup := seen[low]; dup {
				l.refuse(cluster.Source{File: d.file, Line: e.line}, dotted("services", e.key),
					fmt.Sprintf("differs from %s (line %d) only in case; names do not distinguish it", first.key, first.line), "")
			}
			seen[low] = e
		}
	}
}

// checkLabelFiles refuses label files that cannot be read, of which compose-go
// says no place.
func (l *load) checkLabelFiles(d *doc) {
	services := d.root.get("services")
	if services == nil || services.kind != mapNode {
		return
	}
	for _, s := range services.entries {
		e := s.val.entry("label_file")
		if e == nil {
			continue
		}
		files := []*node{e.val}
		if e.val.kind == listNode {
			files = e.val.items
		}
		for _, n := range files {
			f := n.value
			if n.kind != scalarNode || n.bad || f == "" || strings.HasPrefix(f, "~") {
				continue
			}
			if !filepath.IsAbs(f) {
				f = filepath.Join(d.dir, f)
			}
			content, err := readLimited(f, maxFileSize)
			if err == nil {
				err = parseLabels(content)
			}
			if err != nil {
				l.refuse(cluster.Source{File: d.file, Line: n.line}, dotted("services", s.key, "label_file"), fmt.Sprintf("cannot read %s: %s", l.show(f), sizeCause(err, maxFileSize)), "")
				n.bad = true
			}
		}
	}
}

// parseLabels says what is wrong with a label file.
func parseLabels(content []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	_, err = dotenv.ParseWithLookup(bytes.NewReader(content), func(string) (string, bool) { return "", false })
	return err
}

// checkExternal warns of the old way to name what is external.
func (l *load) checkExternal(d *doc) {
	for _, section := range []string{"networks", "volumes", "secrets", "configs"} {
		s := d.root.get(section)
		if s == nil || s.kind != mapNode {
			continue
		}
		for _, e := range s.entries {
			if n := e.val.get("external").entry("name"); n != nil && !e.val.bad {
				l.warn(cluster.Source{File: d.file, Line: n.line}, dotted(section, e.key, "external", "name"), "an old way to write the name", "write external: true, and name: "+n.val.value)
			}
		}
	}
}

func shorten(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func shortened(s string) string {
	if len(s) > 300 {
		return s[:100] + "…" + s[len(s)-120:]
	}
	return s
}

// checkTwice refuses what compose-go would drop in silence: the earlier of two
// things at one path, or of two values of one variable or label, within one list.
func (l *load) checkTwice(d *doc) {
	services := d.root.get("services")
	if services == nil || services.kind != mapNode {
		return
	}
	for _, s := range services.entries {
		for _, key := range []string{
			"volumes", "tmpfs", "devices", "secrets", "configs",
			"environment", "labels", "deploy.labels", "sysctls", "build.args", "build.labels",
		} {
			list := s.val
			for step := range strings.SplitSeq(key, ".") {
				list = list.get(step)
			}
			if list != nil && list.kind == listNode {
				l.listedTwice(d, list, key, dotted("services", s.key, key))
			}
		}
	}
}

func (l *load) listedTwice(d *doc, list *node, key, where string) {
	seen := map[string]*node{}
	for _, it := range list.items {
		k, target := targetIn(key, it)
		first, dup := seen[k]
		at := cluster.Source{File: d.file, Line: it.line}
		switch {
		case k == "" || it.bad:
		case dup && target && ((key != "secrets" && key != "configs") || listKey(first) != listKey(it)):
			l.refuse(at, where, fmt.Sprintf("%s is mounted twice (first on line %d)", quote(k), first.line), "")
		case dup:
			l.warn(at, where, fmt.Sprintf("%s is set twice (first on line %d): this value counts", k, first.line), "")
		default:
			seen[k] = it
		}
	}
}

// targetIn is what an item of a list is about: a path in the container, or the name of
// a variable, a label or the like.
func targetIn(key string, it *node) (k string, target bool) {
	from := map[string]string{"secrets": "/run/secrets", "configs": "/"}[key]
	parts := strings.Split(it.value, ":")
	switch key {
	case "volumes":
		return mountTarget(it), true
	case "tmpfs":
		return path.Clean(parts[0]), parts[0] != ""
	case "devices":
		k = parts[min(1, len(parts)-1)]
	case "secrets", "configs":
		k = it.value
	default:
		k, _, _ = strings.Cut(it.value, "=")
		return k, false
	}
	if it.kind == mapNode {
		k = ""
		for _, of := range []string{"source", "target"} {
			if n := it.get(of); n != nil && n.value != "" {
				k = n.value
			}
		}
	}
	if k != "" && !path.IsAbs(k) {
		k = path.Join(from, k)
	}
	return k, true
}
