package cluster

import (
	"net/netip"
	"slices"
	"strings"
)

// Constraint is one expression of Swarm's language: an attribute of nodes that
// must, or must not, have a value. Source: a service's Placement.
type Constraint struct {
	Text  string // as the user wrote it
	Key   string // as Node.Attribute reads it
	Value string
	Not   bool
}

// ParseConstraint reads "node.labels.zone==a" or "node.hostname != x".
func ParseConstraint(text string) (Constraint, error) {
	c := Constraint{Text: text}
	key, value, found := strings.Cut(text, "==")
	if before, after, not := strings.Cut(text, "!="); not && (!found || len(before) < len(key)) {
		key, value, found, c.Not = before, after, true, true
	}
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !found {
		return c, Invalidf("placement constraint %q has neither == nor !=: write for example node.labels.zone==a", text)
	}
	if value == "" {
		return c, Invalidf("placement constraint %q has no value after its operator", text)
	}
	k, err := ParseAttribute(key)
	if err != nil {
		return c, Invalidf("placement constraint %q: %w", text, err)
	}
	c.Key, c.Value = k, value
	return c, nil
}

// ParseAttribute checks the name of an attribute of nodes. The fixed parts of a
// name are read in any case, as Swarm does; labels as they are.
func ParseAttribute(key string) (string, error) {
	lower := strings.ToLower(key)
	switch lower {
	case "node.id", "node.hostname", "node.role", "node.ip", "node.platform.os", "node.platform.arch":
		return lower, nil
	}
	for _, prefix := range []string{"node.labels.", "engine.labels."} {
		if strings.HasPrefix(lower, prefix) {
			if name := key[len(prefix):]; name != "" {
				return prefix + name, nil
			}
		}
	}
	return "", Invalidf("%q is not an attribute of nodes: there are node.id, node.hostname, node.role, node.ip, node.platform.os, node.platform.arch, node.labels.NAME and engine.labels.NAME", key)
}

// Attribute returns what a node has as key, a name that ParseAttribute returned;
// "" when it has none.
func (n *Node) Attribute(key string) string {
	switch key {
	case "node.id":
		return string(n.ID)
	case "node.hostname":
		return n.Info.Hostname
	case "node.ip":
		return n.Info.Address
	case "node.platform.os":
		return n.Info.OS
	case "node.platform.arch":
		return NormalArch(n.Info.Arch)
	case "node.role":
		if n.HasRole("server") {
			return "manager"
		}
		return "worker"
	}
	if name, ok := strings.CutPrefix(key, "node.labels."); ok {
		return n.Labels[name]
	}
	return n.Info.Labels[strings.TrimPrefix(key, "engine.labels.")]
}

// Holds reports whether the node satisfies c. Values are compared in any case.
func (c Constraint) Holds(n *Node) bool { return c.equal(n) != c.Not }

func (c Constraint) equal(n *Node) bool {
	switch c.Key {
	case "node.role":
		// Fairlead's own roles are read beside Swarm's two.
		if slices.ContainsFunc(n.Info.Roles, func(r string) bool { return strings.EqualFold(r, c.Value) }) {
			return true
		}
	case "node.platform.arch":
		return strings.EqualFold(n.Attribute(c.Key), NormalArch(c.Value))
	case "node.ip":
		return inside(n.Info.Address, c.Value)
	}
	return strings.EqualFold(n.Attribute(c.Key), c.Value)
}

// inside reports whether an address is, or is in the range, want.
func inside(addr, want string) bool {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return false
	}
	if p, err := netip.ParsePrefix(want); err == nil {
		return p.Contains(a)
	}
	w, err := netip.ParseAddr(want)
	return err == nil && a == w
}

// NormalArch gives the name that Go and image platforms use to what kernels and users write.
func NormalArch(s string) string {
	switch s = strings.ToLower(s); s {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l", "armhf":
		return "arm"
	case "i386", "i686":
		return "386"
	}
	return s
}
