package proxyconf

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// A rule is an expression in Go's syntax over Traefik's matchers (that is how
// Traefik reads it), so Go's own parser reads it here.

// limits on what a user may write into a rule.
const (
	maxRule  = 4096
	maxTerms = 1024 // alternatives looked at when working out what a rule claims
	maxDepth = 64
)

// matchers are Traefik's HTTP matchers with the number of arguments they take.
var matchers = map[string]struct{ min, max int }{
	"ClientIP": {1, 1}, "Method": {1, 1}, "Host": {1, 1}, "HostRegexp": {1, 1},
	"Path": {1, 1}, "PathRegexp": {1, 1}, "PathPrefix": {1, 1},
	"Header": {2, 2}, "HeaderRegexp": {2, 2}, "Query": {1, 2}, "QueryRegexp": {1, 2},
}

// parsed is what a rule says. alternatives is nil when there are too many to tell;
// the class is known all the same.
type parsed struct {
	alternatives []term
	class        int
}

// term is one alternative of a rule: all its matches must hold.
type term []match

type match struct {
	name string
	args []string
	not  bool
}

// parseRule checks a rule. The error says what is wrong for the user.
func parseRule(rule string) (parsed, error) {
	if len(rule) > maxRule {
		return parsed{}, fmt.Errorf("the rule has %d characters; at most %d are taken", len(rule), maxRule)
	}
	if strings.TrimSpace(rule) == "" {
		return parsed{}, fmt.Errorf("the rule is empty")
	}
	if err := plainText(rule); err != nil {
		return parsed{}, fmt.Errorf("the rule %w", err)
	}
	expr, err := parser.ParseExpr(rule)
	if err != nil {
		return parsed{}, fmt.Errorf("the rule does not parse: %w", err)
	}
	return parseExpr(expr, false, 0)
}

func parseExpr(e ast.Expr, not bool, depth int) (parsed, error) {
	if depth > maxDepth {
		return parsed{}, fmt.Errorf("the rule is nested deeper than %d", maxDepth)
	}
	switch e := e.(type) {
	case *ast.ParenExpr:
		return parseExpr(e.X, not, depth+1)
	case *ast.UnaryExpr:
		if e.Op != token.NOT {
			return parsed{}, fmt.Errorf("the operator %s means nothing in a rule", e.Op)
		}
		return parseExpr(e.X, !not, depth+1)
	case *ast.BinaryExpr:
		if e.Op != token.LAND && e.Op != token.LOR {
			return parsed{}, fmt.Errorf("the operator %s means nothing in a rule; use && and ||", e.Op)
		}
		l, err := parseExpr(e.X, not, depth) // a || b || c leans to the left: a list nests nothing
		if err != nil {
			return parsed{}, err
		}
		r, err := parseExpr(e.Y, not, depth+1)
		if err != nil {
			return parsed{}, err
		}
		if (e.Op == token.LOR) != not {
			return parsed{either(l.alternatives, r.alternatives), min(l.class, r.class)}, nil
		}
		return parsed{both(l.alternatives, r.alternatives), max(l.class, r.class)}, nil
	case *ast.CallExpr:
		m, err := matcher(e)
		m.not = not
		return parsed{[]term{{m}}, m.class()}, err
	}
	return parsed{}, fmt.Errorf("a rule holds matchers such as Host(`shop.example.com`), joined by && and ||")
}

// either and both return nil, "too many to tell", beyond maxTerms.
func either(l, r []term) []term {
	if l == nil || r == nil || len(l)+len(r) > maxTerms {
		return nil
	}
	return slices.Concat(l, r)
}

func both(l, r []term) []term {
	if l == nil || r == nil || len(l)*len(r) > maxTerms {
		return nil
	}
	out := make([]term, 0, len(l)*len(r))
	for _, a := range l {
		for _, b := range r {
			out = append(out, slices.Concat(a, b))
		}
	}
	return out
}

func matcher(call *ast.CallExpr) (match, error) {
	id, ok := call.Fun.(*ast.Ident)
	if !ok {
		return match{}, fmt.Errorf("a rule holds matchers such as Host(`shop.example.com`)")
	}
	name := ""
	for m := range matchers {
		// Traefik takes a matcher's name as written, in lower, upper or title case.
		lower := strings.ToLower(m)
		if id.Name == m || id.Name == lower || id.Name == strings.ToUpper(m) || id.Name == strings.ToUpper(m[:1])+lower[1:] {
			name = m
		}
	}
	if name == "" {
		return match{}, fmt.Errorf("%s is not an HTTP matcher of Traefik 3", id.Name)
	}
	args := make([]string, 0, len(call.Args))
	for _, a := range call.Args {
		lit, ok := a.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return match{}, fmt.Errorf("the arguments of %s are strings in backticks or double quotes", name)
		}
		s, err := strconv.Unquote(lit.Value)
		if err != nil || s == "" {
			return match{}, fmt.Errorf("an argument of %s is empty or does not read as a string", name)
		}
		args = append(args, s)
	}
	if n := matchers[name]; len(args) < n.min || len(args) > n.max || call.Ellipsis != token.NoPos {
		return match{}, fmt.Errorf("%s takes %d argument(s) in Traefik 3, this one has %d: write %s(`a`) || %s(`b`)", name, n.min, len(args), name, name)
	}
	return match{name: name, args: args}, checkArgs(name, args)
}

func checkArgs(name string, args []string) error {
	switch name {
	case "Host":
		if !ascii(args[0]) {
			return fmt.Errorf("the host %q is not ASCII: write it in its xn-- form", args[0])
		}
		if strings.Contains(args[0], "*") {
			return fmt.Errorf("the host %q has a wildcard: use HostRegexp", args[0])
		}
	case "HostRegexp", "PathRegexp", "HeaderRegexp", "QueryRegexp":
		if name == "HostRegexp" && !ascii(args[0]) {
			return fmt.Errorf("the host %q is not ASCII: write it in its xn-- form", args[0])
		}
		if _, err := regexp.Compile(args[len(args)-1]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case "Path", "PathPrefix":
		if !strings.HasPrefix(args[0], "/") {
			return fmt.Errorf("the path %q does not start with a slash", args[0])
		}
	case "ClientIP":
		return checkCIDR(args[0])
	}
	return nil
}

// checkCIDR takes an IP address or a range of them.
func checkCIDR(s string) error {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err != nil {
		return fmt.Errorf("%q is neither an IP address nor a range such as 10.0.0.0/8", s)
	}
	return nil
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// Classes of rules: a rule of a higher class wins over one of a lower, whatever
// their priorities, so that no app takes another's host with a general rule.
const (
	classAny     = iota // no host
	classPattern        // a pattern of hosts
	classHost           // hosts by name
)

// class is that of a rule of this match alone. A rule has that of its weakest
// alternative, and an alternative that of its strongest match.
func (m match) class() int {
	switch {
	case m.not:
		return classAny
	case m.name == "Host":
		return classHost
	case m.name == "HostRegexp":
		return classPattern
	}
	return classAny
}

// routeClaims returns what a route claims. A plain route with a path also claims what
// a rule of labels would for that path: it has the same priority (priorityOf), so which
// of the two answered would be left to chance.
func routeClaims(route cluster.Route, text string, rule parsed) []string {
	claims := claimsOf(text, rule.alternatives)
	if p := strings.TrimRight(route.Path, "/"); route.Rule == "" && p != "" {
		for _, t := range rule.alternatives {
			short := slices.Clone(t)
			for i, m := range short {
				if m.name == "Path" || m.name == "PathPrefix" {
					short[i] = match{name: "PathPrefix", args: []string{p}}
				}
			}
			claims = append(claims, claimsOf(text, []term{short})...)
		}
	}
	slices.Sort(claims)
	return slices.Compact(claims)
}

// claimsOf returns what a rule claims, in a form that is equal for equal claims.
func claimsOf(rule string, ts []term) []string {
	if len(ts) == 0 {
		return []string{"rule " + strings.Join(strings.Fields(rule), " ")}
	}
	out := make([]string, 0, len(ts))
	for _, t := range ts {
		parts := make([]string, 0, len(t))
		for _, m := range t {
			args := slices.Clone(m.args)
			switch m.name {
			case "Host":
				args[0] = strings.TrimSuffix(strings.ToLower(args[0]), ".")
			case "Method":
				args[0] = strings.ToUpper(args[0])
			case "PathPrefix":
				if args[0] == "/" {
					continue // matches everything: claims no more than the rest
				}
			}
			s := m.name + "(" + strings.Join(args, "\x00") + ")"
			if m.not {
				s = "!" + s
			}
			parts = append(parts, s)
		}
		slices.Sort(parts)
		out = append(out, strings.Join(slices.Compact(parts), " && "))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
