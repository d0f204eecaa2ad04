package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// need is one entry point of the gateways that a service needs, and for what.
type need struct {
	entry string
	what  string // "port 5432/tcp"
	src   cluster.Source
}

// needs are the entry points that a service needs now.
func (m *model) needs(svc cluster.Service) []need {
	var out []need
	for _, r := range svc.Spec.Routes {
		entries := r.EntryPoints
		switch {
		case r.Internal:
			entries = []string{"internal"}
		case len(entries) == 0 && r.TLS:
			entries = []string{"web", "websecure"}
		case len(entries) == 0:
			entries = []string{"web"}
		}
		for _, e := range entries {
			out = append(out, need{entry: e, what: "entry point " + e, src: r.Source})
		}
	}
	for _, p := range svc.Spec.Ports {
		// A UDP port that leads nowhere is not opened.
		if p.Mode != "gateway" || (p.Protocol == "udp" && len(m.endpoints[svc.ServiceID].Tasks) == 0) {
			continue
		}
		out = append(out, need{entry: p.EntryPoint(), what: fmt.Sprintf("port %d/%s", p.Published, p.Protocol), src: p.Source})
	}
	return out
}

func (n need) String() string {
	if n.src.File == "" {
		return n.what
	}
	return fmt.Sprintf("%s (%s:%d)", n.what, n.src.File, n.src.Line)
}

// unserved says what of a service the live gateways do not serve: what is still
// to come, and what cannot be had as things are.
func (m *model) unserved(svc cluster.Service) (coming, refused []string) {
	// A plan refuses such routes and ports; here are those it could not see.
	for _, d := range m.decisions[svc.String()] {
		if d.Loop != "proxyconf" {
			continue
		}
		for why := range strings.Lines(d.Reason) {
			refused = append(refused, fmt.Sprintf("%s: %s", svc.Name, strings.TrimSpace(why)))
		}
	}
	unrouted := len(refused) > 0
	made := max(svc.Rev, m.endpoints[svc.ServiceID].Rev)
	if len(m.needs(svc)) > 0 {
		coming = append(coming, m.unregistered(svc)...)
	}
	for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[id]
		ack, acks := m.gateways[id]
		if !n.Alive || (!acks && !n.HasRole("gateway")) {
			continue
		}
		needs, before := m.needs(svc), len(refused)
		for _, need := range needs {
			switch reason, no := ack.Refused[need.entry]; {
			case slices.Contains(ack.Entries, need.entry):
			case no:
				refused = append(refused, fmt.Sprintf("%s: %s: gateway %s cannot have it: %s", svc.Name, need, id, reason))
			case ack.Error != "":
				refused = append(refused, fmt.Sprintf("%s: %s: gateway %s does not work: %s", svc.Name, need, id, ack.Error))
			default:
				coming = append(coming, fmt.Sprintf("waits for gateway %s to serve %s", id, need))
			}
		}
		// The ports may be those of the routes before: what this declaration asks for
		// is there, or refused, once the gateway has a tree that was made after it, and
		// after the newest of the tasks. What it does not ask for any more is gone then.
		lags := ack.Route < made && len(refused) == before
		switch {
		case !lags || (len(needs) == 0 && !svc.Unrouted):
		case svc.Unrouted && ack.Error == "":
			coming = append(coming, fmt.Sprintf("waits for gateway %s to drop the routes", id))
		case svc.Unrouted:
			refused = append(refused, fmt.Sprintf("%s: gateway %s may still have the routes of before: %s", svc.Name, id, ack.Error))
		case ack.Error == "":
			coming = append(coming, fmt.Sprintf("waits for gateway %s to have the routes", id))
		default:
			refused = append(refused, fmt.Sprintf("%s: gateway %s does not have the routes: %s", svc.Name, id, ack.Error))
		}
	}
	if unrouted {
		return nil, refused // nobody opens what is not routed
	}
	return coming, refused
}

// unregistered are the ready tasks of a service that no request is sent to yet.
func (m *model) unregistered(svc cluster.Service) (coming []string) {
	for _, t := range m.ofService[svc.ServiceID] {
		ts := m.task(t)
		if t.Desire == cluster.DesireRun && !ts.Ended() && ts.Ready && len(ts.Addresses) > 0 && !m.endpoints[svc.ServiceID].Has(t.ID) {
			coming = append(coming, fmt.Sprintf("waits until requests are sent to %s", ts.Address))
		}
	}
	return coming
}
