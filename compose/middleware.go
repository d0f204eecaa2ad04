package compose

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// middlewareOptions are Traefik 3's middlewares with their options, each with the
// type of its value: s text, b boolean, i whole number, d duration, l list of
// texts, r regular expression, R list of those, c list of addresses, p path, P
// list of those, u list of name:hash, m the user's own keys. Left out is what
// reads files of the gateway's machine or loads code.
func middlewareOptions() map[string]string {
	ip := " %s/depth:i %s/excludedips:c %s/ipv6subnet:i"
	strategy := func(at string) string { return strings.ReplaceAll(ip, "%s", at) }
	criterion := strategy("sourcecriterion/ipstrategy") + " sourcecriterion/requestheadername:s sourcecriterion/requesthost:b"
	dn := func(who string) string {
		var b strings.Builder
		for _, n := range []string{"country", "province", "locality", "organization", "commonname", "serialnumber", "domaincomponent"} {
			b.WriteString(" info/" + who + "/" + n + ":b")
		}
		return b.String()
	}
	auth := "users:u realm:s removeheader:b headerfield:s"
	return map[string]string{
		"addprefix": "prefix:p", "stripprefix": "prefixes:P forceslash:b", "stripprefixregex": "regex:R",
		"replacepath": "path:p", "replacepathregex": "regex:r replacement:s",
		"redirectregex": "regex:r replacement:s permanent:b", "redirectscheme": "scheme:s port:i permanent:b",
		"ipallowlist": "sourcerange:c rejectstatuscode:i" + strategy("ipstrategy"), "ipwhitelist": "sourcerange:c" + strategy("ipstrategy"),
		"basicauth": auth, "digestauth": auth,
		"forwardauth": "address:s trustforwardheader:b authresponseheaders:l authresponseheadersregex:r authrequestheaders:l " +
			"addauthcookiestoresponse:l headerfield:s forwardbody:b maxbodysize:i maxresponsebodysize:i preservelocationheader:b preserverequestmethod:b",
		"ratelimit": "average:i period:d burst:i" + criterion, "inflightreq": "amount:i" + criterion,
		"buffering":      "maxrequestbodybytes:i memrequestbodybytes:i maxresponsebodybytes:i memresponsebodybytes:i retryexpression:s",
		"circuitbreaker": "expression:s checkperiod:d fallbackduration:d recoveryduration:d responsecode:i",
		"compress":       ":b excludedcontenttypes:l includedcontenttypes:l minresponsebodybytes:i encodings:l defaultencoding:s",
		"contenttype":    ":b autodetect:b", "grpcweb": "alloworigins:l", "retry": "attempts:i initialinterval:d",
		"passtlsclientcert": "pem:b info/notafter:b info/notbefore:b info/sans:b info/serialnumber:b info/subject/organizationalunit:b" + dn("subject") + dn("issuer"),
		"headers": "customrequestheaders:m customresponseheaders:m sslproxyheaders:m accesscontrolallowcredentials:b accesscontrolallowheaders:l " +
			"accesscontrolallowmethods:l accesscontrolalloworiginlist:l accesscontrolalloworiginlistregex:R accesscontrolexposeheaders:l " +
			"accesscontrolmaxage:i addvaryheader:b allowedhosts:l hostsproxyheaders:l stsseconds:i stsincludesubdomains:b stspreload:b " +
			"forcestsheader:b framedeny:b customframeoptionsvalue:s contenttypenosniff:b browserxssfilter:b custombrowserxssvalue:s " +
			"contentsecuritypolicy:s contentsecuritypolicyreportonly:s publickey:s referrerpolicy:s permissionspolicy:s isdevelopment:b",
	}
}

// middlewareOption checks one option, given as the label's parts after the
// middleware's name, and returns its key and value for cluster.Middleware. One
// malformed option would make Traefik keep its old configuration for everything.
func middlewareOption(parts []string, value string) (key, val string, err error) {
	if strings.ContainsFunc(value, func(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }) || len(value) > 8192 {
		return "", "", fmt.Errorf("the value is too long or holds control characters")
	}
	kind := strings.ToLower(parts[0])
	options, known := middlewareOptions()[kind]
	if !known {
		switch kind {
		case "errors", "plugin":
			return "", "", fmt.Errorf("the middleware %s is not supported yet", kind)
		}
		return "", "", fmt.Errorf("%s is not a middleware of Traefik 3", quote(parts[0]))
	}
	rest := strings.ToLower(strings.Join(parts[1:], "/"))
	for o := range strings.FieldsSeq(options) {
		name, typ, _ := strings.Cut(o, ":")
		switch {
		case typ == "m" && strings.HasPrefix(rest, name+"/"):
			// a header's name keeps its capitals; it may hold dots
			header := strings.Join(parts[2:], ".")
			if !cluster.ValidHeader(header) {
				return "", "", fmt.Errorf("%s is not the name of a header", quote(header))
			}
			return kind + "/" + name + "/" + header, value, nil
		case rest == name:
			key = kind
			if name != "" {
				key += "/" + name
			}
			value = strings.TrimSpace(value)
			if yes, err := strconv.ParseBool(value); err == nil && typ == "b" {
				value = strconv.FormatBool(yes) // the gateways' one way to write it
			}
			return key, value, checkOption(typ[0], value)
		}
	}
	if rest == "" {
		return "", "", fmt.Errorf("the middleware %s has options of its own, such as %s", kind, exampleOption(kind, options))
	}
	return "", "", fmt.Errorf("the middleware %s has no option %s that works here", kind, quote(strings.Join(parts[1:], ".")))
}

func exampleOption(kind, options string) string {
	o, _, _ := strings.Cut(options, ":")
	return kind + "." + strings.ReplaceAll(o, "/", ".")
}

// checkOption checks a value by the type of its option.
func checkOption(typ byte, value string) error {
	value = strings.TrimSpace(value)
	var err error
	switch typ {
	case 'b':
		if _, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("%s is neither true nor false", quote(value))
		}
	case 'i':
		if _, err = strconv.ParseInt(value, 10, 64); err != nil {
			return fmt.Errorf("%s is not a whole number", quote(value))
		}
	case 'd':
		if _, err = time.ParseDuration(value); err != nil {
			if _, err = strconv.ParseUint(value, 10, 31); err != nil {
				return fmt.Errorf("%s is not a duration such as 10s", quote(value))
			}
		}
	case 'r':
		return checkRegex(value)
	case 'p':
		return checkPrefix(value)
	case 'R':
		return each(value, checkRegex)
	case 'P':
		return each(value, checkPrefix)
	case 'c':
		return each(value, checkCIDR)
	case 'u':
		return each(value, checkUser)
	case 'l':
		return each(value, func(string) error { return nil })
	}
	return nil
}

func each(list string, check func(string) error) error {
	items := strings.Split(list, ",")
	if slices.Contains(items, "") {
		return fmt.Errorf("the list %s has an empty element", quote(list))
	}
	for _, i := range items {
		if err := check(strings.TrimSpace(i)); err != nil {
			return err
		}
	}
	return nil
}

func checkRegex(s string) error {
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Errorf("%s is not a regular expression: %w", quote(s), err)
	}
	return nil
}

func checkPrefix(s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("the path %s does not start with /", quote(s))
	}
	return nil
}

func checkUser(s string) error {
	if name, hash, found := strings.Cut(s, ":"); !found || name == "" || hash == "" {
		return fmt.Errorf("a user is written name:hash, as htpasswd prints it, with each $ doubled")
	}
	return nil
}
