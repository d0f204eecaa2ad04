package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

// lookAfter is how long the servers that a node knows have to answer before those of
// --join are asked.
const lookAfter = 2 * time.Second

// knows reports whether a list of --join has a server that the membership has too.
func knows(m v1.Membership, join string) bool {
	return slices.ContainsFunc(strings.Split(join, ","), func(s string) bool { return slices.Contains(m.Servers, s) })
}

// joinsHere is for a node that has joined and is given --join: the servers that it
// names may have been removed or moved since, which is no reason for an agent not to
// start; it asks them while it runs. A person who joins is told what they say.
func (j *joined) joinsHere(ctx context.Context) error {
	if j.Join == "" || knows(j.membership, j.Join) || j.waits {
		return nil
	}
	m, err := j.askJoin(ctx)
	if err == nil {
		j.use(m.Servers, m.Etcd)
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
	m, err := j.askRenewal(ctx, strings.Split(j.Join, ","))
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
func (j *joined) askRenewal(ctx context.Context, servers []string) (m v1.Membership, err error) {
	dir := filepath.Join(j.DataDir, "pki")
	csr, err := pki.PrepareMember(dir)
	if err != nil {
		return m, err
	}
	m, err = askAt[v1.Membership](ctx, j, servers, http.MethodPost, "/v1/node/renew", v1.Renew{Request: string(csr)})
	if err != nil {
		return m, err
	}
	if err := j.keep(dir, m); err != nil {
		return m, err
	}
	return m, j.member.Reload()
}
