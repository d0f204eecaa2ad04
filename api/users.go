package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
)

// hideUsers returns a bundle whose user lists are references to sealed ones, and
// the lists to write: no hash of a password reaches the store in clear. Those
// that are wrong stay as they are, for the plan to refuse.
func (s *Server) hideUsers(ctx context.Context, c current, b v1.Bundle) (v1.Bundle, []cluster.UserList, error) {
	h := &hider{server: s, current: c, by: who(ctx)}
	services := make(map[cluster.ServiceName]cluster.ServiceSpec, len(b.Services))
	for _, name := range slices.Sorted(maps.Keys(b.Services)) {
		spec, err := h.spec(b.Services[name])
		if err != nil {
			return b, nil, fmt.Errorf("service %s: %w", name, err)
		}
		services[name] = spec
	}
	b.Services = services
	b.Rendered = h.scrub(b.Rendered)
	return b, h.fresh, nil
}

// hider hides the user lists of one bundle.
type hider struct {
	server  *Server
	current current
	by      string

	known  map[string]string // plain text → ID; nil until it is needed
	fresh  []cluster.UserList
	hashes []string
}

func (h *hider) spec(spec cluster.ServiceSpec) (cluster.ServiceSpec, error) {
	spec.Labels, spec.Task.Labels = h.labels(spec.Labels), h.labels(spec.Task.Labels)
	spec.Routes = slices.Clone(spec.Routes)
	for i := range spec.Routes {
		r := &spec.Routes[i]
		r.Middlewares = slices.Clone(r.Middlewares)
		for j, m := range r.Middlewares {
			a, is, err := cluster.AuthOf(m)
			if !is || err != nil {
				continue
			}
			id, err := h.id(a)
			if err != nil {
				return spec, err
			}
			r.Middlewares[j] = cluster.Middleware{Name: m.Name, Sealed: id}
		}
	}
	return spec, nil
}

// usersLabel names the labels that hold user lists for a Traefik that reads labels.
var usersLabel = regexp.MustCompile(`(?i)^traefik\.http\.middlewares\.[^.]+\.(basicauth|digestauth)\.users(\.|\[|$)`)

// labels returns labels without user lists: containers show their labels to everyone.
func (h *hider) labels(in map[string]string) map[string]string {
	out := in
	for k, v := range in {
		if !usersLabel.MatchString(k) {
			continue
		}
		if len(out) == len(in) {
			out = maps.Clone(in)
		}
		delete(out, k)
		for u := range strings.SplitSeq(v, ",") {
			h.hashes = append(h.hashes, u[strings.LastIndexByte(u, ':')+1:])
		}
	}
	return out
}

// id returns the ID of the list that holds a, which is a new one unless the app
// has it: a list that did not change keeps its ID, and routes that name it stay.
func (h *hider) id(a cluster.Auth) (string, error) {
	h.hashes = append(h.hashes, a.Hashes()...)
	if h.known == nil {
		h.known = map[string]string{}
		for _, u := range h.current.users {
			// One that does not open counts as another.
			if old, err := secrets.OpenUsers(h.server.Keeper, u); err == nil {
				h.known[plainAuth(old)] = u.ID
			}
		}
	}
	if id, ok := h.known[plainAuth(a)]; ok {
		return id, nil
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw an ID: %w", err)
	}
	u, err := secrets.SealUsers(h.server.Keeper, cluster.UserList{
		App: h.current.app, ID: a.Kind + "-" + hex.EncodeToString(b[:]), Created: h.server.Now().UTC(), By: h.by,
	}, a)
	if err != nil {
		return "", err
	}
	h.known[plainAuth(a)] = u.ID
	h.current.Users[u.ID] = true
	h.fresh = append(h.fresh, u)
	return u.ID, nil
}

func plainAuth(a cluster.Auth) string {
	return strings.Join(append([]string{a.Kind, a.Realm, a.HeaderField, fmt.Sprint(a.RemoveHeader)}, a.Users...), "\x00")
}

// scrub takes the hashes that were hidden out of the document that a release shows.
func (h *hider) scrub(doc string) string {
	const short = 4 // what is shorter stands in other words by chance, and hides nothing
	for _, x := range h.hashes {
		if x = strings.TrimSpace(x); len(x) < short {
			continue
		}
		for _, form := range []string{strings.ReplaceAll(x, "$", "$$"), x} {
			doc = strings.ReplaceAll(doc, form, "[users]")
		}
	}
	return doc
}
