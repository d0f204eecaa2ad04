package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/tunnel"
)

// lookAfter is how long the servers that a node knows have to answer before those of
// --join are asked.
const lookAfter = 2 * time.Second

// knows reports whether a list of --join has a server that the membership has too.
func knows(m v1.Membership, join string) bool {
	return slices.ContainsFunc(strings.Split(join, ","), func(s string) bool { return slices.Contains(m.Servers, s) })
}

// joinsHere looks at what a node that joined is started with. Its --join may name
// servers that were removed or moved since, which is no reason for an agent not to start:
// it asks them while it runs. A person who joins is told what they say. KindNotFound: it
// has to join again, and may.
func (j *joined) joinsHere(ctx context.Context, token func() (string, error)) error {
	if j.lapsed() != "" {
		j.again, j.token = true, token
		switch err := j.mayRejoin(); {
		case cluster.KindOf(err) == cluster.KindNotFound, !j.waits && j.Join != "":
			return err
		default:
			j.Log.Error("this node is not let in", "error", err)
			return nil
		}
	}
	if j.Join == "" || j.waits {
		return nil
	}
	m, err := j.askJoin(ctx)
	switch kind := cluster.KindOf(err); {
	case err == nil:
		j.use(m.Servers, m.Etcd)
	case kind == cluster.KindForbidden:
		j.refused = true
		return cluster.NotFoundf("this node is %w", cluster.ErrRemoved)
	case kind == cluster.KindTransient && knows(j.membership, j.Join):
		return nil
	}
	return err
}

// lapsed says why the node's certificate opens nothing; "" when it does.
func (j *joined) lapsed() string {
	if end, ended := j.member.Ended(); ended {
		return fmt.Sprintf("the certificate of node %s ended on %s, if this machine's clock is right", j.membership.Node, end.Format(time.DateOnly))
	}
	if begin, early := j.member.Begins(); early {
		return fmt.Sprintf("the certificate of node %s begins on %s, if this machine's clock is right: that of the server that signed it was ahead", j.membership.Node, begin.Format(time.DateOnly))
	}
	return ""
}

// mayRejoin is KindNotFound when the node's certificate has lapsed and it has what it
// needs to get another, else KindInvalid, with what to do.
func (j *joined) mayRejoin() error {
	says := j.lapsed()
	if j.Join != "" && j.token != nil {
		if text, err := j.token(); err == nil && strings.TrimSpace(text) != "" {
			return cluster.NotFoundf("%s", says)
		}
	}
	return cluster.Invalidf("%s: run `fairlead node invite` on a server, and the line that it prints here; what is kept here stays", says)
}

// rejoin gets a certificate by a token, as the one that the node has is ended.
func (j *joined) rejoin(ctx context.Context) error {
	if err := j.mayRejoin(); cluster.KindOf(err) != cluster.KindNotFound {
		return err
	}
	j.again = true
	if err := j.join(ctx, filepath.Join(j.DataDir, "pki"), j.token); err != nil {
		return err
	}
	return j.member.Reload()
}

// joinAs joins as what this machine is: a new node; one whose certificate has lapsed, with
// the key that it has; or one that was removed, with another: the former one stays
// refused, whoever has it. An agent whose certificate has lapsed goes on without when no
// server lets it in yet.
func (j *joined) joinAs(ctx context.Context, dir string, token func() (string, error)) error {
	settle := func(bool) error { return nil }
	if j.refused {
		var err error
		if settle, err = pki.SetAsideKey(dir); err != nil {
			return err
		}
	}
	err := j.join(ctx, dir, token)
	if cluster.KindOf(err) != cluster.KindTransient { // else it may have been let in
		err = errors.Join(err, settle(err == nil))
	}
	if err != nil && j.again && j.waits && ctx.Err() == nil {
		j.Log.Error("this node's certificate has ended, or not begun, and no server gives it another; will retry", "error", err)
		return nil
	}
	return err
}

// findServers asks the servers of --join where the servers are, until one answers, if
// this node knows none of them and no server that it knows answers: all have moved. It
// calls use with where they are.
func (j *joined) findServers(ctx context.Context, wait time.Duration, connected func() bool, use func(servers, etcd []string)) error {
	if j.Join == "" || knows(j.membership, j.Join) {
		return nil
	}
	for said := ""; ; wait = min(2*wait, time.Minute) {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		if connected() {
			j.Log.Warn("no server that this node knows is where --join says; it uses those that it knows", "join", j.Join, "servers", j.servers())
			return nil
		}
		m, err := j.askJoin(ctx)
		if err == nil {
			use(j.use(m.Servers, m.Etcd))
			return nil
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			j.Log.Warn("no server that this node knows answers, and none of --join says where they are; asking again", "servers", j.servers(), "error", err)
		}
	}
}

// askJoin asks the servers of --join, as the node that this is, where the servers are.
// Nothing is told to one that the node's own cluster did not sign.
func (j *joined) askJoin(ctx context.Context) (v1.Membership, error) {
	m, err := j.askRenewal(ctx, j.member.AnywhereTLS(), strings.Split(j.Join, ","))
	var other x509.UnknownAuthorityError
	switch {
	case errors.As(err, &other):
		return m, cluster.Invalidf("the server at --join %s is not of this node's cluster: this machine is node %s of that of %s. Leave out --join to stay there; to leave it, see \"Taking a node away\" in docs/clusters.md",
			j.Join, j.membership.Node, strings.Join(j.servers(), ", "))
	case err != nil:
		return m, fmt.Errorf("ask %s where the servers of this node's cluster are: %w", j.Join, err)
	}
	return m, nil
}

// askRenewal gets the node's next certificate, and where the servers are, from one of
// these servers.
func (j *joined) askRenewal(ctx context.Context, conf *tls.Config, servers []string) (m v1.Membership, err error) {
	dir := filepath.Join(j.DataDir, "pki")
	csr, err := pki.PrepareMember(dir)
	if err != nil {
		return m, err
	}
	m, err = askAt[v1.Membership](ctx, conf, servers, http.MethodPost, "/v1/node/renew", v1.Renew{Request: string(csr)})
	if err != nil {
		return m, err
	}
	if err := j.keep(dir, m); err != nil {
		return m, err
	}
	return m, j.member.Reload()
}

// onlyOneWait is how long the servers have to say that a node is connected already.
const onlyOneWait = 3 * time.Second

// onlyOne asks the servers whether another machine is connected as this node, before
// anything is started here: it is a copy, and all that it started would run twice. When
// no server answers, it is not known.
func (j *joined) onlyOne(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, onlyOneWait)
	defer cancel()
	tr := &http.Transport{TLSClientConfig: j.member.TLS(), DisableKeepAlives: true}
	servers := j.servers()
	refusals := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			// A tunnel that is never opened: without Upgrade the answer is another refusal.
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s+tunnel.Path, nil)
			if err != nil {
				return
			}
			req.Header.Set(v1.HeaderInstance, j.instance)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if err := refusal(resp); resp.StatusCode == http.StatusConflict {
				refusals[i] = &cluster.Error{Kind: cluster.KindConflict, Msg: err.Error()}
			}
		})
	}
	wg.Wait()
	return cmp.Or(refusals...)
}
