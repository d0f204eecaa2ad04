package cluster

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of middlewares that ask for a user and a password.
const (
	BasicAuth  = "basicauth"
	DigestAuth = "digestauth"
)

// UserList is what the store keeps of such a middleware: its Auth, sealed. A
// route refers to it by ID. Source: API.
type UserList struct {
	App     AppName   `json:"app"`
	ID      string    `json:"id"`     // the kind and 16 hex digits, drawn
	Sealed  []byte    `json:"sealed"` // the JSON of an Auth
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`
}

var userListRE = regexp.MustCompile(`^(basicauth|digestauth)-[0-9a-f]{16}$`)

// ValidUserListID reports whether id is one that a UserList can have.
func ValidUserListID(id string) bool { return userListRE.MatchString(id) }

// UserListName is the name of the middleware that gateways make of a user list.
func UserListName(id string) string { return "fairlead-auth-" + id }

// Auth is a middleware that asks for a user and a password. It exists in memory
// and on gateways' tmpfs only.
type Auth struct {
	Kind string `json:"kind"` // BasicAuth or DigestAuth
	// Users are "name:hash", with DigestAuth "name:realm:hash".
	Users        []string `json:"users"`
	Realm        string   `json:"realm,omitempty"`
	RemoveHeader bool     `json:"remove_header,omitempty"`
	HeaderField  string   `json:"header_field,omitempty"`
}

// Format implements fmt.Formatter: hashes that slip into a log line show nothing.
func (Auth) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[users]")) }

const (
	maxUsers  = 1000
	maxOption = 1 << 10
)

// AuthOf reads a middleware's options when it is of a kind that asks for a user.
// A middleware whose options are sealed is none.
func AuthOf(m Middleware) (a Auth, is bool, err error) {
	keys := slices.Sorted(maps.Keys(m.Options))
	for _, k := range keys {
		kind, _, _ := strings.Cut(strings.ToLower(k), "/")
		if kind == BasicAuth || kind == DigestAuth {
			is, a.Kind = true, kind
		}
	}
	if !is {
		return a, false, nil
	}
	byIndex := map[int]string{}
	for _, k := range keys {
		v := m.Options[k]
		option, ours := strings.CutPrefix(strings.ToLower(k), a.Kind+"/")
		if !ours {
			return a, true, Invalidf("it is %s and something else: write two middlewares", a.Kind)
		}
		index, indexed := strings.CutPrefix(option, "users/")
		switch {
		case len(v) > maxOption && option != "users" || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return a, true, Invalidf("%s is too long or holds control characters", k)
		case option == "users":
			for u := range strings.SplitSeq(v, ",") {
				a.Users = append(a.Users, strings.TrimSpace(u))
			}
		case indexed:
			n, err := strconv.Atoi(index)
			if err != nil || n < 0 {
				return a, true, Invalidf("%s is not the place of a user in a list", k)
			}
			byIndex[n] = v
		case option == "realm":
			a.Realm = v
		case option == "removeheader":
			if v != "true" && v != "false" {
				return a, true, Invalidf("%s is neither true nor false", k)
			}
			a.RemoveHeader = v == "true"
		case option == "headerfield":
			if !ValidHeader(v) {
				return a, true, Invalidf("%s is not the name of a header", k)
			}
			a.HeaderField = v
		default:
			return a, true, Invalidf("%s: Traefik 3 has no such option, or it reads files of the gateway's machine", k)
		}
	}
	if len(a.Users) > 0 && len(byIndex) > 0 {
		return a, true, Invalidf("users are given twice, as one list and by index")
	}
	for _, n := range slices.Sorted(maps.Keys(byIndex)) {
		a.Users = append(a.Users, byIndex[n])
	}
	return a, true, a.check()
}

// check says what is wrong with the users, without saying them.
func (a Auth) check() error {
	parts, form := 2, "name:hash"
	if a.Kind == DigestAuth {
		parts, form = 3, "name:realm:hash"
	}
	if len(a.Users) == 0 || len(a.Users) > maxUsers {
		return Invalidf("it has %d users: 1 to %d are taken", len(a.Users), maxUsers)
	}
	for i, u := range a.Users {
		fields := strings.Split(u, ":")
		if len(fields) != parts || slices.Contains(fields, "") || len(u) > maxOption {
			return Invalidf("user %d is not written %s, as %s prints it; in a Compose file write $$ for each $ of the hash", i+1, form, maker[a.Kind])
		}
		if !hashRE[a.Kind].MatchString(fields[parts-1]) {
			return Invalidf("user %q: what stands after the name is no hash that Traefik checks (%s), so that nobody could log in; make one with `%s`, and in a Compose file write $$ for each $ of it",
				fields[0], hashForms[a.Kind], fmt.Sprintf(makeLine[a.Kind], fields[0]))
		}
	}
	return nil
}

// What Traefik compares passwords with. With a hash of another form it starts,
// and refuses everyone.
var (
	hashRE = map[string]*regexp.Regexp{
		BasicAuth:  regexp.MustCompile(`^(\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}|\$(apr1|1)\$[^$]{1,8}\$[./A-Za-z0-9]{22}|\{SHA\}[A-Za-z0-9+/]{27}=)$`),
		DigestAuth: regexp.MustCompile(`^[0-9a-f]{32}$`),
	}
	hashForms = map[string]string{BasicAuth: "bcrypt, MD5 or {SHA}", DigestAuth: "32 hex digits in lower case"}
	maker     = map[string]string{BasicAuth: "htpasswd", DigestAuth: "htdigest"}
	makeLine  = map[string]string{BasicAuth: "htpasswd -nB %s", DigestAuth: "htdigest -c FILE REALM %s"}
)

// Hashes are the secret parts of the list.
func (a Auth) Hashes() []string {
	out := make([]string, 0, len(a.Users))
	for _, u := range a.Users {
		out = append(out, u[strings.LastIndexByte(u, ':')+1:])
	}
	return out
}
