package proxyconf

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// middlewareVocabulary is what a user may say of a middleware: Traefik 3's own
// options, less those that read files of the gateway's machine, load code, name
// services and middlewares of others, or hold users' passwords.
func middlewareVocabulary() vocabulary {
	v := vocabulary{}
	add := func(at string, options vocabulary) {
		for k, c := range options {
			v[at+"/"+k] = c
		}
	}
	lists := func(at string, element check, names ...string) {
		for _, n := range names {
			v[at+"/"+n], v[at+"/"+n+"/#"] = list(element), single(element)
		}
	}
	all := func(at string, c check, names ...string) {
		for _, n := range names {
			v[at+"/"+n] = c
		}
	}
	positive, any64 := integer(0, math.MaxInt64), integer(-1, math.MaxInt64)

	add("addprefix", vocabulary{"prefix": path})
	lists("stripprefix", path, "prefixes")
	v["stripprefix/forceslash"] = boolean
	lists("stripprefixregex", regex, "regex")
	add("replacepath", vocabulary{"path": path})
	add("replacepathregex", vocabulary{"regex": regex, "replacement": text})
	add("redirectregex", vocabulary{"regex": regex, "replacement": word, "permanent": boolean})
	add("redirectscheme", vocabulary{"scheme": oneOf("http", "https"), "port": integer(1, 65535), "permanent": boolean})

	for _, kind := range []string{"ipallowlist", "ipwhitelist"} {
		lists(kind, checkCIDR, "sourcerange")
		ipStrategy(v, kind+"/ipstrategy")
		v[kind+"/ipstrategy"] = yes
	}
	v["ipallowlist/rejectstatuscode"] = integer(400, 599)

	add("forwardauth", vocabulary{
		"address": httpURL, "trustforwardheader": boolean, "authresponseheadersregex": regex, "headerfield": headerName,
		"forwardbody": boolean, "maxbodysize": any64, "maxresponsebodysize": any64,
		"preservelocationheader": boolean, "preserverequestmethod": boolean,
	})
	lists("forwardauth", headerName, "authresponseheaders", "authrequestheaders", "addauthcookiestoresponse")

	add("ratelimit", vocabulary{"average": positive, "period": duration, "burst": positive})
	add("inflightreq", vocabulary{"amount": positive})
	for _, kind := range []string{"ratelimit", "inflightreq"} {
		ipStrategy(v, kind+"/sourcecriterion/ipstrategy")
		add(kind+"/sourcecriterion", vocabulary{"requestheadername": headerName, "requesthost": boolean})
	}
	all("buffering", positive, "maxrequestbodybytes", "memrequestbodybytes", "maxresponsebodybytes", "memresponsebodybytes")
	v["buffering/retryexpression"] = expression("IsNetworkError", "Attempts", "ResponseCode", "RequestMethod")
	add("circuitbreaker", vocabulary{
		"expression": expression("LatencyAtQuantileMS", "NetworkErrorRatio", "ResponseCodeRatio"), "checkperiod": duration, "fallbackduration": duration, "recoveryduration": duration,
		"responsecode": integer(400, 599),
	})
	v["compress"] = yes
	lists("compress", word, "excludedcontenttypes", "includedcontenttypes")
	lists("compress", oneOf("gzip", "br", "zstd"), "encodings")
	add("compress", vocabulary{"minresponsebodybytes": integer(0, math.MaxInt32), "defaultencoding": oneOf("gzip", "br", "zstd", "identity")})
	v["contenttype"], v["contenttype/autodetect"] = yes, boolean
	lists("grpcweb", word, "alloworigins")
	add("retry", vocabulary{"attempts": integer(1, 100), "initialinterval": duration})
	passTLS(v)
	headers(v)
	return v
}

func ipStrategy(v vocabulary, at string) {
	v[at+"/depth"] = integer(0, 100)
	v[at+"/excludedips"], v[at+"/excludedips/#"] = list(checkCIDR), single(checkCIDR)
	v[at+"/ipv6subnet"] = integer(1, 128)
}

func passTLS(v vocabulary) {
	const at = "passtlsclientcert/"
	for _, n := range []string{"pem", "info/notafter", "info/notbefore", "info/sans", "info/serialnumber"} {
		v[at+n] = boolean
	}
	for _, who := range []string{"subject", "issuer"} {
		for _, n := range []string{"country", "province", "locality", "organization", "commonname", "serialnumber", "domaincomponent"} {
			v[at+"info/"+who+"/"+n] = boolean
		}
	}
	v[at+"info/subject/organizationalunit"] = boolean
}

func headers(v vocabulary) {
	const at = "headers/"
	for _, n := range []string{"customrequestheaders", "customresponseheaders", "sslproxyheaders"} {
		v[at+n+"/*"] = text
	}
	for _, n := range []string{
		"accesscontrolallowcredentials", "addvaryheader", "stsincludesubdomains", "stspreload", "forcestsheader",
		"framedeny", "contenttypenosniff", "browserxssfilter", "isdevelopment",
	} {
		v[at+n] = boolean
	}
	for _, n := range []string{
		"accesscontrolallowheaders", "accesscontrolallowmethods", "accesscontrolalloworiginlist",
		"accesscontrolexposeheaders", "allowedhosts", "hostsproxyheaders",
	} {
		v[at+n], v[at+n+"/#"] = list(word), single(word)
	}
	v[at+"accesscontrolalloworiginlistregex"], v[at+"accesscontrolalloworiginlistregex/#"] = list(regex), single(regex)
	for _, n := range []string{"accesscontrolmaxage", "stsseconds"} {
		v[at+n] = integer(0, math.MaxInt64)
	}
	for _, n := range []string{
		"customframeoptionsvalue", "custombrowserxssvalue", "contentsecuritypolicy", "contentsecuritypolicyreportonly",
		"publickey", "referrerpolicy", "permissionspolicy",
	} {
		v[at+n] = text
	}
}

// single checks one element written under an index of its own. Traefik joins
// such elements with commas and splits them again, so they may hold none.
func single(element check) check {
	return func(v string) error {
		if strings.Contains(v, ",") {
			return fmt.Errorf("%q holds a comma, where Traefik splits it", v)
		}
		return list(element)(v)
	}
}

// expression takes comparisons of the named functions, as the circuit breaker
// and the buffering middleware read them: Go's syntax again.
func expression(functions ...string) check {
	return func(v string) error {
		if err := word(v); err != nil {
			return err
		}
		e, err := parser.ParseExpr(v)
		if err != nil {
			return fmt.Errorf("does not parse: %w", err)
		}
		bad := ""
		ast.Inspect(e, func(n ast.Node) bool {
			switch n := n.(type) {
			case nil, *ast.ParenExpr, *ast.BasicLit, *ast.BinaryExpr, *ast.CallExpr:
			case *ast.UnaryExpr:
				if n.Op != token.NOT && n.Op != token.SUB {
					bad = n.Op.String()
				}
			case *ast.Ident:
				if !slices.Contains(functions, n.Name) {
					bad = n.Name
				}
			default:
				bad = "this"
			}
			return bad == ""
		})
		if _, literal := e.(*ast.BasicLit); bad == "" && literal {
			bad = v
		}
		if _, ident := e.(*ast.Ident); bad == "" && ident {
			bad = v
		}
		if bad != "" {
			return fmt.Errorf("%q means nothing there; it compares %s", bad, strings.Join(functions, ", "))
		}
		return nil
	}
}

const maxOptions = 60

// checkMiddleware returns the pairs of a middleware, in the form they are
// written, or what is wrong with it.
func checkMiddleware(v vocabulary, m cluster.Middleware) (map[string]string, error) {
	if len(m.Options) == 0 {
		return nil, fmt.Errorf("it has no options")
	}
	if len(m.Options) > maxOptions {
		return nil, fmt.Errorf("it has %d options; at most %d are taken", len(m.Options), maxOptions)
	}
	out := make(map[string]string, len(m.Options))
	kind := ""
	seen := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(m.Options)) {
		val := m.Options[k]
		if strings.Contains(k, "//") || strings.HasPrefix(k, "/") || strings.HasSuffix(k, "/") || plainText(k) != nil {
			return nil, fmt.Errorf("%q is not the name of an option", k)
		}
		first, _, _ := strings.Cut(strings.ToLower(k), "/")
		if kind != "" && first != kind {
			return nil, fmt.Errorf("it is both %s and %s: write two middlewares", kind, first)
		}
		kind = first
		c := v.find(k)
		if c == nil {
			return nil, fmt.Errorf("%s: %s", k, unknownOption(kind))
		}
		if err := c(val); err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		// Traefik reads keys without regard to case and keeps one of two.
		if other, dup := seen[strings.ToLower(k)]; dup {
			return nil, fmt.Errorf("%s and %s are the same option", other, k)
		}
		seen[strings.ToLower(k)] = k
		out[canonical(k)] = val
	}
	if err := exclusive(kind, out); err != nil {
		return nil, err
	}
	return out, standalone(kind, out)
}

// exclusive refuses options that Traefik does not take together.
func exclusive(kind string, pairs map[string]string) error {
	groups := map[string][]string{
		"compress":    {"compress/excludedcontenttypes", "compress/includedcontenttypes"},
		"ratelimit":   {"ratelimit/sourcecriterion/ipstrategy", "ratelimit/sourcecriterion/requestheadername", "ratelimit/sourcecriterion/requesthost"},
		"inflightreq": {"inflightreq/sourcecriterion/ipstrategy", "inflightreq/sourcecriterion/requestheadername", "inflightreq/sourcecriterion/requesthost"},
	}
	var used []string
	for _, g := range groups[kind] {
		for k := range pairs {
			if k == g || strings.HasPrefix(k, g+"/") {
				used = append(used, g)
				break
			}
		}
	}
	if len(used) > 1 {
		return fmt.Errorf("%s and %s exclude each other", used[0], used[1])
	}
	return nil
}

// canonical writes an option's key in lower case, all but the name of a header.
func canonical(k string) string {
	parts := strings.Split(k, "/")
	last := len(parts) - 1
	for i, p := range parts {
		if i < last || i < 2 {
			parts[i] = strings.ToLower(p)
		}
	}
	return strings.Join(parts, "/")
}

// standalone refuses combinations that Traefik does not decode: a list written
// both as one value and by index, or "compress=true" beside its options.
func standalone(kind string, pairs map[string]string) error {
	for a := range pairs {
		for b := range pairs {
			if a != b && strings.HasPrefix(strings.ToLower(b), strings.ToLower(a)+"/") && strings.ToLower(a) != kind {
				if yes(pairs[a]) != nil {
					return fmt.Errorf("%s is given twice, as %s and as %s", a, a, b)
				}
			}
		}
	}
	return nil
}

func unknownOption(kind string) string {
	switch kind {
	case cluster.BasicAuth, cluster.DigestAuth:
		return "users reach gateways sealed, never by this way: deploy the app again"
	case "chain", "errors", "plugin":
		return "the middleware " + kind + " is not supported yet"
	}
	return "Traefik 3 has no such option, or it reads files of the gateway's machine"
}
