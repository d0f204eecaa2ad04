package proxyconf

import (
	"fmt"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// Check returns what would be refused of the services in want beside those in
// have, which keep what they have whoever is older. It is for those who decide
// whether a service may be so at all: what passes here is rendered, in whatever
// order the services come to be.
func Check(have, want []cluster.Service, reserved map[int]string) map[cluster.ServiceID][]Refusal {
	r := newRenderer(map[string]map[string]string{}, reserved)
	if !slices.ContainsFunc(want, func(s cluster.Service) bool { return Routed(s.Spec) }) {
		return r.refused // nothing to look through all others for
	}
	r.services(have)
	r.refused = map[cluster.ServiceID][]Refusal{}
	r.services(want)
	return r.refused
}

// Outranked is a route that the user put before another route of the app, by its
// priority, and that comes after it all the same, as its rule is of a lower class.
type Outranked struct {
	Service cluster.ServiceID
	Route   cluster.Route
	By      cluster.ServiceID
	Winner  cluster.Route
}

// OutrankedOf returns the outranked routes among those of one app's services, each with
// the first route that goes before it.
func OutrankedOf(services []cluster.Service) []Outranked {
	type ranked struct {
		id              cluster.ServiceID
		route           cluster.Route
		entries         []string
		class, priority int // priority within the class
	}
	var all []ranked
	for _, svc := range services {
		for _, route := range svc.Spec.Routes {
			text, rule, err := ruleOf(route)
			if err != nil {
				continue // refused
			}
			entries, err1 := entriesOf(route)
			n, err2 := priorityOf(route, text, rule.class)
			if err1 != nil || err2 != nil {
				continue
			}
			all = append(all, ranked{svc.ServiceID, route, entries, rule.class, n - rule.class*classPriority})
		}
	}
	var out []Outranked
	for _, a := range all {
		i := slices.IndexFunc(all, func(b ranked) bool {
			return a.route.Priority != 0 && a.class < b.class && a.priority > b.priority &&
				slices.ContainsFunc(a.entries, func(e string) bool { return slices.Contains(b.entries, e) })
		})
		if i >= 0 {
			out = append(out, Outranked{a.id, a.route, all[i].id, all[i].route})
		}
	}
	return out
}

// Holder has what another wants.
type Holder struct {
	cluster.ServiceID
	Source   cluster.Source
	Priority int // of a route, as Traefik gets it
}

// clash reports whether two that claim the same cannot both have it. Within an
// app the priority decides which of them serves, as in Traefik; whichever it is,
// what another app has stays that app's.
func clash(a, b Holder) bool { return a.App != b.App || a.Priority == b.Priority }

// free says who has what own wants, nil when it can have it.
func (r *renderer) free(key string, own Holder, what string) error {
	for _, by := range r.claims[key] {
		if clash(by, own) {
			return takenError{by: by, what: what, own: by.App == own.App}
		}
	}
	return nil
}

type takenError struct {
	by   Holder
	what string
	own  bool // by another part of the same app
}

func (e takenError) Error() string {
	text := fmt.Sprintf("%s already has %s", e.by.ServiceID, e.what)
	if e.own && e.by.Priority != 0 {
		text += " with the same priority"
	}
	if e.by.Source.File != "" {
		text += fmt.Sprintf(" (%s:%d)", e.by.Source.File, e.by.Source.Line)
	}
	return text
}
