package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// UserList is a middleware that asks for a user, as routes name it.
type UserList struct {
	ID   string
	Auth cluster.Auth
}

// WriteUserLists replaces the user lists that routes may refer to.
func WriteUserLists(c Config, lists []UserList) error {
	all := object{}
	for _, l := range lists {
		if !cluster.ValidUserListID(l.ID) {
			return cluster.Invalidf("gateway: %q is not the ID of a user list", l.ID)
		}
		kind := "basicAuth"
		if l.Auth.Kind == cluster.DigestAuth {
			kind = "digestAuth"
		}
		options := object{"users": l.Auth.Users, "removeHeader": l.Auth.RemoveHeader}
		if l.Auth.Realm != "" {
			options["realm"] = l.Auth.Realm
		}
		if l.Auth.HeaderField != "" {
			options["headerField"] = l.Auth.HeaderField
		}
		all[cluster.UserListName(l.ID)] = object{kind: options}
	}
	return usersFile.write(c, nil, all, len(all) > 0)
}

const (
	// usersBound is how long a change of routes is held back for the user lists
	// that it refers to. They come by another way, usually before it.
	usersBound = 3 * time.Second
	usersPoll  = 10 * time.Millisecond
)

// awaitUsers waits until every Traefik that serves knows the user lists that a
// change of routes refers to, since it answers 404 where it does not.
func (g *Gateway) awaitUsers(ctx context.Context, put map[string][]byte) {
	missing := usersNamed(put)
	if len(missing) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, usersBound)
	defer cancel()
	for {
		missing = slices.DeleteFunc(missing, func(name string) bool { return g.knows(ctx, name) })
		if len(missing) == 0 {
			return
		}
		if !wait(ctx, usersPoll) {
			g.log.Warn("routes refer to user lists that are not here: they answer 404 until these come", "lists", missing)
			return
		}
	}
}

// knows reports whether every serving Traefik has the middleware of a file; while
// none serves, whether the file has it, which the next one waits for.
func (g *Gateway) knows(ctx context.Context, name string) bool {
	g.mu.Lock()
	serving := g.serving
	g.mu.Unlock()
	serving = slices.DeleteFunc(slices.Clone(serving), (*process).gone)
	if len(serving) == 0 {
		own, _ := strings.CutSuffix(name, "@file")
		return slices.Contains(usersFile.middlewares(g.cfg), own)
	}
	for _, p := range serving {
		if found, err := p.api.get(ctx, "/api/http/middlewares/"+name, nil); err != nil || !found {
			return false
		}
	}
	return true
}

// usersNamed returns the user lists that routers of a change refer to, sorted.
func usersNamed(put map[string][]byte) []string {
	var out []string
	for k, v := range put {
		if strings.HasPrefix(k, treeRoot+"/http/routers/") && strings.HasPrefix(string(v), cluster.UserListName("")) {
			out = append(out, string(v))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
