package compose

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
)

const maxRule = 4096

// matchers are Traefik 3's HTTP matchers with the fewest and most arguments.
var matchers = map[string][2]int{
	"ClientIP": {1, 1}, "Method": {1, 1}, "Host": {1, 1}, "HostRegexp": {1, 1},
	"Path": {1, 1}, "PathRegexp": {1, 1}, "PathPrefix": {1, 1},
	"Header": {2, 2}, "HeaderRegexp": {2, 2}, "Query": {1, 2}, "QueryRegexp": {1, 2},
}

// oldMatchers are Traefik 2's, with what to write now.
var oldMatchers = map[string]string{
	"Headers": "Header(`name`, `value`)", "HeadersRegexp": "HeaderRegexp(`name`, `pattern`)",
	"HostHeader": "Host(`name`)", "HostSNI": "Host(`name`)",
}

// checkRule checks a Traefik rule, which is an expression in Go's syntax. host
// is set when the rule is one Host and nothing else.
func checkRule(rule string) (host string, err error) {
	if len(rule) > maxRule {
		return "", fmt.Errorf("the rule has %d characters; at most %d are read", len(rule), maxRule)
	}
	if strings.ContainsFunc(rule, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("the rule holds control characters")
	}
	expr, err := parser.ParseExpr(rule)
	if err != nil {
		return "", fmt.Errorf("the rule %s does not read as Matcher(`value`) joined by && and ||", quote(rule))
	}
	if err := checkExpr(expr, 0); err != nil {
		return "", err
	}
	if call, is := expr.(*ast.CallExpr); is {
		if id, named := call.Fun.(*ast.Ident); named && matcherName(id.Name) == "Host" {
			if lit, text := call.Args[0].(*ast.BasicLit); text {
				host, _ = strconv.Unquote(lit.Value) // checkExpr has read it
			}
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), nil
}

func checkExpr(e ast.Expr, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the rule is nested deeper than %d", maxDepth)
	}
	switch e := e.(type) {
	case *ast.ParenExpr:
		return checkExpr(e.X, depth+1)
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			return checkExpr(e.X, depth+1)
		}
	case *ast.BinaryExpr:
		if e.Op == token.LAND || e.Op == token.LOR {
			if err := checkExpr(e.X, depth+1); err != nil {
				return err
			}
			return checkExpr(e.Y, depth+1)
		}
	case *ast.CallExpr:
		return checkMatcher(e)
	}
	return fmt.Errorf("a rule holds matchers such as Host(`shop.example.com`), joined by && and ||")
}

// matcherName knows a matcher as Traefik does: as documented, in lower, upper or
// title case.
func matcherName(written string) string {
	for m := range matchers {
		lower := strings.ToLower(m)
		if slices.Contains([]string{m, lower, strings.ToUpper(m), m[:1] + lower[1:]}, written) {
			return m
		}
	}
	return ""
}

func checkMatcher(call *ast.CallExpr) error {
	id, named := call.Fun.(*ast.Ident)
	if !named {
		return fmt.Errorf("a rule holds matchers such as Host(`shop.example.com`)")
	}
	name := matcherName(id.Name)
	if name == "" {
		if now := oldMatchers[id.Name]; now != "" {
			return fmt.Errorf("%s is not an HTTP matcher of Traefik 3; write %s", id.Name, now)
		}
		return fmt.Errorf("%s is not an HTTP matcher of Traefik 3", id.Name)
	}
	var args []string
	for _, a := range call.Args {
		lit, text := a.(*ast.BasicLit)
		if !text || lit.Kind != token.STRING {
			return fmt.Errorf("the arguments of %s are texts in backticks", name)
		}
		s, err := strconv.Unquote(lit.Value)
		if err != nil || s == "" {
			return fmt.Errorf("an argument of %s is empty", name)
		}
		args = append(args, s)
	}
	n := matchers[name]
	if len(args) > n[1] && n[1] == 1 {
		return fmt.Errorf("%s takes one value in Traefik 3; write %s(`a`) || %s(`b`)", name, name, name)
	}
	if len(args) < n[0] || len(args) > n[1] || call.Ellipsis != token.NoPos {
		return fmt.Errorf("%s takes %d arguments, this has %d", name, n[1], len(args))
	}
	return checkArgs(name, args)
}

// traefik2 is a pattern with a name, as Traefik 2 had them; in an expression of today it
// would stand for itself, braces and all.
var traefik2 = regexp.MustCompile(`\{[A-Za-z][A-Za-z0-9_]*:`)

func checkArgs(name string, args []string) error {
	last := args[len(args)-1]
	switch name {
	case "Host":
		if !validHost(strings.ToLower(strings.TrimSuffix(last, "."))) {
			return fmt.Errorf("%s is not a host name (for patterns there is HostRegexp)", quote(last))
		}
	case "HostRegexp", "PathRegexp", "HeaderRegexp", "QueryRegexp":
		if strings.HasPrefix(last, "{") || traefik2.MatchString(last) {
			return fmt.Errorf("%s of Traefik 2; write %s(`^…$`) with a plain regular expression", quote(last), name)
		}
		if _, err := regexp.Compile(last); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case "Path", "PathPrefix":
		if !strings.HasPrefix(last, "/") {
			return fmt.Errorf("the path %s does not start with /", quote(last))
		}
	case "ClientIP":
		return checkCIDR(last)
	}
	return nil
}

func checkCIDR(s string) error {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err != nil {
		return fmt.Errorf("%s is neither an IP address nor a range such as 10.0.0.0/8", quote(s))
	}
	return nil
}
