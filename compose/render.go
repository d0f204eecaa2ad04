package compose

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/cluster"
)

// render writes the merged document, and makes sure that no secret's value got
// into it by interpolation.
func (c *converter) render() {
	p := *c.p
	p.Configs = maps.Clone(p.Configs)
	maps.DeleteFunc(p.Configs, func(name string, _ types.ConfigObjConfig) bool {
		return !slices.ContainsFunc(c.res.Configs, func(used cluster.Config) bool { return used.Name == name })
	})
	if !c.packaged() { // hooks are left out
		p.Services = maps.Clone(p.Services)
		maps.DeleteFunc(p.Services, func(name string, _ types.ServiceConfig) bool { return c.isHook(name) })
	}
	out, err := marshal(&p)
	if err != nil {
		c.refuse(c.idx.at("services"), "", "cannot be rendered: "+err.Error(), "")
		return
	}
	var root yaml.Node
	if err := yaml.Unmarshal(out, &root); err != nil {
		c.refuse(c.idx.at("services"), "", "cannot be rendered: "+err.Error(), "")
		return
	}
	values := c.leaks()
	if len(values) > 0 && mask(&root, values) {
		var b bytes.Buffer
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		if err := enc.Encode(&root); err != nil {
			c.refuse(c.idx.at("services"), "", "cannot be rendered: "+err.Error(), "")
			return
		}
		out = b.Bytes()
	}
	c.res.Rendered = out
}

func marshal(p *types.Project) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return p.MarshalYAML()
}

// leaks returns the secrets' values, and warns of variables that hold one.
func (c *converter) leaks() []string {
	const short = 4 // shorter values stand in other words by chance
	var values []string
	for _, s := range c.res.Secrets {
		v := strings.TrimRight(string(s.Value.Reveal()), "\r\n")
		if !s.HasValue || len(v) < short {
			continue
		}
		values = append(values, v)
		for name, svc := range c.res.Services {
			for k, env := range svc.Task.Env {
				if strings.Contains(env, v) {
					c.say("holds the value of the secret "+s.Name+" in clear", "use x-fairlead: {secret_env: {"+k+": "+s.Name+"}}", string(name), "environment", k)
				}
			}
		}
	}
	return values
}

// mask replaces values in every scalar below n, and reports whether it did.
func mask(n *yaml.Node, values []string) bool {
	found := false
	if n.Kind == yaml.ScalarNode {
		for _, v := range values {
			if strings.Contains(n.Value, v) {
				n.Value, found = strings.ReplaceAll(n.Value, v, "[secret]"), true
			}
		}
	}
	for _, c := range n.Content {
		found = mask(c, values) || found
	}
	return found
}

// Written is an interpolated document as a file has it, where a dollar sign begins a
// variable: read again, it means what it meant.
func Written(document string) (string, error) {
	if !strings.Contains(document, "$") {
		return document, nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(document), &root); err != nil {
		return "", fmt.Errorf("the document: %w", err)
	}
	doubled(&root)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&root); err != nil {
		return "", fmt.Errorf("the document: %w", err)
	}
	return b.String(), nil
}

// doubled writes the dollar signs of every value below n twice: in keys they begin nothing.
func doubled(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		n.Value = strings.ReplaceAll(n.Value, "$", "$$")
	}
	for i, c := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 {
			doubled(c)
		}
	}
}
