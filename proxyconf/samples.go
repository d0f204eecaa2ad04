package proxyconf

import (
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Samples returns one middleware of each kind, with every option that a user may
// write, so that a test can hold this package's vocabulary against a real Traefik.
func Samples() []cluster.Middleware {
	v := middlewareVocabulary()
	kinds := map[string]map[string]string{}
	for key, c := range v {
		kind, _, nested := strings.Cut(key, "/")
		if strings.HasSuffix(key, "/#") || !nested || strings.HasSuffix(key, "ipstrategy") {
			continue // the same list by index; the kind alone
		}
		if kinds[kind] == nil {
			kinds[kind] = map[string]string{}
		}
		kinds[kind][strings.Replace(key, "/*", "/X-Sample", 1)] = sample(c)
	}
	out := make([]cluster.Middleware, 0, len(kinds))
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		all := kinds[kind]
		for exclusive(kind, all) != nil { // then without one after the other of those that exclude each other
			for _, k := range slices.Sorted(maps.Keys(all)) {
				one := maps.Clone(all)
				delete(one, k)
				if exclusive(kind, one) == nil || strings.Contains(k, "sourcecriterion/request") {
					out = append(out, cluster.Middleware{Name: kind + " with " + k, Options: map[string]string{k: all[k]}})
					all = one
					break
				}
			}
		}
		out = append(out, cluster.Middleware{Name: kind, Options: all})
	}
	return out
}

// sample returns a value that passes a check.
func sample(c check) string {
	for _, s := range []string{
		"false", "10", "400", "1s", "/sample", "10.0.0.0/8", "http", "gzip", "http://127.0.0.1:9/", "true",
		"user:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/", "user:realm:a2688e031edb4be6a3797f3882655c05",
		"ResponseCodeRatio(500, 600, 0, 600) > 0.9", "IsNetworkError() && Attempts() <= 2", "X-Sample",
	} {
		if c(s) == nil {
			return s
		}
	}
	return ""
}
