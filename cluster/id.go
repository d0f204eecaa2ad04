package cluster

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// AppName names an app: what one Compose file or package describes.
type AppName string

// ServiceName names a service within its app.
type ServiceName string

// NodeID names a node: a Docker host that runs an agent.
type NodeID string

// TaskID names a task: "<app>_<service>.<slot>.<id>". It is also the name of
// the task's container. It is never used again for another task.
type TaskID string

// NetworkName is the full name of a network, "<app>_<network>" unless the user
// named it otherwise. Docker networks carry this name.
type NetworkName string

// StoreRev is a revision of the store (etcd's), never of a release.
type StoreRev int64

// ServiceID is a service in the cluster.
type ServiceID struct {
	App  AppName     `json:"app"`
	Name ServiceName `json:"service"`
}

// String returns "app/service".
func (s ServiceID) String() string { return string(s.App) + "/" + string(s.Name) }

// Compare orders services by app, then name.
func (s ServiceID) Compare(o ServiceID) int {
	if c := strings.Compare(string(s.App), string(o.App)); c != 0 {
		return c
	}
	return strings.Compare(string(s.Name), string(o.Name))
}

// Address is what users write to name a service or one of its tasks:
// "app/service" or "app/service.slot". Slot 0 means the whole service.
type Address struct {
	App     AppName
	Service ServiceName
	Slot    int
}

// String returns the canonical form of a.
func (a Address) String() string {
	if a.Slot == 0 {
		return string(a.App) + "/" + string(a.Service)
	}
	return fmt.Sprintf("%s/%s.%d", a.App, a.Service, a.Slot)
}

// ParseAddress reads "app/service", "app/service.slot", Swarm's
// "app_service.slot", or, with a current app, plain "service[.slot]".
func ParseAddress(s string, current AppName) (Address, error) {
	var a Address
	app, rest, found := strings.Cut(s, "/")
	if !found {
		app, rest = string(current), s
		if i := strings.Index(s, "_"); i > 0 && (current == "" || !strings.HasPrefix(s, string(current)+"_")) {
			app, rest = s[:i], s[i+1:]
		} else if current != "" {
			rest = strings.TrimPrefix(s, string(current)+"_")
		}
	}
	if i := strings.LastIndex(rest, "."); i > 0 {
		if n, err := strconv.Atoi(rest[i+1:]); err == nil {
			if n < 1 {
				return a, Invalidf("%q: slots count from 1", s)
			}
			a.Slot, rest = n, rest[:i]
		}
	}
	a.App, a.Service = AppName(app), ServiceName(rest)
	if i := strings.LastIndex(rest, "."); i > 0 && len(rest)-i-1 == taskSuffix {
		if of, err := ParseAddress(app+"/"+rest[:i], ""); err == nil && of.Slot > 0 {
			return a, Invalidf("%q is a task's ID, and the next task there has another: write %s", s, of)
		}
	}
	if app == "" {
		return a, Invalidf("%q names no app: write APP/%s, or run this in the app's directory", s, s)
	}
	if err := ValidAppName(a.App); err != nil {
		return a, err
	}
	return a, ValidServiceName(a.Service)
}

// Lengths are counted apart: an expression that counts far takes milliseconds to
// compile, at the start of every command.
var (
	appRE     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	serviceRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]*$`)
	nameRE    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	headerRE  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	hostRE    = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*$`)
)

// ValidHeader reports whether a text can be the name of a header.
func ValidHeader(name string) bool { return len(name) <= 100 && headerRE.MatchString(name) }

// ValidHost reports whether a text is a host name, without wildcard or last dot.
func ValidHost(h string) bool {
	for label := range strings.SplitSeq(h, ".") {
		if len(label) > 63 {
			return false
		}
	}
	return len(h) <= 253 && hostRE.MatchString(h)
}

// ValidAppName refuses a name that cannot be a key, a DNS label and a prefix of container names.
func ValidAppName(n AppName) error {
	if len(n) > 40 || !appRE.MatchString(string(n)) {
		return Invalidf("app name %s: use 1 to 40 lower-case letters, digits and -, starting with a letter or digit", quote(string(n)))
	}
	return nil
}

// ValidServiceName refuses a name that cannot be a DNS label.
func ValidServiceName(n ServiceName) error {
	if len(n) > 63 || !serviceRE.MatchString(string(n)) {
		return Invalidf("service name %s: use 1 to 63 letters, digits, _ and -, starting with a letter or digit", quote(string(n)))
	}
	return nil
}

// ValidName refuses a name of a secret, config, volume, network or node that cannot be part of a key.
func ValidName(kind, n string) error {
	if len(n) > 100 || !nameRE.MatchString(n) {
		return Invalidf("%s name %s: use 1 to 100 letters, digits, _, . and -, starting with a letter or digit", kind, quote(n))
	}
	return nil
}

// quote shows a name that may be hostile: nothing in it steers a terminal or fills it.
func quote(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q…", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}
