package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

const (
	readyBound = 30 * time.Second // for a new Traefik to show the routes
	readyPoll  = 10 * time.Millisecond
)

// ready waits until p shows the routes, certificates and users that the others serve.
func (g *Gateway) ready(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, readyBound)
	defer cancel()
	last := errors.New("its API did not answer")
	for {
		want, _, _ := g.tree.wanted()
		err := g.missing(ctx, p, want)
		if err == nil {
			p.shown.confirm(want)
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if p.gone() {
			return cluster.Transientf("Traefik ended while it started: %s", lastWords(g.cfg, p))
		}
		if !wait(ctx, readyPoll) {
			return cluster.Transientf("Traefik was not ready after %s: %w: %s", readyBound, last, lastWords(g.cfg, p))
		}
	}
}

// missing says what p does not show yet of the routes at revision want and of the
// files as they are now: a certificate may come while it starts.
func (g *Gateway) missing(ctx context.Context, p *process, want int64) error {
	if ok, err := p.api.loaded(ctx); err != nil || !ok {
		return cmp.Or(err, errors.New("it has not read its routes"))
	}
	if rev, err := p.api.marker(ctx); err != nil || rev != want {
		return cmp.Or(err, fmt.Errorf("it shows revision %d, not %d", rev, want))
	}
	for _, f := range []dynamicFile{certificatesFile, usersFile} {
		name, ok := f.shown(g.cfg)
		if !ok {
			continue
		}
		if ok, err := p.api.get(ctx, "/api/http/middlewares/"+name+"@file", nil); err != nil || !ok {
			return cmp.Or(err, fmt.Errorf("it has not read %s", f.name))
		}
	}
	return nil
}
