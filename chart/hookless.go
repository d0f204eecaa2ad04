package chart

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/cluster"
)

// WithoutHooks leaves out the services that are hooks, or with tests those alone that are
// tests. What has none of them stays as the templates wrote it.
func (r *Rendered) WithoutHooks(tests bool) error {
	is := map[string]bool{} // one may say it, and another more of the same service
	for _, name := range r.Documents() {
		for _, doc := range mappings([]byte(r.Files[name])) {
			services, _ := servicesOf(doc)
			for i := 0; i+1 < len(services.Content); i += 2 {
				if isHook(services.Content[i+1], tests) {
					is[services.Content[i].Value] = true
				}
			}
		}
	}
	for _, name := range r.Documents() {
		if len(is) == 0 {
			break
		}
		text, err := without([]byte(r.Files[name]), is)
		if err != nil {
			return cluster.Invalidf("%s: its hooks cannot be left out: %w", name, err)
		}
		r.Files[name] = text
	}
	return nil
}

// without leaves services out of a file.
func without(content []byte, services map[string]bool) (string, error) {
	var docs []*yaml.Node
	found := false
	for dec := yaml.NewDecoder(bytes.NewReader(content)); ; {
		y := &yaml.Node{}
		err := decode(dec, y)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if len(y.Content) > 0 && y.Content[0].Kind == yaml.MappingNode && drop(y.Content[0], services) {
			found = true
			if len(y.Content[0].Content) == 0 {
				continue
			}
		}
		docs = append(docs, y)
	}
	switch {
	case !found:
		return string(content), nil
	case docs == nil:
		return "", nil
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, y := range docs {
		if err := enc.Encode(y); err != nil {
			return "", err
		}
	}
	if err := enc.Close(); err != nil {
		return "", err
	}
	for dec := yaml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		err := decode(dec, &yaml.Node{})
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil { // an anchor was in one of them
			return "", err
		}
	}
}

// servicesOf is the mapping of a document's services, and which of its keys that is below.
func servicesOf(doc *yaml.Node) (services *yaml.Node, at int) {
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value == "services" && doc.Content[i+1].Kind == yaml.MappingNode {
			return doc.Content[i+1], i
		}
	}
	return &yaml.Node{}, 0
}

// drop removes services from a document, and services: where nothing is left of it.
func drop(doc *yaml.Node, names map[string]bool) (found bool) {
	services, at := servicesOf(doc)
	for i := 0; i+1 < len(services.Content); {
		if !names[services.Content[i].Value] {
			i += 2
			continue
		}
		services.Content, found = slices.Delete(services.Content, i, i+2), true
	}
	if found && len(services.Content) == 0 {
		doc.Content = slices.Delete(doc.Content, at, at+2)
	}
	return found
}

// isHook reports whether a service is a hook, or one of test.
func isHook(service *yaml.Node, test bool) bool {
	var s struct {
		Fairlead struct {
			Hook *struct {
				On any `yaml:"on"`
			} `yaml:"hook"`
		} `yaml:"x-fairlead"`
	}
	if service.Decode(&s) != nil || s.Fairlead.Hook == nil {
		return false // what is no service is said elsewhere
	}
	var on []string
	switch v := s.Fairlead.Hook.On.(type) {
	case string:
		on = strings.Split(v, ",")
	case []any:
		for _, x := range v {
			if e, is := x.(string); is {
				on = append(on, e)
			}
		}
	}
	return !test || slices.ContainsFunc(on, func(e string) bool { return strings.TrimSpace(e) == string(cluster.HookTest) })
}
