package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net"
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
	AddUser(ctx context.Context, name string, grants []store.Grant) error
	RemoveUser(ctx context.Context, name string) error
}

// admission lets machines join as nodes: it signs their certificates and opens
// the embedded etcd to them, each to its own keys.
type admission struct {
	*machine
	users  users
	hub    *tunnel.Hub
	mirror *store.Mirror
	self   cluster.ServerInfo
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
func (a *admission) Admit(ctx context.Context, spec cluster.NodeSpec, csr []byte) (v1.Membership, error) {
	id := spec.ID
	r, err := pki.ParseRequest(csr)
	if err != nil {
		return v1.Membership{}, err
	}
	if err := a.users.AddUser(ctx, pki.MemberName(id, r.Key), store.NodeGrants(spec)); err != nil {
		return v1.Membership{}, err
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

// keepGrants gives the nodes that joined what this version's nodes need, once the
// store answers.
func (a *admission) keepGrants(ctx context.Context, st store.Store) error {
	return untilDone(ctx, a.Log, "give nodes what they need", func() error { return a.regrant(ctx, st) })
}

// regrant gives the nodes that joined what this version's nodes need.
func (a *admission) regrant(ctx context.Context, st store.Store) error {
	entries, _, err := st.List(ctx, store.PrefixNodes)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var spec cluster.NodeSpec
		if !strings.HasSuffix(e.Key, "/spec") || json.Unmarshal(e.Value, &spec) != nil || spec.Key == "" {
			continue
		}
		if err := a.users.AddUser(ctx, pki.MemberName(spec.ID, spec.Key), store.NodeGrants(spec)); err != nil {
			return err
		}
	}
	return nil
}

// Expel implements api.Admission.
func (a *admission) Expel(ctx context.Context, id cluster.NodeID, key string) error {
	if err := a.users.RemoveUser(ctx, pki.MemberName(id, key)); err != nil {
		return err
	}
	a.hub.Cut(id)
	return nil
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
func (a *admission) Tunnel(ctx context.Context, id cluster.NodeID, conn net.Conn) {
	_ = a.hub.Serve(ctx, id, conn) // the hub logs how it ended
}
