package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/tunnel"
)

// users says who may do what in the store. *store.Etcd does.
type users interface {
	Users(ctx context.Context) ([]string, error)
	AddUser(ctx context.Context, name string, grants []store.Grant) error
	RemoveUser(ctx context.Context, name string) error
}

// records is where the nodes' records are. store.Store is.
type records interface {
	Get(ctx context.Context, key string) (store.Entry, error)
	List(ctx context.Context, prefix string) ([]store.Entry, int64, error)
}

// admission lets machines join as nodes: it signs their certificates and opens
// the embedded etcd to them, each to its own keys.
type admission struct {
	*machine
	users   users
	records records
	hub     *tunnel.Hub
	mirror  *store.Mirror
	self    cluster.ServerInfo
}

var _ api.Admission = (*admission)(nil)

// where is how other machines reach the servers: their API, and their store.
func (a *admission) where() (servers, etcd []string) {
	servers, etcd = []string{a.self.API}, []string{a.self.Etcd}
	a.mirror.Read(func(v store.View) {
		for _, s := range store.Servers(v) {
			if s.Node != a.self.Node && s.API != "" {
				servers, etcd = append(servers, s.API), append(etcd, s.Etcd)
			}
		}
	})
	return servers, etcd
}

// NewToken implements api.Admission.
func (a *admission) NewToken() (secret, text string, servers []string, err error) {
	t, err := pki.NewJoinToken(a.pki.Fingerprint())
	servers, _ = a.where()
	return t.Secret, t.Text(), servers, err
}

// Key implements api.Admission.
func (a *admission) Key(csr []byte) (string, error) {
	r, err := pki.ParseRequest(csr)
	return r.Key, err
}

// Admit implements api.Admission.
func (a *admission) Admit(ctx context.Context, id cluster.NodeID, csr []byte) (v1.Membership, error) {
	r, err := pki.ParseRequest(csr)
	if err != nil {
		return v1.Membership{}, err
	}
	names, err := a.users.Users(ctx)
	if err != nil {
		return v1.Membership{}, err
	}
	spec, err := a.follow(ctx, id, names)
	if err != nil {
		return v1.Membership{}, err
	}
	if spec.Key != r.Key {
		return v1.Membership{}, &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("this machine is not node %s of the cluster any more: it was removed, or another machine has joined under its name", id)}
	}
	chain, err := a.pki.IssueNode(id, r, a.now())
	if err != nil {
		return v1.Membership{}, err
	}
	servers, etcd := a.where()
	return v1.Membership{
		Cluster: a.cluster, Node: id, CA: string(a.pki.PEM()), Certificate: string(chain),
		Etcd: etcd, Servers: servers, Pool: a.Pool, ServiceRange: a.ServiceRange,
		SampleEvery: a.AutoscalePeriod / samplesPerLook, Gateway: spec.Gateway,
	}, nil
}

// follow makes who may use the store under a node's name what the node's record says:
// the machine with its key, or nobody where there is none. names are the users that
// there are; one that is made meanwhile is whoever's that makes it.
//
// The record and the users cannot be written at once, and other servers do both too. So
// whoever changes the record follows it afterwards, and all who follow it look again
// once they are done: the last of them has seen the last record.
func (a *admission) follow(ctx context.Context, id cluster.NodeID, names []string) (cluster.NodeSpec, error) {
	for {
		spec, rev, err := a.record(ctx, id)
		if err != nil {
			return spec, err
		}
		own := ""
		if spec.Key != "" {
			own = pki.MemberName(id, spec.Key)
			names = append(names, own) // to be removed should the record go
		}
		failed := a.openTo(ctx, id, own, store.NodeGrants(spec), names)
		_, now, err := a.record(ctx, id)
		if err != nil {
			return spec, err
		}
		if now == rev {
			return spec, failed
		}
	}
}

// openTo lets the user own, if it is not "", use the store as far as grants, and no
// other of the node's users among names.
func (a *admission) openTo(ctx context.Context, id cluster.NodeID, own string, grants []store.Grant, names []string) error {
	for _, name := range names {
		if node, ok := pki.MemberNode(name); !ok || node != id || name == own {
			continue
		}
		if err := a.users.RemoveUser(ctx, name); err != nil {
			return err
		}
	}
	if own == "" {
		return nil
	}
	return a.users.AddUser(ctx, own, grants)
}

// record is a node's record and its revision, 0 when there is none.
func (a *admission) record(ctx context.Context, id cluster.NodeID) (spec cluster.NodeSpec, rev int64, err error) {
	key := store.NodeSpecKey(id)
	e, err := a.records.Get(ctx, key)
	switch {
	case cluster.KindOf(err) == cluster.KindNotFound:
		return cluster.NodeSpec{ID: id}, 0, nil
	case err != nil:
		return spec, 0, err
	}
	if err := json.Unmarshal(e.Value, &spec); err != nil {
		return spec, 0, cluster.Invalidf("%s does not decode: %w", key, err)
	}
	spec.ID = id
	return spec, e.Rev, nil
}

// keepUsers opens the store to the nodes that joined, as far as this version's nodes
// need, and to no others, once the store answers.
func (a *admission) keepUsers(ctx context.Context) error {
	return untilDone(ctx, a.Log, "give nodes what they need", func() error { return a.followAll(ctx) })
}

// followAll follows the records of all nodes, and closes the store to users of nodes
// that have none: whoever removed such a node, or let it in, did not get to the end.
func (a *admission) followAll(ctx context.Context) error {
	names, err := a.users.Users(ctx)
	if err != nil {
		return err
	}
	entries, _, err := a.records.List(ctx, store.PrefixNodes)
	if err != nil {
		return err
	}
	of := map[cluster.NodeID][]string{}
	for _, name := range names {
		if id, ok := pki.MemberNode(name); ok {
			of[id] = append(of[id], name)
		}
	}
	for _, e := range entries {
		var spec cluster.NodeSpec
		if strings.HasSuffix(e.Key, "/spec") && json.Unmarshal(e.Value, &spec) == nil && spec.Key != "" {
			of[spec.ID] = append(of[spec.ID], pki.MemberName(spec.ID, spec.Key))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(of)) {
		spec, err := a.follow(ctx, id, of[id])
		switch {
		case cluster.KindOf(err) == cluster.KindInvalid:
			a.Log.Error("cannot read who a node is; it keeps what it had", "error", err)
		case err != nil:
			return err
		case spec.Key == "":
			a.Log.Warn("closed the store to a node that was removed", "node", id)
		}
	}
	return nil
}

// Expel implements api.Admission.
func (a *admission) Expel(ctx context.Context, id cluster.NodeID) (bool, error) {
	names, err := a.users.Users(ctx)
	if err != nil {
		return false, err
	}
	spec, err := a.follow(ctx, id, names)
	if err != nil || spec.Key != "" {
		return false, err
	}
	a.hub.Cut(id)
	return slices.ContainsFunc(names, func(name string) bool {
		node, ok := pki.MemberNode(name)
		return ok && node == id
	}), nil
}

// Identify implements api.Admission.
func (*admission) Identify(c *x509.Certificate) (api.Bearer, bool) {
	if c.Subject.CommonName == pki.NameRoot {
		return api.Bearer{Server: true}, true
	}
	id, ok := pki.MemberNode(c.Subject.CommonName)
	if !ok {
		return api.Bearer{}, false
	}
	key, err := pki.KeyID(c.PublicKey)
	return api.Bearer{Node: id, Key: key}, err == nil
}

// Tunnel implements api.Admission.
func (a *admission) Tunnel(ctx context.Context, id cluster.NodeID, instance, from string) (func(context.Context, net.Conn), error) {
	if err := a.hub.Claim(ctx, id, instance, from); err != nil {
		return nil, err
	}
	return func(ctx context.Context, conn net.Conn) {
		_ = a.hub.Serve(ctx, id, instance, conn) // the hub logs how it ended
	}, nil
}
