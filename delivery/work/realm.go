package work

import (
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// What begins so below a registry is on another port of its address.
const besides = "/.beside/"

var realm = regexp.MustCompile(`(?i)(\brealm=")([^"]*)"`)

// nearRealms lets a registry whose name is an address send its clients to another port of it
// for tokens, as a GitLab of one machine does. Of addresses, go-containerregistry goes for
// tokens to the registry's alone, with its port: another port becomes a path below that, from
// which beside leads there.
func nearRealms(res *http.Response, host string) {
	for i, challenge := range res.Header["Www-Authenticate"] {
		m := realm.FindStringSubmatchIndex(challenge)
		if m == nil || res.StatusCode != http.StatusUnauthorized {
			continue
		}
		u, err := url.Parse(challenge[m[4]:m[5]])
		own := (&url.URL{Host: host}).Hostname()
		if err != nil || u.Host == host || u.Hostname() != own || net.ParseIP(own) == nil || u.User != nil {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		near := u.Scheme + "://" + host + besides + port + u.EscapedPath()
		if u.RawQuery != "" {
			near += "?" + u.RawQuery
		}
		res.Header["Www-Authenticate"][i] = challenge[:m[4]] + near + challenge[m[5]:]
	}
}

// beside is the request that is meant with one of nearRealms.
func beside(req *http.Request, host string) *http.Request {
	rest, is := strings.CutPrefix(req.URL.EscapedPath(), besides)
	if !is || req.URL.Host != host {
		return req
	}
	port, path, _ := strings.Cut(rest, "/")
	to, err := url.Parse(req.URL.Scheme + "://" + net.JoinHostPort((&url.URL{Host: host}).Hostname(), port) + "/" + path)
	if err != nil {
		return req
	}
	to.RawQuery = req.URL.RawQuery
	req = req.Clone(req.Context())
	req.URL, req.Host = to, to.Host
	return req
}

// forToken says whether a request was one for a token.
func forToken(req *http.Request) bool {
	return req != nil && req.URL.Query().Has("service") && req.URL.Query().Has("scope")
}

// toldPassword is who was told a password and let nobody in with it: the registry or where
// it sends for tokens; "" where another thing was refused, as by a registry to a token.
func toldPassword(err *transport.Error) string {
	if err.Request == nil || err.StatusCode != http.StatusUnauthorized {
		return ""
	}
	if _, _, told := err.Request.BasicAuth(); !told {
		return ""
	}
	return err.Request.URL.Host
}
