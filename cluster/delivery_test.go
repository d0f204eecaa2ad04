package cluster

import (
	"strings"
	"testing"
)

// No password crosses a network in clear.
func TestPasswordsNeedTLS(t *testing.T) {
	for url, want := range map[string]string{
		"http://git.example.com/shop.git":   "use https",
		"http://127.0.0.1/shop.git":         "use https",
		"https://git.example.com/shop.git":  "",
		"http://charts.example.com":         "use https",
		"http://10.0.0.1:8080/charts":       "use https",
		"https://charts.example.com":        "",
		"http://127.0.0.1:8080/charts":      "",
		"http://localhost:8080/charts":      "",
		"http://[::1]:8080/charts":          "",
		"oci://registry.example.com/config": "--plain-http",
		"oci://10.0.0.1:5000/config:1":      "--plain-http",
		"oci://127.0.0.1:5000/config":       "",
		"oci://localhost:5000/config":       "",
	} {
		s := SourceSpec{Kind: SourceGit, URL: url, Secret: "pw"}
		switch {
		case strings.HasPrefix(url, "oci:"):
			s.Kind, s.PlainHTTP, s.User = SourceOCI, true, "ann"
		case !strings.HasSuffix(url, ".git"):
			s.Kind, s.Chart, s.User = SourceChart, "shop", "ann"
		}
		err := s.validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
		if s.Secret = ""; s.validate() != nil {
			t.Errorf("%s without one: %v", url, s.validate())
		}
		if s.Secret, s.PlainHTTP = "pw", false; s.Kind == SourceOCI && s.validate() != nil {
			t.Errorf("%s over TLS: %v", url, s.validate())
		}
	}
	chart := SourceSpec{Kind: SourceChart, URL: "oci://registry.example.com/charts/shop", Secret: "pw", PlainHTTP: true}
	if err := chart.validate(); err == nil || !strings.Contains(err.Error(), "--plain-http") {
		t.Errorf("a package of a registry: %v", err)
	}
}

// Neither repositories of packages nor registries are sent a password without a name.
func TestAPasswordHasAName(t *testing.T) {
	for _, s := range []SourceSpec{
		{Kind: SourceChart, URL: "https://charts.example.com", Chart: "shop", Secret: "pw"},
		{Kind: SourceChart, URL: "oci://registry.example.com/charts/shop", Secret: "pw"},
		{Kind: SourceOCI, URL: "oci://registry.example.com/shop/config", Secret: "pw"},
		{Kind: SourceOCI, URL: "oci://localhost:5000/shop/config", Secret: "pw", PlainHTTP: true},
	} {
		if err := s.validate(); KindOf(err) != KindInvalid || !strings.Contains(err.Error(), "--user") {
			t.Errorf("%s with a password alone: %v", s.URL, err)
		}
		if s.User = "ann"; s.validate() != nil {
			t.Errorf("%s with both: %v", s.URL, s.validate())
		}
		if s.User, s.Secret = "", ""; s.validate() != nil {
			t.Errorf("%s without a login: %v", s.URL, s.validate())
		}
	}
}

// The note of a release begins with it.
func TestShortRevision(t *testing.T) {
	for long, want := range map[string]string{
		"71a07a35ed255da4e198d125aad0e31e4f1d6562":                                "71a07a35",
		"sha256:64b2de06a4dd94fe60768a3ffebcbc3f19599a23c605f10ab862a32c2270e8dd": "sha256:64b2de06",
		"1.10.0-rc.1": "1.10.0-rc.1",
		"1.2.0+b@sha256:64b2de06a4dd94fe60768a3ffebcbc3f19599a23c605f10ab862a32c2270e8dd": "1.2.0+b@sha256:64b2de06",
	} {
		if got := ShortRevision(long); got != want {
			t.Errorf("%s: %s, not %s", long, got, want)
		}
	}
}

func TestHostOfASource(t *testing.T) {
	for url, want := range map[string]string{
		"https://git.example.com:8443/shop.git": "git.example.com:8443", "git@git.example.com:shop.git": "git.example.com",
		"ssh://git@git.example.com/shop.git": "git.example.com", "file:///srv/git/shop.git": "", "oci://registry.example.com:5000/shop/config:1": "registry.example.com:5000",
	} {
		s := SourceSpec{Kind: SourceGit, URL: url}
		if got := s.Host(); got != want {
			t.Errorf("%s is at %q, not %q", url, got, want)
		}
	}
}
