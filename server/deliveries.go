package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/delivery"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/store"
)

// sources fetches what deliveries bring, and keeps it until there is something newer.
type sources struct {
	*machine
	mirror *store.Mirror
	worker work.Worker

	store store.Store // of logins

	mu     sync.Mutex
	kept   map[cluster.DeliveryName]keptSource
	scans  map[cluster.DeliveryName]lastScan
	leaves map[string]leave
}

// keptSource is what was made of a revision; key is that of what was asked for.
type keptSource struct {
	key string
	pkg chart.Seen
	api.Fetched
}

func (m *machine) sources(st store.Store, mirror *store.Mirror) (*sources, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &sources{
		machine: m, mirror: mirror, store: st, kept: map[cluster.DeliveryName]keptSource{},
		scans: map[cluster.DeliveryName]lastScan{}, leaves: map[string]leave{},
	}
	s.worker = work.Worker{Command: []string{self, work.Command}, Dir: filepath.Join(m.DataDir, "deliveries")}
	return s, s.worker.Clean()
}

// Fetch implements api.Sources. It asks registries anew, and commits nothing.
func (s *sources) Fetch(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState) (api.Fetched, error) {
	return s.fetch(ctx, d, st, false)
}

// fetch looks at the source, and at registries; commit: what they have may be written to
// the source. With an error it returns what the source has, if that is known.
func (s *sources) fetch(ctx context.Context, d cluster.Delivery, st cluster.DeliveryState, commit bool) (api.Fetched, error) {
	t := work.Task{
		Delivery: d, Domain: s.Domain, HTTPPort: s.HTTPPort, HTTPSPort: s.HTTPSPort, Release: 1,
		Commit: commit, Cluster: s.cluster, Certs: engineCerts, Now: s.now().UTC(),
	}
	if d.Source.Secret != "" {
		v, err := s.secret(ctx, d, d.Source.Secret)
		if err != nil {
			return api.Fetched{}, err
		}
		t.Password = v.Reveal()
	}
	if d.Source.Kind == cluster.SourceOCI && d.Source.Secret == "" {
		repository, _, _ := d.Source.Reference()
		if err := s.logIn(ctx, &t, repository); err != nil {
			return api.Fetched{}, err
		}
	}
	if d.Decrypt != "" {
		v, err := s.secret(ctx, d, d.Decrypt)
		if err != nil {
			return api.Fetched{}, err
		}
		t.Keys = v.Reveal()
	}
	s.mirror.Read(func(v store.View) {
		s.forget(d.Name, func(n cluster.DeliveryName) bool {
			_, is := v.Entry(store.DeliveryKey(n))
			return is
		})
		t.SingleNode = len(store.Nodes(v)) <= 1
		if a, ok, err := store.One[cluster.App](v, store.AppKey(d.App)); ok && err == nil {
			t.Release = max(store.LastRelease(v, d.App), a.V.Release) + 1
			t.Upgrade = a.V.Release > 0 && !a.V.Uninstalled
		}
	})
	if st.Applied != nil { // rendered for the release that it made, it is the same again
		t.AppliedRevision, t.AppliedRelease = st.Applied.Origin.Revision, st.Applied.Release
		t.AppliedUpgrade = st.Applied.Release > 1 && !st.Applied.Install
	}
	t.Seen = st.Seen
	s.mu.Lock()
	kept, have := s.kept[d.Name]
	s.mu.Unlock()
	if have && kept.key == d.Key("")+t.Domain {
		t.Known, t.KnownImages, t.Package = kept.Origin.Revision, work.ImagesKey(kept.Images), kept.pkg
	}
	asked, err := s.scanning(ctx, &t, st, !commit)
	if err != nil {
		return api.Fetched{}, err
	}
	r, err := s.worker.Run(ctx, t)
	s.scanned(t, r, asked)
	if err != nil {
		return api.Fetched{Origin: r.Origin, Forced: r.Forced}, err
	}
	if r.Bundle == nil {
		s.known(d.Name, kept, r.Package)
		f := kept.Fetched
		f.Images = work.Noted(r.Images, kept.Images)
		return f, nil
	}
	f := api.Fetched{Origin: r.Origin, Forced: r.Forced, Bundle: *r.Bundle, Warnings: r.Warnings, Varies: r.Varies, InputBefore: r.InputBefore, Images: r.Images, Wrote: wrote(r)}
	f.Content = content(d, f.Bundle)
	if len(r.Edits) > 0 && r.Pushed == "" || work.Unwritten(r.Images) != "" {
		return f, nil // it is not what the source has, or is to have
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := f
	keep.Forced, keep.Wrote = false, nil // that is news once
	s.kept[d.Name] = keptSource{d.Key("") + t.Domain, r.Package, keep}
	return f, nil
}

// leaveKept is how long a registry's pause is remembered after its end: the next one is longer.
const leaveKept = time.Hour

// forget drops what was kept of deliveries that are no more, but for one that is looked at,
// which may not be yet: whoever makes one a branch has thousands in the end.
func (s *sources) forget(looked cluster.DeliveryName, is func(cluster.DeliveryName) bool) {
	gone := func(n cluster.DeliveryName) bool { return n != looked && !is(n) }
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.kept, func(n cluster.DeliveryName, _ keptSource) bool { return gone(n) })
	maps.DeleteFunc(s.scans, func(n cluster.DeliveryName, _ lastScan) bool { return gone(n) })
	maps.DeleteFunc(s.leaves, func(_ string, l leave) bool { return now.Sub(l.until) > leaveKept })
}

// content tells what a source asks for from anything else it could; "" where values of secrets
// are among it, of which nothing is kept in clear.
func content(d cluster.Delivery, b v1.Bundle) string {
	if d.Decrypt != "" {
		return ""
	}
	for _, s := range b.Secrets {
		if len(s.Value) > 0 {
			return ""
		}
	}
	var asked any = b
	if b.Package != nil && b.Package.Input != "" { // rendered, it has the release's number
		asked = b.Package.Input
	}
	text, err := json.Marshal(asked)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(append([]byte(d.Key("")+"\n"), text...))
	return hex.EncodeToString(sum[:12])
}

// known takes in what a repository said now of the package that is kept.
func (s *sources) known(n cluster.DeliveryName, kept keptSource, pkg chart.Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, is := s.kept[n]; is && now.key == kept.key && now.Origin.Revision == kept.Origin.Revision {
		now.pkg = pkg
		s.kept[n] = now
	}
}

// secret reads a secret of the delivery's app.
func (s *sources) secret(ctx context.Context, d cluster.Delivery, name string) (cluster.Secret, error) {
	ref := cluster.SecretRef{App: d.App, Name: name}
	var rec store.Value[cluster.SecretRecord]
	var ok bool
	var err error
	s.mirror.Read(func(v store.View) { rec, ok, err = store.One[cluster.SecretRecord](v, store.SecretKey(ref)) })
	switch {
	case err != nil:
		return cluster.Secret{}, err
	case !ok:
		return cluster.Secret{}, cluster.NotFoundf("there is no secret %s, which the delivery %s needs: `fairlead secret set %s`", ref, d.Name, ref)
	}
	return s.resolver().Resolve(ctx, rec.V)
}

// Decide implements api.Sources.
func (s *sources) Decide(d cluster.Delivery, st cluster.DeliveryState, f api.Fetched, p v1.Plan) string {
	if len(f.Wrote) > 0 {
		f.Origin.Revision = "a commit that is still to be made"
	}
	return string(delivery.Decide(delivery.Item{Spec: d, State: st}, delivery.Look{Origin: f.Origin, Content: f.Content, Changes: changes(p)}))
}

// changes are a plan's changes, one a line.
func changes(p v1.Plan) []string {
	var out []string
	for _, c := range p.Changes {
		var line strings.Builder
		fmt.Fprintf(&line, "%s %s %s", c.Action, c.Object, c.Name)
		for i, f := range c.Fields {
			if i == 3 {
				line.WriteString(", …")
				break
			}
			fmt.Fprintf(&line, "%s %s: %s → %s", []string{":", ","}[min(i, 1)], f.Path, f.Old, f.New)
		}
		if len(c.Fields) == 0 && c.Reason != "" {
			line.WriteString(": " + c.Reason)
		}
		out = append(out, line.String())
	}
	const most = 20
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more", len(out)-most))
	}
	return out
}

// deliverer acts for deliveries, as the API does for people.
type deliverer struct {
	*sources
	api *api.Server
}

var _ control.Deliverer = (*deliverer)(nil)

// Look implements control.Deliverer.
func (d *deliverer) Look(ctx context.Context, spec cluster.Delivery, st cluster.DeliveryState) (control.Proposal, error) {
	f, err := d.fetch(ctx, spec, st, true)
	var p v1.Plan
	if err == nil {
		p, err = d.api.PlanDelivery(ctx, spec, f)
	}
	if err != nil {
		return control.Proposal{Look: delivery.Look{Origin: f.Origin, Forced: f.Forced}}, err
	}
	return control.Proposal{
		Look: delivery.Look{Origin: f.Origin, Content: f.Content, Changes: changes(p), Release: p.Release, Forced: f.Forced, Varies: f.Varies, Images: f.Images, Wrote: commitNews(st.Images, f)},
		Deploy: func(ctx context.Context) (int, error) {
			res, err := d.api.Deliver(ctx, spec, f, p.Release)
			return res.Release, err
		},
	}, nil
}

// Strayed implements control.Deliverer.
func (d *deliverer) Strayed(ctx context.Context, spec cluster.Delivery, st cluster.DeliveryState) ([]string, error) {
	p, err := d.api.PlanTakeBack(ctx, spec, st)
	return changes(p), err
}

// GoBack implements control.Deliverer.
func (d *deliverer) GoBack(ctx context.Context, spec cluster.Delivery, st cluster.DeliveryState) (made int, changed bool, err error) {
	res, err := d.api.TakeBack(ctx, spec, st)
	return res.Release, res.Changed, err
}

// news is what is sent of an event.
type news struct {
	cluster.DeliveryEvent
	Delivery cluster.DeliveryName `json:"delivery"`
	App      cluster.AppName      `json:"app"`
	Cluster  string               `json:"cluster"`
}

// Send implements control.Deliverer. It tells all receivers, of which there are ten at most,
// at once, so that one that hangs keeps no other waiting; an event that is sent again has the
// same ID.
func (d *deliverer) Send(ctx context.Context, spec cluster.Delivery, st cluster.DeliveryState) (map[string]int64, error) {
	to, done := posterOf(spec.NotifyCA)
	defer done()
	last, errs := make([]int64, len(spec.Notify)), make([]error, len(spec.Notify))
	var wg sync.WaitGroup
	for i, n := range spec.Notify {
		wg.Go(func() { last[i], errs[i] = d.tell(ctx, to, spec, n, st) })
	}
	wg.Wait()
	heard := map[string]int64{}
	for i, n := range spec.Notify {
		heard[n.Key()] = last[i]
	}
	return heard, errors.Join(errs...)
}

// tell tells a receiver what it has not heard, and returns how far it is then. What it
// refuses it is not told again.
func (d *deliverer) tell(ctx context.Context, by *http.Client, spec cluster.Delivery, n cluster.Notice, st cluster.DeliveryState) (last int64, refused error) {
	to, where := n.URL, n.URL
	last = st.Heard[n.Key()]
	if n.Secret != "" {
		v, err := d.secret(ctx, spec, n.Secret)
		if err != nil {
			return last, err
		}
		to, where = strings.TrimSpace(string(v.Reveal())), "the URL in secret "+n.Secret
	}
	for _, e := range st.Outbox {
		if e.ID <= last {
			continue
		}
		if len(n.Events) == 0 || slices.Contains(n.Events, e.Event) {
			var body any = news{e, spec.Name, spec.App, d.cluster}
			if n.Format == "slack" {
				body = map[string]string{"text": forSlack.Replace(sentence(spec, e))}
			}
			err := post(ctx, by, to, body)
			if err != nil {
				err = fmt.Errorf("notify %s: %w", where, err)
			}
			if err != nil && cluster.KindOf(err) != cluster.KindInvalid {
				return last, err
			}
			refused = cmp.Or(err, refused)
		}
		last = e.ID
	}
	return last, refused
}

// forSlack takes from a text what Slack would read as a link, or as a call to all that are in the
// channel: whoever writes a commit's subject is not who may do that.
var forSlack = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// sentence is an event for people.
func sentence(d cluster.Delivery, e cluster.DeliveryEvent) string {
	s := fmt.Sprintf("*%s* %s", d.Name, e.Event)
	if e.Revision != "" {
		s += " " + cluster.ShortRevision(e.Revision)
	}
	if e.Images != "" {
		s += " with " + e.Images
	}
	if e.Subject != "" {
		s += " “" + e.Subject + "”"
	}
	if e.Author != "" {
		s += " by " + e.Author
	}
	if e.Release > 0 {
		s += fmt.Sprintf(" (app %s, release %d)", d.App, e.Release)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// poster follows no redirects but those that keep what is sent: the others would turn it into
// a question, and its answer into a success.
var poster = &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
	const most = 5
	code := req.Response.StatusCode
	if len(via) > most || code != http.StatusTemporaryRedirect && code != http.StatusPermanentRedirect {
		return http.ErrUseLastResponse
	}
	return nil
}}

// posterOf is a poster that trusts more certificates than the usual, and done ends it.
func posterOf(ca string) (p *http.Client, done func()) {
	if ca == "" {
		return poster, func() {}
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM([]byte(ca))
	own, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		own = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	own = own.Clone()
	own.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{CheckRedirect: poster.CheckRedirect, Transport: own}, own.CloseIdleConnections
}

// post sends JSON. Errors do not hold the URL, which may be a password; they are of
// KindInvalid where the same again would be refused again.
func post(ctx context.Context, by *http.Client, to string, body any) error {
	const patience = 10 * time.Second
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(b))
	if err != nil {
		return errors.New("it is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := by.Do(req)
	if err != nil {
		return errors.Unwrap(err) // of the *url.Error, which has the URL
	}
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection is used again
	_ = res.Body.Close()
	switch code := res.StatusCode; {
	case code/100 == 2:
		return nil
	case code/100 == 4 && code != http.StatusRequestTimeout && code != http.StatusTooEarly && code != http.StatusTooManyRequests:
		return cluster.Invalidf("%s", res.Status)
	}
	if to := res.Header.Get("Location"); to != "" && res.StatusCode/100 == 3 {
		return cluster.Invalidf("%s: it is elsewhere; name the URL that it redirects to", res.Status)
	}
	return errors.New(res.Status)
}
