package cli

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairlead/fairlead/compose"
)

var (
	passwordRE = regexp.MustCompile(`(?i:passw(or)?d|passphrase|passcode|pwd|psk|token|secret[_-]?key[_-]?base|` +
		`(api|private|secret|access|signing|encryption|auth|master|app|account|shared|jwt|service[_-]?role|licen[cs]e)[_-]?key)$`)
	// passRE are those of them that a compass is none of.
	passRE = regexp.MustCompile(`(^|[_.-])(?i:pass|pw)$|[a-z0-9](Pass|Pw)$`)
	// secretRE are those of secrets, and namingRE those that hold the name of one, as packages
	// call it by what is in it.
	secretRE = regexp.MustCompile(`(?i:secret)$`)
	namingRE = regexp.MustCompile(`(?i)(existing|external|passw(or)?d|pass|pull|tls|ssl|cert|certificate|credentials?)[_-]?secret$`)
	// holdingRE are those of what holds credentials, and nameRE the name that such a secret has.
	holdingRE = regexp.MustCompile(`(?i)(existing|external|pull|registry)[_-]?credentials?$`)
	nameRE    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	// existingRE are names of what holds one, and referenceRE values that come from
	// elsewhere and have no default that is a value; a password may begin as $variable does.
	existingRE  = regexp.MustCompile(`(?i)^existing[_-]?secret`)
	referenceRE = regexp.MustCompile(`^(\$\{\w+(:?-|:?\?[^{}]*)?\}|\$\([A-Za-z_][\w.-]*\)|\$[A-Z_][A-Z0-9_]*|\{\{.*\}\})$`)
	// mayRE are names of passwords, and of where one is, or whether; otherRE are values of those.
	mayRE   = regexp.MustCompile(`(?i:pwd|credentials?)$`)
	otherRE = regexp.MustCompile(`^(\.{0,2}/.*|(?i:true|false|yes|no|on|off|none|include|omit|same-origin))$`)
	// keyRE finds a private key.
	keyRE      = regexp.MustCompile(`-----BEGIN ((RSA|DSA|EC|OPENSSH|PGP) )?PRIVATE KEY( BLOCK)?-----|\bAGE-SECRET-KEY-1`)
	variableRE = regexp.MustCompile(`^[A-Za-z_]\w*$`)
	// urlRE finds a URL with a password that is written there, and is no variable's.
	urlRE = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://[^\s/?#:@]*:([^\s/?#@]+)@`)
)

// What is done instead with a value that is a password, and is kept in clear with a release or
// a delivery, and with a private key, which nothing makes up.
const (
	toMakeUp  = "leave it to the package to make one up (x-fairlead: {generate: 32}), or set a secret that it names"
	toSet     = "set a secret that the package names (`fairlead secret set APP/NAME <FILE`)"
	toEncrypt = ", or have it in a file of the package that SOPS encrypted (--decrypt)"
	toGive    = "set a secret (`fairlead secret set`) that the Compose file gives with x-fairlead: {secret_env: {VARIABLE: NAME}}, or have it in an --env-file of the source that SOPS encrypted (--decrypt)"
)

// inClear are places of values, and what is done instead.
type inClear struct{ what, with, password, key string }

func ofRelease() inClear   { return inClear{"value", "release", toMakeUp, toSet} }
func ofVariables() inClear { return inClear{"variable", "delivery", toGive, toGive} }

// ofDelivery is of the values of a package, in Git or not: elsewhere nothing is decrypted.
func ofDelivery(git bool) inClear {
	c := inClear{"value", "delivery", toMakeUp, toSet}
	if git {
		c.password, c.key = c.password+toEncrypt, c.key+toEncrypt
	}
	return c
}

// warnOfPasswords says which of the values given look like passwords: they are kept, and
// shown, as they were given. Declared are the package's secrets, whose names are none.
func (a *app) warnOfPasswords(values string, c inClear, declared []compose.SecretDecl) {
	var m map[string]any
	if yaml.Unmarshal([]byte(values), &m) == nil {
		a.warnOfClear(m, c, declared)
	}
}

func (a *app) warnOfClear(values map[string]any, c inClear, declared []compose.SecretDecl) {
	f := passwords{names: map[string]bool{}, found: map[string]bool{}}
	for _, s := range declared {
		f.names[s.Name] = true
	}
	f.in("", values)
	for _, path := range slices.Sorted(maps.Keys(f.found)) {
		is, instead := "looks like a password", c.password
		if f.found[path] {
			is, instead = "holds a private key", c.key
		}
		a.note("warning: the %s %s %s, and is kept with the %s in clear: %s", c.what, printable(path), is, c.with, instead)
	}
}

// passwords are the places of values that look like one.
type passwords struct {
	names map[string]bool // of secrets
	found map[string]bool // true: of private keys
}

func (f *passwords) say(at string, key bool) { f.found[at] = f.found[at] || key }

func (f *passwords) in(at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		name, _ := v["name"].(string) // {name: DB_PASSWORD, value: x}, as lists of variables are
		for k, x := range v {
			path := strings.TrimPrefix(at+"."+k, ".")
			f.in(path, x)
			if k == "value" && f.secret(name, x) || f.secret(k, x) {
				f.say(path, false)
			}
		}
	case []any:
		for i, x := range v {
			f.in(fmt.Sprintf("%s[%d]", at, i), x)
		}
	case string:
		switch name, value, is := strings.Cut(v, "="); { // - DB_PASSWORD=x, as lists of variables are, too
		case privateKey(v):
			f.say(at, true)
		case is && variableRE.MatchString(name) && f.secret(name, value):
			f.say(at, false)
		}
		for _, m := range urlRE.FindAllStringSubmatchIndex(v, -1) {
			if !strings.ContainsAny(v[m[2]:m[2]+1], "$%<{*") && !strings.HasPrefix(v[m[1]:], "sha256:") { // of an image
				f.say(at, false)
				return
			}
		}
	}
}

// privateKey reports whether a text has one that no password keeps, as it is or in base64.
func privateKey(s string) bool {
	if t := strings.Join(strings.Fields(s), ""); strings.HasPrefix(t, "LS0tLS1CRUdJTi") { // -----BEGIN
		b, _ := base64.StdEncoding.DecodeString(t)
		s = string(b)
	}
	return keyRE.MatchString(s)
}

// secret reports whether a value of that name is a password.
func (f *passwords) secret(name string, v any) bool {
	if existingRE.MatchString(name) {
		return false
	}
	switch v := v.(type) {
	case float64:
		return passwordRE.MatchString(name)
	case string:
		switch {
		case v == "" || referenceRE.MatchString(v) || mayRE.MatchString(name) && (otherRE.MatchString(v) || f.names[v]),
			holdingRE.MatchString(name) && nameRE.MatchString(v):
			return false
		case secretRE.MatchString(name):
			return !namingRE.MatchString(name) && !f.names[v]
		}
		return passwordRE.MatchString(name) || passRE.MatchString(name) || mayRE.MatchString(name)
	}
	return false
}
