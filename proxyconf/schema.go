package proxyconf

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead/fairlead/cluster"
)

// check says what is wrong with a value, or nil.
type check func(v string) error

// vocabulary maps the lower-case form of a key below an object to its check. A
// part "*" stands for a map's key (a header's name), "#" for a list's index.
type vocabulary map[string]check

const (
	maxValue = 8 << 10
	maxName  = 200
)

// plainText refuses what has no place in any value.
func plainText(v string) error {
	if len(v) > maxValue {
		return fmt.Errorf("has %d bytes; at most %d are taken", len(v), maxValue)
	}
	if !utf8.ValidString(v) {
		return fmt.Errorf("is not UTF-8")
	}
	if i := strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return fmt.Errorf("has a control character at byte %d", i)
	}
	return nil
}

func text(v string) error { return plainText(v) }

func word(v string) error {
	if v == "" {
		return fmt.Errorf("is empty")
	}
	return plainText(v)
}

func boolean(v string) error {
	if v != "true" && v != "false" {
		return fmt.Errorf("%q is neither true nor false", v)
	}
	return nil
}

func yes(v string) error {
	if v != "true" {
		return fmt.Errorf("%q: only true has a meaning here", v)
	}
	return nil
}

func integer(low, high int64) check {
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != v {
			return fmt.Errorf("%q is not a whole number", v)
		}
		if n < low || n > high {
			return fmt.Errorf("%d is not between %d and %d", n, low, high)
		}
		return nil
	}
}

// duration takes Go's form, or a number of seconds as Traefik does.
func duration(v string) error {
	if _, err := strconv.ParseInt(v, 10, 32); err == nil {
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 10s", v)
	}
	if d < 0 || d > 24*time.Hour {
		return fmt.Errorf("%s is not between 0 and 24h", d)
	}
	return nil
}

func regex(v string) error {
	if err := word(v); err != nil {
		return err
	}
	_, err := regexp.Compile(v)
	return err
}

func path(v string) error {
	if !strings.HasPrefix(v, "/") {
		return fmt.Errorf("%q does not start with a slash", v)
	}
	return plainText(v)
}

func oneOf(allowed ...string) check {
	return func(v string) error {
		if slices.Contains(allowed, v) {
			return nil
		}
		return fmt.Errorf("%q is none of %s", v, strings.Join(allowed, ", "))
	}
}

func headerName(v string) error {
	if !cluster.ValidHeader(v) {
		return fmt.Errorf("%q is not the name of a header", v)
	}
	return nil
}

// list checks each element of a value that Traefik splits at commas.
func list(element check) check {
	return func(v string) error {
		if err := plainText(v); err != nil {
			return err
		}
		for e := range strings.SplitSeq(v, ",") {
			e = strings.TrimSpace(e)
			if e == "" {
				return fmt.Errorf("has an empty element")
			}
			if err := element(e); err != nil {
				return err
			}
		}
		return nil
	}
}

func httpURL(v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c") {
		return fmt.Errorf("%q is not a URL such as http://10.0.0.1:8080", v)
	}
	return plainText(v)
}

func address(v string) error {
	a, err := netip.ParseAddrPort(v)
	if err != nil || a.Port() == 0 {
		return fmt.Errorf("%q is not an address with a port", v)
	}
	return nil
}

var (
	nameRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]*$`)
	entryRE = regexp.MustCompile(`^(web|websecure|internal|tcp-[0-9]{1,5}|udp-[0-9]{1,5})$`)
)

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func objectRef(v string) error {
	if len(v) > maxName || !nameRE.MatchString(v) || digits(v) {
		return fmt.Errorf("%q is not a name of ours", v)
	}
	return nil
}

// middlewareRef takes a user list beside names of ours: gateways have those from a
// file that is only in memory. Until it is there, Traefik answers 404.
func middlewareRef(v string) error {
	if id, ok := strings.CutPrefix(v, cluster.UserListName("")); ok {
		if id, ok = strings.CutSuffix(id, providerFile); ok && cluster.ValidUserListID(id) {
			return nil
		}
	}
	return objectRef(v)
}

const providerFile = "@file"

func entryPoint(v string) error {
	if !entryRE.MatchString(v) {
		return fmt.Errorf("%q is not an entry point", v)
	}
	return nil
}

func rule(v string) error {
	_, err := parseRule(v)
	return err
}

// schema is all of Traefik's vocabulary that is ever written, by section.
func schema(section string) vocabulary {
	const priority = 1 << 30
	timeouts := func(v vocabulary, at string, names ...string) vocabulary {
		for _, n := range names {
			v[at+n] = duration
		}
		return v
	}
	switch section {
	case "http/routers":
		return vocabulary{
			"entrypoints/#": entryPoint, "middlewares/#": middlewareRef, "service": objectRef,
			"rule": rule, "priority": integer(1, priority), "tls": yes,
		}
	case "http/services":
		return vocabulary{
			"loadbalancer/servers/#/url":  httpURL,
			"loadbalancer/passhostheader": boolean, "loadbalancer/serverstransport": objectRef,
		}
	case "http/serversTransports":
		return timeouts(vocabulary{"maxidleconnsperhost": integer(1, 10000), "insecureskipverify": boolean},
			"forwardingtimeouts/", "dialtimeout", "idleconntimeout")
	case "http/middlewares":
		return middlewareVocabulary()
	case "tcp/routers":
		return vocabulary{"entrypoints/#": entryPoint, "service": objectRef, "rule": oneOf("HostSNI(`*`)")}
	case "tcp/services":
		return vocabulary{"loadbalancer/servers/#/address": address, "loadbalancer/serverstransport": objectRef}
	case "tcp/serversTransports":
		return timeouts(vocabulary{}, "", "dialtimeout")
	case "udp/routers":
		return vocabulary{"entrypoints/#": entryPoint, "service": objectRef}
	case "udp/services":
		return vocabulary{"loadbalancer/servers/#/address": address}
	}
	return nil
}

// checkObject checks every pair of an object. It is the last gate before the
// store: nothing is written that did not pass it.
func (v vocabulary) checkObject(section, name string, pairs map[string]string) error {
	if v == nil {
		return fmt.Errorf("%s is not written by Fairlead", section)
	}
	if err := objectRef(name); err != nil {
		return err
	}
	if len(pairs) == 0 {
		return fmt.Errorf("%s/%s is empty: Traefik refuses that", section, name)
	}
	for k, val := range pairs {
		c := v.find(k)
		if c == nil {
			return fmt.Errorf("%q is not an option that Fairlead writes", k)
		}
		if err := c(val); err != nil {
			return fmt.Errorf("%s %w", k, err)
		}
	}
	return nil
}

// find returns the check of a key below an object, nil for an unknown one.
func (v vocabulary) find(key string) check {
	low := strings.ToLower(key)
	if c := v[low]; c != nil {
		return c
	}
	parts := strings.Split(low, "/")
	for i, p := range parts {
		if digits(p) {
			parts[i] = "#"
		}
	}
	if c := v[strings.Join(parts, "/")]; c != nil {
		return c
	}
	name := key[strings.LastIndexByte(key, '/')+1:]
	if headerName(name) != nil || digits(name) {
		return nil
	}
	parts[len(parts)-1] = "*"
	return v[strings.Join(parts, "/")]
}
