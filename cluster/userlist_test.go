package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func TestAuthOf(t *testing.T) {
	t.Parallel()
	const hash = "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"
	const hex32 = "0cbc6611f5540bd0809a388dc95a615b"
	for name, test := range map[string]struct {
		options map[string]string
		want    cluster.Auth
		wrong   string // "" when it is right
	}{
		"a list": {
			map[string]string{"BasicAuth/Users": "ann:" + hash + ", bob:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=", "basicauth/realm": "shop", "basicauth/removeHeader": "true", "basicauth/headerfield": "X-User"},
			cluster.Auth{Kind: "basicauth", Users: []string{"ann:" + hash, "bob:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc="}, Realm: "shop", RemoveHeader: true, HeaderField: "X-User"},
			"",
		},
		"by index":               {map[string]string{"digestauth/users/1": "b:r:" + hex32, "digestauth/users/0": "a:r:" + hex32}, cluster.Auth{Kind: "digestauth", Users: []string{"a:r:" + hex32, "b:r:" + hex32}}, ""},
		"both":                   {map[string]string{"basicauth/users": "a:" + hash, "basicauth/users/0": "a:" + hash}, cluster.Auth{}, "twice"},
		"no hash":                {map[string]string{"basicauth/users": "bob"}, cluster.Auth{}, "user 1 is not written name:hash"},
		"no realm":               {map[string]string{"digestauth/users": "bob:" + hash}, cluster.Auth{}, "name:realm:hash"},
		"no users":               {map[string]string{"basicauth/realm": "x"}, cluster.Auth{}, "0 users"},
		"a file":                 {map[string]string{"basicauth/usersfile": "/etc/shadow", "basicauth/users": "a:b"}, cluster.Auth{}, "files"},
		"two kinds":              {map[string]string{"basicauth/users": "a:b", "retry/attempts": "2"}, cluster.Auth{}, "two middlewares"},
		"a line break":           {map[string]string{"basicauth/users": "a:b\nc:d"}, cluster.Auth{}, "control"},
		"neither":                {map[string]string{"basicauth/users": "a:b", "basicauth/removeheader": "yes"}, cluster.Auth{}, "neither true nor false"},
		"no hash but a password": {map[string]string{"basicauth/users": "ann:" + hash + ",bob:plain-and-known"}, cluster.Auth{}, `user "bob": what stands after the name is no hash`},
		"how to make one":        {map[string]string{"basicauth/users": "bob:plain-and-known"}, cluster.Auth{}, "`htpasswd -nB bob`"},
		"a crypt of the system":  {map[string]string{"basicauth/users": "bob:$6$salt$plain-and-known"}, cluster.Auth{}, "bcrypt, MD5 or {SHA}"},
		"a hash without its $":   {map[string]string{"basicauth/users": "bob:/IgXLP6ewTrSuBkTrqE8wj"}, cluster.Auth{}, "write $$ for each $"},
		"a digest that is none":  {map[string]string{"digestauth/users": "bob:r:plain-and-known"}, cluster.Auth{}, "32 hex digits"},
		"an empty user":          {map[string]string{"basicauth/users": "ann:" + hash + ","}, cluster.Auth{}, "user 2"},
	} {
		got, is, err := cluster.AuthOf(cluster.Middleware{Options: test.options})
		if !is {
			t.Errorf("%s: not taken for one", name)
		}
		if test.wrong == "" {
			if d := cmp.Diff(test.want, got); d != "" || err != nil {
				t.Errorf("%s: %v, %s", name, err, d)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), hash) || strings.Contains(err.Error(), "plain-and-known") {
			t.Errorf("%s: error %v, want one with %q and without the hash", name, err, test.wrong)
		}
	}
	for _, h := range []string{
		hash, "$1$saltsalt$IgXLP6ewTrSuBkTrqE8wj/", "{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=",
		"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"$2y$05$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
	} {
		if _, _, err := cluster.AuthOf(cluster.Middleware{Options: map[string]string{"basicauth/users": "ann:" + h}}); err != nil {
			t.Errorf("%s: %v", h, err)
		}
	}
	for _, m := range []cluster.Middleware{{Options: map[string]string{"retry/attempts": "2"}}, {Sealed: "basicauth-0123456789abcdef"}} {
		if _, is, err := cluster.AuthOf(m); is || err != nil {
			t.Errorf("%+v is taken for one: %v", m, err)
		}
	}
	a := cluster.Auth{Users: []string{"ann:" + hash}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, a); strings.Contains(s, "apr1") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}
