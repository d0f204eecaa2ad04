package compose

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// The hash of a password has dollar signs, which begin variables.
func TestDollarInUsers(t *testing.T) {
	t.Parallel()
	file := func(hash string) string {
		return in("expose: [80]\nlabels:\n  traefik.http.routers.r.rule: Host(`a.b`)\n  traefik.http.routers.r.middlewares: m\n" +
			"  traefik.http.middlewares.m.basicauth.users: bob:" + hash)
	}
	const hash = "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"
	once := load1(t, file(hash))
	if w := once.Warnings; len(w) == 0 || !strings.HasSuffix(w[0].Advice, "a dollar sign itself is written $$") || strings.Contains(w[0].String(), "IgXLP") {
		t.Errorf("%v", w)
	}
	twice := load1(t, file(strings.ReplaceAll(hash, "$", "$$")))
	a, _, err := cluster.AuthOf(twice.Services["web"].Routes[0].Middlewares[0])
	if err != nil || len(twice.Warnings) > 0 || a.Users[0] != "bob:"+hash {
		t.Errorf("%v, %v", err, twice.Warnings)
	}
}
