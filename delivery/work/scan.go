package work

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
)

// Login is what a registry is spoken to with.
type Login struct {
	User     string `json:"user"`
	Password []byte `json:"password"`
}

// Bounds of a scan.
const (
	maxTags      = 50_000
	maxScanBytes = 64 << 20
	scanTime     = time.Minute
	scansAtOnce  = 4
	// A registry that asks for less patience than this is waited for.
	shortWait   = 5 * time.Second
	defaultWait = time.Minute
	maxWait     = time.Hour
)

// limited is a registry's wish to be left alone.
type limited struct {
	host string
	wait time.Duration
}

func (l *limited) Error() string {
	return fmt.Sprintf("%s takes no more requests for %s", l.host, l.wait.Round(time.Second))
}

// scanImages says what each policy chooses. Where a registry does not answer, what was
// chosen before stays; it is an error where nothing was. waits are registries that want
// to be left alone.
func scanImages(ctx context.Context, t Task) (states []cluster.ImageState, waits map[string]time.Duration, err error) {
	policies := t.Delivery.Images
	states = make([]cluster.ImageState, len(policies))
	errs := make([]error, len(policies))
	waits = map[string]time.Duration{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(scansAtOnce)
	for i, p := range policies {
		prior, known := before(t.Chosen, p)
		if states[i] = prior; known && !t.Scan {
			if prior.Tag == "" && prior.Away {
				errs[i] = cluster.Transientf("%s", prior.Message)
			}
			continue
		}
		g.Go(func() error {
			st, err := t.scan(ctx, p, prior)
			if l, is := errors.AsType[*limited](err); is {
				mu.Lock()
				waits[l.host] = max(waits[l.host], l.wait)
				mu.Unlock()
			}
			if err != nil {
				st = prior
				st.Message, st.Failures = cut(err.Error()), prior.Failures+1
				k := cluster.KindOf(err)
				if st.Away = k == cluster.KindTransient || k == cluster.KindForbidden; st.Away && prior.Tag == "" {
					errs[i] = err
				}
			}
			states[i] = st
			return nil
		})
	}
	_ = g.Wait() // none fails
	return states, waits, errors.Join(errs...)
}

// before is what a policy chose, where it could still choose that.
func before(states []cluster.ImageState, p cluster.ImagePolicy) (_ cluster.ImageState, known bool) {
	fresh := cluster.ImageState{ImageChoice: cluster.ImageChoice{Policy: p.Name, Repository: p.Repository, Pinned: p.Digest != ""}}
	for _, st := range states {
		if st.Policy != p.Name || st.Repository != p.Repository || st.Pinned != (p.Digest != "") {
			continue
		}
		st.Unwritten = "" // it is tried again
		if st.Failures == 0 && st.Tag != "" {
			st.Message = "" // what it says is found again
		}
		if st.Tag == "" {
			return st, true
		}
		if tag, _, err := image.Choose(p, []string{st.Tag}); err == nil && tag == st.Tag {
			return st, true
		}
	}
	return fresh, false
}

func (t Task) scan(ctx context.Context, p cluster.ImagePolicy, prior cluster.ImageState) (cluster.ImageState, error) {
	host := cluster.RegistryOf(p.Repository)
	if why := t.Leave[host]; why != "" {
		return prior, cluster.Transientf("%s", why)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, scanTime, cluster.Transientf("%s did not answer within %s", host, scanTime))
	defer cancel()
	repo, err := name.NewRepository(cluster.ImageRepository(p.Repository))
	if err != nil {
		return prior, cluster.Invalidf("%s: %w", p.Repository, err)
	}
	o := t.options(ctx, host, reach{most: maxScanBytes})
	st := prior
	st.Message, st.Failures, st.Away, st.Matching = "", 0, false, 0
	tag := p.Digest
	if tag == "" {
		tags, err := list(ctx, repo, o)
		if err != nil {
			return prior, t.registryError(ctx, p.Repository, p.Digest, err)
		}
		st.Tags = len(tags)
		if tag, st.Matching, err = image.Choose(p, tags); err != nil {
			return prior, err
		}
		if tag == "" {
			st.Scanned = t.Now
			st.Message = fmt.Sprintf("none of %d tags is one of %s", len(tags), p)
			return st, nil
		}
	}
	digest, err := digestOf(repo.Tag(tag), o)
	switch {
	case err == nil:
	case p.Digest == "" && tag == prior.Tag:
		digest = prior.Digest
	default: // a tag without its digest would be written beside another one's
		return prior, t.registryError(ctx, p.Repository, tag, err)
	}
	st.Tag, st.Digest, st.Scanned = tag, digest, t.Now
	if st.Ref() != prior.Ref() {
		st.Chosen = st.Scanned
	}
	return st, nil
}

// digestOf is what a tag means now. A proxy may say no digest where only that is asked for.
func digestOf(tag name.Tag, o []remote.Option) (string, error) {
	if d, err := remote.Head(tag, o...); err == nil {
		return d.Digest.String(), nil
	}
	d, err := remote.Get(tag, o...)
	if err != nil {
		return "", err
	}
	return d.Digest.String(), nil
}

func list(ctx context.Context, repo name.Repository, o []remote.Option) ([]string, error) {
	puller, err := remote.NewPuller(o...)
	if err != nil {
		return nil, err
	}
	pages, err := puller.Lister(ctx, repo)
	if err != nil {
		return nil, err
	}
	var tags []string
	for pages.HasNext() {
		page, err := pages.Next(ctx)
		if err != nil {
			return nil, err
		}
		if tags = append(tags, page.Tags...); len(tags) > maxTags {
			return nil, cluster.Invalidf("%s has more than %d tags: remove old ones", repo, maxTags)
		}
	}
	return tags, nil
}

// reach is how far a registry is trusted.
type reach struct {
	ca    string // certificates to trust beside the usual ones, PEM
	clear bool   // without TLS, also over a network
	shut  bool   // but no login
	most  int64  // bytes that are read
}

// options are how a registry is spoken to: over TLS, but for this machine's own, with the
// certificates that its engine trusts.
func (t Task) options(ctx context.Context, host string, to reach) []remote.Option {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	certs, _ := filepath.Glob(filepath.Join(t.Certs, host, "*.crt")) // of a pattern that is right
	for _, c := range certs {
		if b, err := os.ReadFile(c); err == nil { //nolint:gosec // below the directory of certificates: a registry's name has no slash
			roots.AppendCertsFromPEM(b)
		}
	}
	roots.AppendCertsFromPEM([]byte(to.ca))
	const patience = 20 * time.Second
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext:         (&net.Dialer{Timeout: patience}).DialContext,
		TLSHandshakeTimeout: patience, ResponseHeaderTimeout: patience, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 1 << 20,
	}
	context.AfterFunc(ctx, base.CloseIdleConnections)
	auth := authn.Anonymous
	if l, has := t.Logins[host]; has {
		auth = authn.FromConfig(authn.AuthConfig{Username: l.User, Password: string(l.Password)})
	}
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(&careful{base: base, host: host, now: t.Now, reach: to}), remote.WithUserAgent("fairlead"),
		remote.WithRetryBackoff(remote.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 2}),
	}
}

// careful bounds what is read of a registry, sends nothing in clear over a network, and
// waits when it is told to.
type careful struct {
	base http.RoundTripper
	host string
	now  time.Time
	reach
	read atomic.Int64
}

func (c *careful) RoundTrip(req *http.Request) (*http.Response, error) {
	req = beside(req, c.host)
	clear := c.clear && (!c.shut || req.Header.Get("Authorization") == "")
	if own, _, _ := strings.Cut(c.host, ":"); req.URL.Scheme != "https" && !clear && (!loopback(req.URL.Hostname()) || !loopback(own)) {
		return nil, &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("%s speaks no TLS: it is not asked", req.URL.Host)}
	}
	for try := 0; ; try++ {
		res, err := c.base.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		wait, busy := told(res, c.now)
		if !busy {
			if req.URL.Host == c.host {
				nearRealms(res, c.host)
			}
			res.Body = &counted{res.Body, &c.read, c.most}
			return res, nil
		}
		_ = res.Body.Close()
		if wait > shortWait || try > 1 || req.Body != nil {
			return nil, &limited{c.host, wait}
		}
		timer := time.NewTimer(wait)
		select {
		case <-req.Context().Done():
			timer.Stop()
			return nil, context.Cause(req.Context())
		case <-timer.C:
		}
	}
}

// told is how long a registry wants to be left alone.
func told(res *http.Response, now time.Time) (wait time.Duration, busy bool) {
	after := res.Header.Get("Retry-After")
	if res.StatusCode != http.StatusTooManyRequests && (res.StatusCode != http.StatusServiceUnavailable || after == "") {
		return 0, false
	}
	wait = defaultWait
	if n, err := strconv.Atoi(after); err == nil && n >= 0 {
		wait = time.Duration(min(n, int(maxWait/time.Second))) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		wait = max(0, at.Sub(now))
	}
	return min(wait, maxWait), true
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type counted struct {
	io.ReadCloser
	read *atomic.Int64
	most int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if c.read.Add(int64(n)) > c.most {
		return 0, cluster.Invalidf("the registry sent more than %d MiB", c.most>>20)
	}
	return n, err
}

// registryError says what is wrong, and what to do; asked is the tag or digest that was
// asked for, if one was.
func (t Task) registryError(ctx context.Context, repository, asked string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	host := cluster.RegistryOf(repository)
	var l *limited
	var te *transport.Error
	var own *cluster.Error
	switch {
	case errors.As(err, &l):
		return &cluster.Error{Kind: cluster.KindTransient, Err: l}
	case errors.As(err, &own):
		return own
	case errors.As(err, &te) && (te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden):
		advice := fmt.Sprintf("`fairlead image login %s`", host)
		if l, has := t.Logins[host]; has {
			advice = "the login that is kept may not"
			if at := toldPassword(te); at != "" {
				advice += fmt.Sprintf(": %s refuses %q or the password", at, l.User)
			}
		}
		return &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("%s lets nobody list %s so: %s", host, repository, advice)}
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound && !forToken(te.Request):
		if asked != "" {
			return cluster.NotFoundf("%s has no %s:%s", host, repository, asked)
		}
		return cluster.NotFoundf("%s has no repository %s", host, repository)
	case strings.Contains(err.Error(), "invalid realm in www-authenticate"), strings.Contains(err.Error(), "refusing token-server redirect"): // it has no name for them
		return &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("%s sends for tokens to where nothing is asked: %s", host, cut(err.Error()))}
	case strings.Contains(err.Error(), "certificate"):
		return &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("%s: %v; servers trust what their engines do, in %s", host, err, filepath.Join(t.Certs, host))}
	}
	return cluster.Transientf("%s: %s", host, cut(err.Error()))
}

// ImagesKey is what was chosen, to compare: with what it means now, which may be written to
// the source too.
func ImagesKey(states []cluster.ImageState) string {
	var b strings.Builder
	for _, st := range states {
		if st.Tag != "" {
			fmt.Fprintf(&b, "%s=%s %s ", st.Policy, st.Ref(), st.Digest)
		}
	}
	return b.String()
}

// place puts what was chosen into the services and hooks that have another image of its
// repository.
func place(r *Result) {
	for i, st := range r.Images {
		used := false
		choose := func(spec *cluster.ServiceSpec) {
			if cluster.ImageRepository(spec.Task.Image) != cluster.ImageRepository(st.Repository) {
				return
			}
			used = true
			if st.Tag != "" {
				spec.Task.Image = st.Ref()
			}
		}
		for n, svc := range r.Bundle.Services {
			choose(&svc)
			r.Bundle.Services[n] = svc
		}
		for n := range r.Bundle.Hooks {
			choose(&r.Bundle.Hooks[n].Spec)
		}
		switch {
		case !used && st.Message == "":
			r.Images[i].Message = "no service has an image of " + st.Repository
		case used && st.Tag != "":
			r.Origin.Images = append(r.Origin.Images, st.ImageChoice)
		}
	}
}

// Noted are states with what was noted of them in a look at the same source.
func Noted(states, at []cluster.ImageState) []cluster.ImageState {
	out := slices.Clone(states)
	for i, st := range out {
		j := slices.IndexFunc(at, func(a cluster.ImageState) bool { return a.Policy == st.Policy && a.Failures == 0 })
		if j >= 0 && st.Failures == 0 && st.Tag != "" {
			out[i].Message = at[j].Message
		}
	}
	return out
}
