package proxyconf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestRules(t *testing.T) {
	for _, good := range []string{
		"Host(`a.example.com`)", `Host("a") && PathPrefix("/x")`, "host(`a`) || PATH(`/b`)", "Hostregexp(`^.+$`)",
		"!(Host(`a`) || Host(`b`)) && Method(`GET`)", "Header(`X`, `y`) && Query(`k`) && Query(`k`, `v`)", "ClientIP(`10.0.0.0/8`)",
	} {
		if _, err := parseRule(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"":                         "empty",
		"Host(`a`":                 "parse",
		"Host(`a`, `b`)":           "Traefik 3",
		"Host()":                   "takes 1",
		"Host(a)":                  "strings",
		"Host(``)":                 "empty",
		"Hots(`a`)":                "not an HTTP matcher",
		"HostSNI(`a`)":             "not an HTTP matcher",
		"Host(`a`) + Host(`b`)":    "operator",
		"Path(`x`)":                "slash",
		"PathRegexp(`(`)":          "PathRegexp",
		"ClientIP(`fe80::1%eth0`)": "IP",
		"ClientIP(`x`)":            "IP",
		"Host(`müller.de`)":        "xn--",
		"Host(`*.a`)":              "HostRegexp",
		"`a`":                      "matchers",
		"func() {}":                "matchers",
		"Host(`a`)\x00":            "control",
		"a.Host(`b`)":              "matchers",
		"Host(`a`) && " + strings.Repeat("(", 200) + "Host(`b`)" + strings.Repeat(")", 200): "nested",
		strings.Repeat("Host(`a`) || ", 500) + "Host(`a`)":                                  "characters",
	} {
		if _, err := parseRule(bad); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60q: %v, not %q", bad, err, says)
		}
	}
}

func TestClassOfARule(t *testing.T) {
	for rule, want := range map[string]int{
		"Host(`a`)":                     classHost,
		"Host(`a`) && Path(`/x`)":       classHost,
		"Host(`a`) || Host(`b`)":        classHost,
		"Host(`a`) || Path(`/x`)":       classAny,
		"!Host(`a`)":                    classAny,
		"!(!Host(`a`))":                 classHost,
		"!(Path(`/a`) || !Host(`a`))":   classHost,
		"HostRegexp(`.+`)":              classPattern,
		"HostRegexp(`.+`) && Host(`a`)": classHost,
		"HostRegexp(`.+`) || Host(`a`)": classPattern,
		"PathPrefix(`/`)":               classAny,
		// However many alternatives there are, also where they are too many to list.
		strings.Repeat("(Path(`/a`) || Path(`/b`)) && ", 60) + "Host(`a`)":         classHost,
		strings.Repeat("(Host(`a`) || Host(`b`)) && ", 60) + "HostRegexp(`.+`)":    classHost,
		strings.Repeat("(Host(`a`) || HostRegexp(`b`)) && ", 60) + "Path(`/a`)":    classPattern,
		strings.Repeat("Host(`a`) || ", 300) + "Host(`b`)":                         classHost,
		strings.Repeat("Host(`a`) || ", 300) + "Path(`/b`)":                        classAny,
		"!(" + strings.Repeat("(Host(`a`) && Path(`/b`)) || ", 60) + "Host(`b`))":  classAny,
		"!(" + strings.Repeat("(!Host(`a`) && Path(`/b`)) || ", 60) + "Path(`/`))": classAny,
	} {
		parsed, err := parseRule(rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed.class; got != want {
			t.Errorf("%s: class %d, not %d", rule, got, want)
		}
	}
}

// TestClaimsOfManyAlternatives: a host among hundreds is claimed all the same.
func TestClaimsOfManyAlternatives(t *testing.T) {
	var hosts []string
	for i := range 200 {
		hosts = append(hosts, fmt.Sprintf("Host(`h%d`)", i))
	}
	old := service("a", "many", 1, cluster.Route{Rule: strings.Join(hosts, " || "), Port: 80})
	_, refused := apply(nil, Plan(Snapshot{Services: []cluster.Service{old, service("b", "one", 2, cluster.Route{Host: "h150", Port: 80})}}))
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, "a/many") {
		t.Errorf("a host that another app has: %v", refused)
	}
}

func TestMiddlewares(t *testing.T) {
	v := middlewareVocabulary()
	for _, s := range Samples() {
		if _, err := checkMiddleware(v, s); err != nil {
			t.Errorf("sample %s: %v", s.Name, err)
		}
	}
	for name, c := range map[string]struct {
		options map[string]string
		says    string
	}{
		"none":               {nil, "no options"},
		"unknown kind":       {map[string]string{"nosuch/x": "y"}, "no such option"},
		"unknown option":     {map[string]string{"ratelimit/avarage": "7"}, "no such option"},
		"not a number":       {map[string]string{"ratelimit/average": "many"}, "whole number"},
		"leading plus":       {map[string]string{"ratelimit/average": "+7"}, "whole number"},
		"not a boolean":      {map[string]string{"stripprefix/prefixes": "/a", "stripprefix/forceslash": "yes"}, "true nor false"},
		"bare struct":        {map[string]string{"headers": "true"}, "no such option"},
		"bare inner struct":  {map[string]string{"ratelimit/sourcecriterion/ipstrategy": "true"}, "no such option"},
		"two kinds":          {map[string]string{"compress": "true", "retry/attempts": "2"}, "both"},
		"file of the host":   {map[string]string{"forwardauth/tls/cert": "/etc/ssl/cert"}, "files"},
		"key of the host":    {map[string]string{"forwardauth/tls/key": "/etc/ssl/key"}, "files"},
		"plugin":             {map[string]string{"plugin/x/y": "z"}, "not supported"},
		"chain":              {map[string]string{"chain/middlewares": "other"}, "not supported"},
		"same option twice":  {map[string]string{"retry/attempts": "2", "Retry/Attempts": "3"}, "same option"},
		"list twice":         {map[string]string{"stripprefix/prefixes": "/a", "stripprefix/prefixes/0": "/b"}, "twice"},
		"numeric header":     {map[string]string{"headers/customrequestheaders/123": "x"}, "no such option"},
		"header with space":  {map[string]string{"headers/customrequestheaders/X Y": "x"}, "no such option"},
		"header injection":   {map[string]string{"headers/customrequestheaders/X": "a\r\nb"}, "control"},
		"comma in element":   {map[string]string{"stripprefix/prefixes/0": "/a,/b"}, "comma"},
		"bad CIDR":           {map[string]string{"ipallowlist/sourcerange": "10.0.0.0/99"}, "range"},
		"bad regex":          {map[string]string{"redirectregex/regex": "(", "redirectregex/replacement": "x"}, "missing closing"},
		"bad expression":     {map[string]string{"circuitbreaker/expression": "os.Exit(1) > 2"}, "means nothing"},
		"exclusive":          {map[string]string{"compress/includedcontenttypes": "a", "compress/excludedcontenttypes": "b"}, "exclude"},
		"empty part":         {map[string]string{"headers//x": "y"}, "name of an option"},
		"huge":               {map[string]string{"addprefix/prefix": "/" + strings.Repeat("a", maxValue)}, "bytes"},
		"users":              {map[string]string{"basicauth/users": "bob:$apr1$x$y"}, "sealed"},
		"users of the other": {map[string]string{"DigestAuth/Users/0": "bob:realm:hash"}, "sealed"},
	} {
		if _, err := checkMiddleware(v, cluster.Middleware{Name: "m", Options: c.options}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, not %q", name, err, c.says)
		}
	}
}

func TestBadRoutes(t *testing.T) {
	for name, c := range map[string]struct {
		route cluster.Route
		says  string
	}{
		"no port":        {cluster.Route{Host: "x"}, "port"},
		"host with port": {cluster.Route{Host: "x:80", Port: 80}, "host name"},
		"escape":         {cluster.Route{Host: "x`) || Host(`y", Port: 80}, "host name"},
		"path escape":    {cluster.Route{Path: "/`) || Host(`y", Port: 80}, "path"},
		"relative path":  {cluster.Route{Path: "api", Port: 80}, "path"},
		"scheme":         {cluster.Route{Host: "x", Port: 80, Scheme: "ftp"}, "ftp"},
		"not a list":     {cluster.Route{Host: "x", Port: 80, Middlewares: []cluster.Middleware{{Name: "m", Sealed: "x@docker"}}}, "name of ours"},
		"no list at all": {cluster.Route{Host: "x", Port: 80, Middlewares: []cluster.Middleware{{Name: "m"}}}, "no options"},
		"entry point":    {cluster.Route{Host: "x", Port: 80, EntryPoints: []string{"internal"}}, "internal: true"},
	} {
		_, refused := apply(nil, Plan(Snapshot{Services: []cluster.Service{service("a", "b", 1, c.route)}}))
		if len(refused) != 1 || !strings.Contains(refused[0].Reason, c.says) {
			t.Errorf("%s: %v, not %q", name, refused, c.says)
		}
	}
}
