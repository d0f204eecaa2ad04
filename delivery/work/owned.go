package work

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// owned says which files of a tree are a delivery's own, by the names that they have in it:
// a package's directory and values, or the Compose files with those that they include and
// extend. What another delivery of the repository has is that one's to write.
func owned(tree *object.Tree, d cluster.Delivery) func(name string) bool {
	top := path.Join(d.Path) // "" for the top directory
	at := func(f string) string { return path.Join(top, f) }
	own := map[string]bool{}
	if d.Package != "" {
		for _, f := range d.Values {
			own[at(f)] = true
		}
		dir := at(d.Package)
		return func(name string) bool { return own[name] || dir == "." || strings.HasPrefix(name, dir+"/") }
	}
	const most = 1000
	todo := composeNames(tree, d)
	for i, f := range todo {
		todo[i] = at(f)
	}
	for ; len(todo) > 0 && len(own) < most; todo = todo[1:] {
		name := todo[0]
		if own[name] {
			continue
		}
		content, link := readFile(tree, name)
		if content == nil {
			continue
		}
		own[name] = true
		dir := path.Dir(name)
		if link {
			todo = append(todo, path.Join(dir, string(content)))
			continue
		}
		for _, f := range brings(content) {
			todo = append(todo, path.Join(dir, f), at(f)) // whichever is there
		}
	}
	return func(name string) bool { return own[name] }
}

// composeFileRE is the line of an env file that names Compose files.
var composeFileRE = regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?COMPOSE_FILE[ \t]*=[ \t]*["']?([^"'#\r\n]*)`)

// composeNames are the Compose files that a delivery may begin with.
func composeNames(tree *object.Tree, d cluster.Delivery) []string {
	if len(d.Compose) > 0 {
		return slices.Clone(d.Compose)
	}
	out := slices.Concat(compose.FileNames(), compose.OverrideFileNames())
	lists := []string{d.Env["COMPOSE_FILE"]}
	for _, f := range append([]string{".env"}, d.EnvFiles...) {
		content, _ := readFile(tree, path.Join(d.Path, f))
		for _, m := range composeFileRE.FindAllSubmatch(content, -1) {
			lists = append(lists, string(m[1]))
		}
	}
	for _, l := range lists {
		for f := range strings.SplitSeq(l, ":") {
			if f = strings.TrimSpace(f); f != "" {
				out = append(out, f)
			}
		}
	}
	return out
}

// readFile is what a file of a tree says, nil where there is none that could have marks;
// link: it is a link to that.
func readFile(tree *object.Tree, name string) (content []byte, link bool) {
	entry, err := tree.FindEntry(name)
	if err != nil || !entry.Mode.IsFile() {
		return nil, false
	}
	f, err := tree.TreeEntryFile(entry)
	if err != nil || f.Size > maxYAML {
		return nil, false
	}
	if content, err = contents(&f.Blob); err != nil {
		return nil, false
	}
	return content, entry.Mode == filemode.Symlink
}

// brings are the files that a Compose file includes and extends, as it names them.
func brings(content []byte) (out []string) {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc struct {
			Include  []yaml.Node `yaml:"include"`
			Services map[string]struct {
				Extends yaml.Node `yaml:"extends"`
			} `yaml:"services"`
		}
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out
		}
		if _, odd := errors.AsType[*yaml.TypeError](err); err != nil && !odd {
			return out // what is wrong is said when it is loaded
		}
		for _, n := range doc.Include {
			var one string
			var long struct {
				Path yaml.Node `yaml:"path"`
			}
			var list []string
			switch {
			case n.Decode(&one) == nil:
				out = append(out, one)
			case n.Decode(&long) != nil:
			case long.Path.Decode(&one) == nil:
				out = append(out, one)
			case long.Path.Decode(&list) == nil:
				out = append(out, list...)
			}
		}
		for _, s := range slices.Sorted(maps.Keys(doc.Services)) {
			var e struct {
				File string `yaml:"file"`
			}
			if n := doc.Services[s].Extends; n.Decode(&e) == nil && e.File != "" {
				out = append(out, e.File)
			}
		}
	}
}
