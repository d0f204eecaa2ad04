package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/compose"
)

var (
	passwordRE = regexp.MustCompile(`(?i:passw(or)?d|passphrase|token|(api|private|secret|access|signing|encryption)[_-]?key)$`)
	// passRE are those of them that a compass is none of.
	passRE = regexp.MustCompile(`(^|[_.-])(?i:pass)$|[a-z0-9]Pass$`)
	// secretRE are those of secrets, and namingRE those that hold the name of one, as packages
	// call it by what is in it.
	secretRE = regexp.MustCompile(`(?i:secret)$`)
	namingRE = regexp.MustCompile(`(?i)(existing|external|passw(or)?d|pass|pull|tls|ssl|cert|certificate|credentials?)[_-]?secret$`)
	// urlRE finds a URL with a password that is written there, and is no variable's.
	urlRE = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://[^\s/?#:@]*:([^\s/?#@]+)@`)
)

// warnOfPasswords says which of the values given look like passwords: they are kept, and
// shown, as they were given. Declared are the package's secrets, whose names are none.
func (a *app) warnOfPasswords(values, kept string, declared []compose.SecretDecl) {
	var m map[string]any
	if yaml.Unmarshal([]byte(values), &m) != nil {
		return
	}
	f := passwords{names: map[string]bool{}}
	for _, s := range declared {
		f.names[s.Name] = true
	}
	f.in("", m)
	slices.Sort(f.found)
	for _, path := range f.found {
		a.note("warning: the value %s looks like a password, and is kept with the %s in clear: leave it to the package to make one up (x-fairlead: {generate: 32}), or set a secret that it names", printable(path), kept)
	}
}

// passwords are the places of values that look like one.
type passwords struct {
	names map[string]bool // of secrets
	found []string
}

func (f *passwords) in(at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		name, _ := v["name"].(string) // {name: DB_PASSWORD, value: x}, as lists of variables are
		for k, x := range v {
			path := strings.TrimPrefix(at+"."+k, ".")
			if k == "value" && f.secret(name, x) || f.secret(k, x) {
				f.found = append(f.found, path)
				continue
			}
			f.in(path, x)
		}
	case []any:
		for i, x := range v {
			f.in(fmt.Sprintf("%s[%d]", at, i), x)
		}
	case string:
		for _, m := range urlRE.FindAllStringSubmatchIndex(v, -1) {
			if !strings.ContainsAny(v[m[2]:m[2]+1], "$%<{*") && !strings.HasPrefix(v[m[1]:], "sha256:") { // of an image
				f.found = append(f.found, at)
				return
			}
		}
	}
}

// secret reports whether a value of that name is a password.
func (f *passwords) secret(name string, v any) bool {
	switch v := v.(type) {
	case float64:
		return passwordRE.MatchString(name)
	case string:
		return v != "" && (passwordRE.MatchString(name) || passRE.MatchString(name) || secretRE.MatchString(name) && !namingRE.MatchString(name) && !f.names[v])
	}
	return false
}
