package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// Admission lets machines into the cluster as nodes, and out of it.
type Admission interface {
	// NewToken makes a join token: the secret, and its text for people.
	NewToken() (secret, text string, servers []string, err error)
	// Key names the public key of a certificate request, checked.
	Key(csr []byte) (string, error)
	// Admit opens the store to a node whose record has the key of the request, and signs
	// its certificate; without such a record it is KindForbidden. It may be repeated.
	Admit(ctx context.Context, id cluster.NodeID, csr []byte) (v1.Membership, error)
	// Expel closes the store to a node that has no record, and cuts its tunnel; it says
	// whether the store was open to one. It may be repeated.
	Expel(ctx context.Context, id cluster.NodeID) (bool, error)
	// Identify reads whose a verified certificate is; false: no node's and no server's.
	Identify(c *x509.Certificate) (Bearer, bool)
	// Tunnel returns what serves a tunnel of a node until it ends. It is KindConflict
	// while another machine, which answers, is connected as the node. An instance is of
	// one start of an agent, "" of agents that have none.
	Tunnel(ctx context.Context, id cluster.NodeID, instance, from string) (func(context.Context, net.Conn), error)
}

// Bearer is whose a certificate is: a node's with this key, or a server's, which
// may speak for any node.
type Bearer struct {
	Node   cluster.NodeID
	Key    string
	Server bool
	From   string // the address that it asks from
}

const (
	joinPath = "/v1/join"
	// nodePrefix is where nodes ask; nobody else may, and they may nothing else.
	nodePrefix = "/v1/node/"
	tunnelPath = nodePrefix + "tunnel"

	defaultInvite = time.Hour
	maxInvite     = 30 * 24 * time.Hour
)

func (s *Server) registerJoin(api huma.API) {
	handle(api, op(http.MethodPost, "/nodes/invite", "invite-node", "nodes", "Make a token that machines join with; it is shown this once"), s.invite)
	handle(api, op(http.MethodDelete, "/nodes/{node}", "remove-node", "nodes", "Refuse a node from now on, and forget it"), s.removeNode)
	handle(api, op(http.MethodPost, "/join", "join", "nodes", "Become a node; needs a join token"), s.join)
	handle(api, op(http.MethodPost, "/node/renew", "renew-node", "nodes", "A node's next certificate; for nodes"), s.renewNode)
	handle(api, op(http.MethodGet, "/node/login", "node-login", "nodes", "The login of an image registry; for nodes"), s.nodeLogin)
	img := op(http.MethodGet, "/node/image", "node-image", "nodes", "An image that another node has, as the engine's tar; for nodes")
	addProblem(api, &img)
	img.Responses["200"] = &huma.Response{Description: "A tar", Content: map[string]*huma.MediaType{tarType: {}}}
	huma.Register(api, img, s.nodeImage)
	handleUpgrade(api, op(http.MethodPost, "/node/tunnel", "tunnel", "nodes", "A node's tunnel; for nodes; upgrades to "+v1.ProtocolTunnel), v1.ProtocolTunnel, s.tunnel)
}

type nodeKey struct{}

// nodeOf is the node that asks.
func nodeOf(ctx context.Context) cluster.NodeID { return bearerOf(ctx).Node }

func bearerOf(ctx context.Context) Bearer {
	b, _ := ctx.Value(nodeKey{}).(Bearer)
	return b
}

// asNode says which node shows its certificate; false when none does, or one that
// the cluster does not know (any more).
func (s *Server) asNode(r *http.Request) (Bearer, bool) {
	if s.Admission == nil || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Bearer{}, false
	}
	b, ok := s.Admission.Identify(r.TLS.VerifiedChains[0][0])
	b.From = r.RemoteAddr
	switch {
	case !ok:
		return Bearer{}, false
	case b.Server:
		b.Node = cluster.NodeID(r.Header.Get(v1.HeaderNode))
		return b, r.URL.Path == tunnelPath && cluster.ValidName("node", string(b.Node)) == nil
	}
	return b, s.isNode(b)
}

// isNode reports whether the cluster has a node with this key.
func (s *Server) isNode(b Bearer) bool {
	spec, known := s.nodeSpec(b.Node)
	return known && spec.V.Key == b.Key
}

func (s *Server) nodeSpec(id cluster.NodeID) (spec store.Value[cluster.NodeSpec], ok bool) {
	s.Mirror.Read(func(v store.View) {
		var err error
		spec, ok, err = store.One[cluster.NodeSpec](v, store.NodeSpecKey(id))
		ok = ok && err == nil
	})
	return spec, ok
}

func (s *Server) noAdmission() error {
	if s.Admission == nil {
		return cluster.Invalidf("no machine can join this cluster: its server listens for none (--listen is none)")
	}
	return nil
}

type inviteInput struct{ Body v1.Invite }

func (s *Server) invite(ctx context.Context, in *inviteInput) (v1.Invitation, error) {
	if err := s.noAdmission(); err != nil {
		return v1.Invitation{}, err
	}
	if in.Body.Server {
		if err := s.noServers(); err != nil {
			return v1.Invitation{}, err
		}
	}
	ttl, uses := in.Body.TTL.D(), max(in.Body.Uses, 1)
	if ttl == 0 {
		ttl = defaultInvite
	}
	if ttl < time.Minute || ttl > maxInvite {
		return v1.Invitation{}, cluster.Invalidf("a join token is good for a minute to 30 days, not %s", ttl)
	}
	if err := s.forgetExpired(ctx); err != nil {
		return v1.Invitation{}, err
	}
	secret, text, servers, err := s.Admission.NewToken()
	if err != nil {
		return v1.Invitation{}, err
	}
	hash, now := tokenHash(secret), s.Now().UTC()
	rec := cluster.Token{Name: "join-" + hash[:6], Created: now, By: who(ctx), Join: true, Server: in.Body.Server, Expires: now.Add(ttl), Uses: uses}
	if err := s.replace(ctx, store.TokenKey(hash), rec); err != nil {
		if cluster.KindOf(err) == cluster.KindTransient {
			err = fmt.Errorf("no machine can join now: %w; if no majority of the servers answers, `fairlead server ls` says which do not", err)
		}
		return v1.Invitation{}, err
	}
	s.Log.Info("made a join token", "token", rec.Name, "expires", rec.Expires, "uses", uses, "by", rec.By)
	return v1.Invitation{Token: rec, Value: text, Servers: servers}, nil
}

// forgetExpired removes join tokens that nobody can join with any more.
func (s *Server) forgetExpired(ctx context.Context) error {
	for _, t := range s.tokens() {
		if t.V.Join && !t.V.Joins(s.Now()) {
			if err := s.forget(ctx, t.Key, nil); err != nil && cluster.KindOf(err) != cluster.KindNotFound {
				return err
			}
		}
	}
	return nil
}

type joinInput struct{ Body v1.Join }

func (s *Server) join(ctx context.Context, in *joinInput) (out v1.Membership, err error) {
	if err := s.noAdmission(); err != nil {
		return out, err
	}
	id := in.Body.Node
	if err := cluster.ValidName("node", string(id)); err != nil {
		return out, err
	}
	if err := s.fits(in.Body.Networks); err != nil {
		return out, err
	}
	csr := []byte(in.Body.Request)
	key, err := s.Admission.Key(csr)
	if err != nil {
		return out, err
	}
	err = s.decide(ctx, func(ctx context.Context) error {
		steps, err := s.admit(ctx, cluster.NodeSpec{ID: id, Key: key, Gateway: in.Body.Gateway}, in.Body)
		if err != nil {
			return err
		}
		return s.commit(ctx, nil, steps)
	})
	if err != nil {
		return v1.Membership{}, err
	}
	// The store opens to those alone that have a record. When that fails, the node asks
	// again, which costs no second use of the token.
	if out, err = s.Admission.Admit(ctx, id, csr); err != nil {
		return v1.Membership{}, err
	}
	s.Log.Info("a node joined", "node", id, "version", in.Body.Version, "gateway", out.Gateway)
	return out, nil
}

// fits refuses a machine whose own networks overlap with the cluster's ranges: it would
// cut itself off from the one or the other.
func (s *Server) fits(host []cluster.HostNet) error {
	if text := cluster.Overlap(s.Ranges, host); text != "" {
		return cluster.Invalidf("this machine cannot join, nothing was changed: of the cluster's ranges, %s. Give the machine other addresses, or remove the route; or begin a cluster with other ranges, by these flags of its first server", text)
	}
	return nil
}

// admit decides whether a node may join, and what to write. A node that asks again
// with its own key, since an answer was lost, writes nothing; one that is to become
// a gateway now does.
func (s *Server) admit(ctx context.Context, want cluster.NodeSpec, asks v1.Join) ([]step, error) {
	id := want.ID
	tok, found := s.joinToken(asks.Token)
	switch {
	case !found:
		return nil, unknownToken("node")
	case tok.V.Server:
		return nil, &cluster.Error{Kind: cluster.KindForbidden, Msg: "that token is for servers (system install --server); `fairlead node invite` makes one for a node"}
	}
	spec, known := s.nodeSpec(id)
	again := known && spec.V.Key == want.Key
	if again && s.Now().Before(tok.V.Expires) && (spec.V.Gateway || !want.Gateway) {
		return nil, nil
	}
	if !tok.V.Joins(s.Now()) {
		return nil, endedToken("node")
	}
	var steps []step
	if again {
		want = spec.V
		want.Gateway = true
	} else {
		_, there := s.read("").nodes[id]
		err := s.free(id, s.isServer(id), there || known, asks.Volumes)
		if err != nil {
			return nil, err
		}
		if steps, err = s.said(ctx, id); err != nil {
			return nil, err
		}
	}
	node, err := put(store.NodeSpecKey(id), want, spec.Rev)
	if err != nil {
		return nil, err
	}
	if !again {
		node.conds = append(node.conds, store.Cond{Key: store.ServerSpecKey(id)})
	}
	left := tok.V
	left.Uses--
	token, err := put(tok.Key, left, tok.Rev)
	return append(append([]step{node, token}, s.found(id)...), steps...), err
}

// isServer reports whether there is a server of this name, or one was let in.
func (s *Server) isServer(id cluster.NodeID) (is bool) {
	s.Mirror.Read(func(v store.View) { is = store.IsServer(v, id) })
	return is
}

// found forgets that a node of this name was removed, or lost: another machine of that
// name has volumes of its own.
func (s *Server) found(id cluster.NodeID) (steps []step) {
	s.Mirror.Read(func(v store.View) {
		for _, k := range []string{store.NodeLostKey(id), store.NodeRemovedKey(id)} {
			if e, there := v.Entry(k); there {
				steps = append(steps, remove(e.Key, e.Rev))
			}
		}
	})
	return steps
}

// joinToken finds a join token by its secret.
func (s *Server) joinToken(secret string) (tok store.Value[cluster.Token], found bool) {
	s.Mirror.Read(func(v store.View) {
		var err error
		tok, found, err = store.One[cluster.Token](v, store.TokenKey(tokenHash(secret)))
		found = found && err == nil && tok.V.Join
	})
	return tok, found
}

func unknownToken(kind string) error {
	return &cluster.Error{Kind: cluster.KindForbidden, Msg: "the join token is not known here: it ended, was used up or removed; `fairlead " + kind + " invite` makes a new one"}
}

func endedToken(kind string) error {
	return &cluster.Error{Kind: cluster.KindForbidden, Msg: "the join token has ended or is used up; `fairlead " + kind + " invite` makes a new one"}
}

type renewInput struct{ Body v1.Renew }

func (s *Server) renewNode(ctx context.Context, in *renewInput) (v1.Membership, error) {
	id, csr := nodeOf(ctx), []byte(in.Body.Request)
	key, err := s.Admission.Key(csr)
	if err != nil {
		return v1.Membership{}, err
	}
	spec, ok := s.nodeSpec(id)
	if !ok || spec.V.Key != key {
		return v1.Membership{}, &cluster.Error{Kind: cluster.KindForbidden, Msg: "that is not this node's key: remove the node and join again"}
	}
	s.Log.Info("renews a node's certificate", "node", id)
	return s.Admission.Admit(ctx, id, csr)
}

type nodeLoginInput struct {
	Registry string `query:"registry" required:"true" maxLength:"300"`
}

// placed returns the apps that have a task with such a spec on a node. The store itself is
// asked: a node sees a task that is placed on it before a server's mirror may.
func placed(ctx context.Context, st store.Store, node cluster.NodeID, is func(cluster.TaskSpec) bool) ([]cluster.AppName, error) {
	list, _, err := st.List(ctx, store.PlacementPrefix(node))
	if err != nil {
		return nil, err
	}
	var out []cluster.AppName
	for _, e := range list {
		var p cluster.NodePlacement
		if err := json.Unmarshal(e.Value, &p); err == nil && is(p.Spec) && !slices.Contains(out, p.App) {
			out = append(out, p.App)
		}
	}
	return out, nil
}

// AppsWith are the apps that need an image on a node.
func AppsWith(ctx context.Context, st store.Store, node cluster.NodeID, ref, id string) ([]cluster.AppName, error) {
	return placed(ctx, st, node, func(t cluster.TaskSpec) bool { return t.Image == ref && t.ImageID == id })
}

// nodeLogin tells a node how to pull from a registry that one of its tasks needs.
func (s *Server) nodeLogin(ctx context.Context, in *nodeLoginInput) (v1.Login, error) {
	id := nodeOf(ctx)
	apps, err := placed(ctx, s.Store, id, func(t cluster.TaskSpec) bool {
		host, _, named := strings.Cut(t.Image, "/")
		if !named || !strings.ContainsAny(host, ".:") && host != "localhost" {
			host = "docker.io"
		}
		return host == strings.TrimPrefix(in.Registry, "index.")
	})
	if err != nil {
		return v1.Login{}, err
	}
	if len(apps) == 0 {
		return v1.Login{}, &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("no task of node %s has an image of %s", id, in.Registry)}
	}
	if s.Logins == nil {
		return v1.Login{}, nil
	}
	user, password, err := s.Logins(ctx, in.Registry)
	return v1.Login{Username: user, Password: password}, err
}

type nodeImageInput struct {
	Ref string `query:"ref" maxLength:"512"`
	ID  string `query:"id" maxLength:"200"`
	// Whole asks for the layers that the node has too.
	Whole bool             `query:"whole"`
	Not   []cluster.NodeID `query:"not,explode" maxItems:"100" doc:"nodes that sent another image"`
}

// nodeImage gives a node an image that one of its tasks needs.
func (s *Server) nodeImage(ctx context.Context, in *nodeImageInput) (*huma.StreamResponse, error) {
	id := nodeOf(ctx)
	apps, err := AppsWith(ctx, s.Store, id, in.Ref, in.ID)
	if err != nil {
		return nil, problemOf(err)
	}
	if len(apps) == 0 || s.Images == nil {
		return nil, problemOf(cluster.NotFoundf("no task of node %s has the image %s", id, in.Ref))
	}
	sent, err := s.Images(ctx, id, cluster.ImageAsk{Ref: in.Ref, ID: in.ID, Whole: in.Whole, Not: in.Not, Apps: apps})
	if err != nil {
		return nil, problemOf(err)
	}
	s.Log.Info("gives a node an image", "node", id, "image", in.Ref)
	tar := s.sendTar(ctx, sent, "image", in.Ref)
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader(v1.HeaderImageFrom, string(sent.From))
		hc.SetHeader(v1.HeaderImageContent, sent.Content)
		hc.SetHeader(v1.HeaderImagePulled, strconv.FormatBool(sent.Pulled))
		tar.Body(hc)
	}}, nil
}

type tunnelInput struct {
	Instance string `header:"Fairlead-Instance" maxLength:"100" doc:"of one start of an agent"`
}

func (s *Server) tunnel(ctx context.Context, in *tunnelInput) (func(context.Context, *upgraded), error) {
	b := bearerOf(ctx)
	serve, err := s.Admission.Tunnel(ctx, b.Node, in.Instance, b.From)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, u *upgraded) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		if !b.Server {
			go func() { cancel(s.awaitRemoval(ctx, b)) }()
		}
		serve(ctx, u)
	}, nil
}

// awaitRemoval returns once the cluster has no node with this key any more, by
// whichever server it was removed, or ctx ends.
func (s *Server) awaitRemoval(ctx context.Context, b Bearer) error {
	for {
		changed := s.Mirror.Changed()
		if !s.isNode(b) {
			return fmt.Errorf("node %s was removed from the cluster", b.Node)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}
