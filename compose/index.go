package compose

import (
	"reflect"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// doc is one YAML document of one file.
type doc struct {
	file string // as shown to the user
	abs  string
	dir  string // what its relative paths start from
	root *node
	env  map[string]string
	// base: read only because a service of another file extends one of its services.
	base bool
}

// index finds the place of anything in the merged model. It looks keys up in
// the documents as written, the last main file first, then included files, then
// along extends: so it survives merging without following how lists are merged.
type index struct {
	docs []*doc            // by precedence, the strongest first
	ext  map[*doc][]extend // extends by document
}

type extend struct {
	service string // that has the key extends
	base    string // service it names
	docs    []*doc // where that is
}

// view is a document, seen as if its service had another name.
type view struct {
	d       *doc
	service string // name within d; "" outside of services
}

// views lists where a path may have been written, by precedence.
func (x *index) views(path []string) []view {
	if len(path) < 2 || path[0] != "services" {
		out := make([]view, 0, len(x.docs))
		for _, d := range x.docs {
			if !d.base {
				out = append(out, view{d: d})
			}
		}
		return out
	}
	var out []view
	var follow func(docs []*doc, service string)
	follow = func(docs []*doc, service string) {
		for _, d := range docs {
			v := view{d, service}
			if d.root.get("services").get(service) == nil || slices.Contains(out, v) {
				continue
			}
			out = append(out, v)
			for _, e := range x.ext[d] {
				if e.service == service {
					follow(e.docs, e.base)
				}
			}
		}
	}
	main := slices.DeleteFunc(slices.Clone(x.docs), func(d *doc) bool { return d.base })
	follow(main, path[1])
	return out
}

func (v view) path(path []string) []string {
	if v.service == "" {
		return path
	}
	p := slices.Clone(path)
	p[1] = v.service
	return p
}

// walk follows path as far as it goes: the line of the last step found, its
// value, and how many steps were found.
func walk(root *node, path []string) (line int, n *node, depth int) {
	n, line = root, root.line
	for i, step := range path {
		switch n.kind {
		case mapNode:
			e := n.entry(step)
			if e == nil {
				return line, n, i
			}
			n, line = e.val, e.line
		case listNode:
			j := slices.IndexFunc(n.items, func(it *node) bool { return listKey(it) == step })
			if j < 0 {
				return line, n, i
			}
			n, line = n.items[j], n.items[j].line
		default:
			return line, n, i
		}
	}
	return line, n, len(path)
}

// listKey is the key of "KEY=value" in the list form of a mapping, or a name in
// a list of names.
func listKey(n *node) string {
	if n.kind == mapNode {
		for _, k := range []string{"source", "path"} {
			if s := n.get(k); s != nil {
				return s.value
			}
		}
		return ""
	}
	k, _, _ := strings.Cut(n.value, "=")
	return k
}

// at returns where path was written, or the nearest key above it that was.
func (x *index) at(path ...string) cluster.Source {
	best, src := -1, cluster.Source{}
	for _, v := range x.views(path) {
		line, _, depth := walk(v.d.root, v.path(path))
		if depth > best {
			best, src = depth, cluster.Source{File: v.d.file, Line: line}
		}
	}
	return src
}

// find returns the value written at path, or nil.
func (x *index) find(path ...string) (*node, *doc) {
	for _, v := range x.views(path) {
		if _, n, depth := walk(v.d.root, v.path(path)); depth == len(path) && n.tag != "!reset" {
			return n, v.d
		}
	}
	return nil, nil
}

// item returns the list item below path that matches, and where it is; without
// one, nil and the place of path.
func (x *index) item(match func(*node) bool, path ...string) (*node, cluster.Source) {
	for _, v := range x.views(path) {
		_, n, depth := walk(v.d.root, v.path(path))
		if depth < len(path) || n.kind != listNode {
			continue
		}
		for _, it := range n.items {
			if match(it) {
				return it, cluster.Source{File: v.d.file, Line: it.line}
			}
		}
	}
	return nil, x.at(path...)
}

// listed is an item of a list, and the document it stands in.
type listed struct {
	n *node
	d *doc
}

// items are those of a service's list as compose-go merges it: what a service
// extends before its own, an earlier file before a later one, no item twice.
func (x *index) items(skip func(*doc, *node) bool, path ...string) []listed {
	var list func(d *doc, service string, below []listed, seen []view) []listed
	list = func(d *doc, service string, below []listed, seen []view) []listed {
		v := view{d, service}
		if d.root.get("services").get(service) == nil || slices.Contains(seen, v) {
			return below
		}
		var mine []listed
		for _, e := range x.ext[d] {
			if e.service != service {
				continue
			}
			if i := slices.IndexFunc(e.docs, func(b *doc) bool { return b.root.get("services").get(e.base) != nil }); i >= 0 {
				mine = list(e.docs[i], e.base, nil, append(seen, v))
			}
		}
		n, replaces := d.root, false
		for _, step := range v.path(path) {
			if n = n.get(step); n == nil {
				break
			}
			replaces = replaces || n.tag == "!reset" || n.tag == "!override"
		}
		if replaces {
			below, mine = nil, nil
		}
		if n != nil && n.kind == listNode && n.tag != "!reset" {
			var own []listed
			for _, it := range n.items {
				if !skip(d, it) {
					own = append(own, listed{it, d})
				}
			}
			mine = appended(mine, own)
		}
		return appended(below, mine)
	}
	var out []listed
	for _, d := range slices.Backward(x.docs) {
		if !d.base {
			out = list(d, path[1], out, nil)
		}
	}
	return out
}

// appended puts one list after another, as merging does, which leaves out what
// is there already.
func appended(below, above []listed) []listed {
	if len(below) == 0 {
		return above
	}
	out := slices.Clone(below)
	for _, p := range above {
		same := func(q listed) bool { return reflect.DeepEqual(q.n.plain(false), p.n.plain(false)) }
		if !slices.ContainsFunc(out, same) {
			out = append(out, p)
		}
	}
	return out
}

// dotted prints a path for a message.
func dotted(path ...string) string {
	return strings.ReplaceAll(strings.Join(path, "."), ".[", "[")
}
