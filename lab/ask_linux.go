package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// askTime bounds one question to one server.
const askTime = 2 * time.Second

// engineTime is how long an engine has to say that it works. One that starts takes connections
// before it answers.
const engineTime = time.Second

// engineAnswers reports whether the engine behind a socket works.
func engineAnswers(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return false
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // nothing in it matters
	return resp.StatusCode == http.StatusOK
}

// voice is a server that is asked, and for how long what it says may be old.
type voice struct {
	*client.Client
	stale time.Duration
}

// askAny asks the lab's servers in turn until one answers as ask wants it: any may be
// killed, or cut off from the others.
func (r *rack) askAny(ctx context.Context, ask func(*voice) error) error {
	err := cluster.Transientf("the lab has no server")
	for _, m := range r.state.Spec.Machines() {
		if !m.Server {
			continue
		}
		if err = r.askOne(m.Name, ask); err == nil || ctx.Err() != nil {
			return err
		}
		err = fmt.Errorf("%s: %w", m.Name, err)
	}
	return err
}

func (r *rack) askOne(server string, ask func(*voice) error) (err error) {
	v := &voice{}
	o := client.Options{Socket: r.dir.APISocket(server), Timeout: askTime}
	o.Stale = func(_ string, since time.Duration) { v.stale = since }
	if v.Client, err = client.New(o); err != nil {
		return err
	}
	defer v.Close()
	return ask(v)
}

// apiAnswers reports whether a server takes invitations.
func (r *rack) apiAnswers(ctx context.Context) bool {
	return r.askAny(ctx, func(v *voice) error {
		h, err := v.Health(ctx)
		if err == nil && !h.Ready {
			err = cluster.Transientf("it has not read its store")
		}
		return err
	}) == nil
}

// said is what a server says of the cluster's nodes.
type said struct {
	alive    map[string]bool
	gateways map[string]string // what is wrong with each that it knows; "" is nothing
	// doubt is why this may not be so, "" where it is. nothing: no server said anything.
	doubt   string
	nothing bool
}

// clusterSays asks the cluster which of its nodes are alive, and what is wrong with each
// gateway that it knows: the first server that hears from a majority, else one that does not.
func (r *rack) clusterSays(ctx context.Context) said {
	var current, old *said
	err := r.askAny(ctx, func(v *voice) error {
		s, err := v.cluster(ctx)
		switch {
		case err != nil:
			return err
		case v.stale == 0:
			current = &s
			return nil
		case old == nil:
			old = &s
		}
		return cluster.Transientf("it has not heard from a majority for %s", v.stale)
	})
	switch {
	case current != nil:
		return *current
	case old != nil:
		old.doubt = fmt.Sprintf("no server that hears from a majority answers: which nodes are alive, and what gateways serve, may be as it was (%s)", err)
		return *old
	}
	return said{nothing: true, doubt: fmt.Sprintf("no server answers: which nodes are alive, and what gateways serve, is not known (%s)", err)}
}

// cluster is what one server says.
func (v *voice) cluster(ctx context.Context) (said, error) {
	s := said{alive: map[string]bool{}, gateways: map[string]string{}}
	nodes, err := v.Nodes(ctx)
	if err != nil {
		return s, err
	}
	for _, n := range nodes {
		s.alive[string(n.ID)] = n.Alive
	}
	st, err := v.Status(ctx)
	if err != nil {
		return s, err
	}
	for _, g := range st.Gateways {
		s.gateways[string(g.Node)] = g.Error
		if g.Error == "" && g.Traefik == "" {
			s.gateways[string(g.Node)] = "Traefik does not serve yet"
		}
	}
	return s, nil
}
