package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/tunnel"
)

// joined is a node that is no server: its certificate, and where the cluster is.
type joined struct {
	local
	member  *pki.Member
	waits   bool // for a server that lets it join
	refused bool // it was removed

	instance string // of this start
	again    bool   // it joined before: what it has serves until it may again

	token func() (string, error) // once it runs

	mu         sync.Mutex
	membership v1.Membership // once it runs, under mu
}

// servers are where the servers' API is, as far as is known.
func (j *joined) servers() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.membership.Servers
}

// moved keeps where the servers are now, for the next start too. The results are nil
// when nothing changed, or nothing is known.
func (j *joined) moved(all []cluster.ServerInfo) (servers, etcd []string) {
	for _, s := range all {
		if s.API != "" && s.Etcd != "" {
			servers, etcd = append(servers, s.API), append(etcd, s.Etcd)
		}
	}
	return j.use(servers, etcd)
}

// use keeps where the servers are; its results are those of moved.
func (j *joined) use(servers, etcd []string) (_, _ []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(servers) == 0 || slices.Equal(servers, j.membership.Servers) && slices.Equal(etcd, j.membership.Etcd) {
		return nil, nil
	}
	j.membership.Servers, j.membership.Etcd = servers, etcd
	if err := writeMembership(j.DataDir, j.membership); err != nil {
		j.Log.Error("cannot keep on disk where the servers are", "error", err)
	}
	j.Log.Info("the servers are", "servers", servers)
	return servers, etcd
}

// dialer makes tunnels to servers.
func (j *joined) dialer(h http.Handler) func(server string) *tunnel.Dialer {
	return func(server string) *tunnel.Dialer {
		return &tunnel.Dialer{Server: server, TLS: j.member.TLS(), Handler: h, Instance: j.instance, Log: j.Log.Named("tunnel")}
	}
}

const membershipFile = "membership.json"

// RunAgent runs a node of a cluster whose servers are elsewhere, until ctx ends;
// its containers stay running. A machine that has not joined does so first, with
// the token that token returns.
func RunAgent(ctx context.Context, cfg Config, token func() (string, error), now func() time.Time) error {
	if err := requireRoot("fairlead agent"); err != nil {
		return err
	}
	return explainFull(whileMoved(ctx, func() error { return runAgent(ctx, cfg, token, now) }), cfg.DataDir)
}

func runAgent(ctx context.Context, cfg Config, token func() (string, error), now func() time.Time) error {
	if err := cfg.awaitClock(ctx, now); err != nil {
		return ignoreCancel(err)
	}
	j, release, err := openJoined(ctx, cfg, token, now, true)
	if err != nil {
		return err
	}
	defer release()
	find := j.own(true, j.servers)
	j.settleAddress(find, true)
	j.Log.Info("starting", "version", j.Version, "node", j.Node, "cluster", j.cluster, "address", j.Advertise, "servers", j.membership.Servers)
	if err := j.onlyOne(ctx); err != nil {
		return err
	}
	st, err := store.NewEtcd(store.EtcdConfig{Endpoints: j.membership.Etcd, TLS: j.member.TLS()}, j.Log)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	n := &nodeParts{local: &j.local, ctx: gctx, g: g, store: st, credentials: j.login, fetch: j.fetch}
	if err := n.startJoined(); err != nil {
		return errors.Join(err, st.Close())
	}
	g.Go(func() error {
		return j.watchAddress(gctx, find, func(from, to string) error {
			j.Log.Info("this node's address has changed; the other nodes are told", "from", from, "to", to)
			n.agent.SetAddress(to)
			return nil
		})
	})
	g.Go(func() error { return j.watchPast(gctx, st, store.PlacementPrefix(cluster.NodeID(j.Node))) })
	t := &tunnels{dialer: j.dialer(n.handler())}
	t.set(gctx, g, j.membership.Servers)
	mirror := store.NewMirror(st, store.PrefixServers, j.Log.Named("mirror"))
	g.Go(func() error { return mirror.Run(gctx) })
	use := func(servers, etcd []string) {
		if servers != nil {
			st.SetEndpoints(etcd)
			t.set(gctx, g, servers)
		}
	}
	g.Go(func() error {
		return followServers(gctx, mirror, func(all []cluster.ServerInfo) { use(j.moved(all)) })
	})
	g.Go(func() error { return j.findServers(gctx, lookAfter, t.connected, use) })
	g.Go(func() error { return j.renew(gctx) })
	g.Go(func() error { return j.watchClock(gctx) })
	if err := j.serveStatus(gctx, g, t); err != nil {
		j.Log.Error("cannot say on the local socket how this node is", "error", err)
	}
	err = ignoreCancel(g.Wait())
	if cluster.KindOf(err) == cluster.KindForbidden {
		err = &cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("this node is %w; its containers run on. To join again, run the line of `fairlead node invite` here: %w", cluster.ErrRemoved, err)}
	}
	j.Log.Info("stopping")
	return errors.Join(err, st.Close())
}

// startJoined starts the agent, and the gateway where this node runs one: that one
// reads what is sealed to this node.
func (n *nodeParts) startJoined() error {
	if err := n.startAgent(); err != nil {
		return err
	}
	if n.NoGateway {
		n.retireGateway()
		return nil
	}
	mirror := store.NewMirror(n.store, store.GatewayFilesPrefix(cluster.NodeID(n.Node)), n.Log.Named("mirror"))
	n.g.Go(func() error { return mirror.Run(n.ctx) })
	return n.startGateway(mirror)
}

// serveStatus says on the local socket how this node is: it is no API, that is the
// servers'.
func (j *joined) serveStatus(ctx context.Context, g *errgroup.Group, t *tunnels) error {
	l, err := j.localSocket()
	if err != nil {
		return err
	}
	answer := func(w http.ResponseWriter, code int, kind string, v any) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "application/json", map[string]any{
			"version": j.Version, "node": j.Node, "cluster": j.cluster, "servers": strings.Join(j.servers(), ","),
			"serving": t.connected(),
		})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, "application/problem+json", v1.Problem{
			Title: "not found", Status: http.StatusNotFound, Kind: cluster.KindNotFound.String(),
			Detail: "this machine is a node without a server: ask one of " + strings.Join(j.servers(), ", ") + ", with `fairlead context add`",
		})
	})
	serve(ctx, g, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, l)
	return nil
}

// readMembership reads which cluster this node is of.
func readMembership(dataDir string) (m v1.Membership, err error) {
	path := filepath.Join(dataDir, membershipFile)
	b, err := os.ReadFile(path) //nolint:gosec // a fixed name in our own directory
	if err != nil {
		return m, fmt.Errorf("read which cluster this node is of: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, cluster.Invalidf("%s does not decode: %w; remove %s to join again", path, err, dataDir)
	}
	return m, nil
}

// isJoined reports whether a data directory is that of a node which has joined.
func isJoined(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, membershipFile))
	return err == nil
}

// joinNow joins and lets go of the directories again. A node that is to become a
// gateway may be running: what it wrote when it joined is replaced.
func joinNow(ctx context.Context, cfg Config, token func() (string, error)) error {
	if isJoined(cfg.DataDir) {
		j := &joined{local: local{Config: cfg, now: time.Now, worker: true}} //nolint:forbidigo // the command's own clock
		return j.open(ctx, filepath.Join(cfg.DataDir, "pki"), token)
	}
	_, release, err := openJoined(ctx, cfg, token, time.Now, false) //nolint:forbidigo // the command's own clock
	if err == nil {
		release()
	}
	return err
}

// openJoined opens the node's directories and keys, and joins when it has not. It
// waits for a server that answers, or else says that none does.
func openJoined(ctx context.Context, cfg Config, token func() (string, error), now func() time.Time, wait bool) (*joined, func(), error) {
	dir := filepath.Join(cfg.DataDir, "pki")
	if pki.IsAuthority(dir) {
		return nil, nil, cluster.Invalidf("%s is a server's: give the agent another --data-dir, or run `fairlead server`", cfg.DataDir)
	}
	release, err := openDirs(cfg)
	if err != nil {
		return nil, nil, err
	}
	j := &joined{local: local{Config: cfg, now: now, worker: true}, waits: wait, instance: rand.Text()}
	if err := j.open(ctx, dir, token); err != nil {
		release()
		return nil, nil, err
	}
	return j, release, nil
}

func (j *joined) open(ctx context.Context, dir string, token func() (string, error)) (err error) {
	token = sync.OnceValues(token) // standard input is read once
	j.member, err = pki.OpenMember(dir, j.now)
	if err == nil {
		j.membership, err = readMembership(j.DataDir)
		if err == nil {
			err = j.joinsHere(ctx, token)
		}
		// To become a gateway it asks again, with a token.
		if err == nil && !j.NoGateway && !j.membership.Gateway {
			err = j.becomeGateway()
		}
	}
	if cluster.KindOf(err) == cluster.KindNotFound {
		if err := j.joinAs(ctx, dir, token); err != nil {
			return err
		}
		if j.member, err = pki.OpenMember(dir, j.now); err != nil {
			return err
		}
		j.membership, err = readMembership(j.DataDir)
	}
	if err != nil {
		return err
	}
	if j.identity, err = pki.NodeIdentity(dir); err != nil {
		return err
	}
	if j.cluster, err = pki.ClusterID(dir); err != nil {
		return err
	}
	if err := j.asJoined(j.membership.Node, j.membership.Pool, j.membership.ServiceRange, j.waits); err != nil {
		return err
	}
	j.AutoscalePeriod = j.membership.SampleEvery * samplesPerLook
	j.services, err = netip.ParsePrefix(j.ServiceRange)
	return err
}

// becomeGateway is KindNotFound when the node may ask for a gateway now.
func (j *joined) becomeGateway() error {
	if j.Join == "" {
		return cluster.Invalidf("node %s joined without a gateway: give --join ADDRESS:PORT of a server with --gateway, and a token of `fairlead node invite`", j.membership.Node)
	}
	return cluster.NotFoundf("node %s is no gateway yet", j.membership.Node)
}

// join asks the server for membership and keeps it. The token pins the cluster's
// authority: nothing is told to a server that another one signed.
func (j *joined) join(ctx context.Context, dir string, token func() (string, error)) error {
	if j.Join == "" {
		return cluster.Invalidf("this machine has not joined a cluster: give --join ADDRESS:PORT of a server, with the token that `fairlead node invite` prints there")
	}
	text, err := token()
	if err != nil {
		return err
	}
	t, err := pki.ParseJoinToken(text)
	if err != nil {
		return err
	}
	node := cluster.NodeID(j.Node)
	if j.membership.Node != "" { // it joined before
		node = j.membership.Node
		if t.Fingerprint != j.member.Fingerprint() {
			return cluster.Invalidf("that token is another cluster's: this machine is node %s of that of %s", node, strings.Join(j.servers(), ", "))
		}
	}
	csr, err := pki.PrepareMember(dir)
	if err != nil {
		return err
	}
	var nets []cluster.HostNet
	if j.membership.Node == "" { // else it is a member, and what overlaps an alarm
		nets = j.joinNets()
	}
	volumes := j.joinVolumes(ctx)
	m, err := j.admitted(ctx, func() (v1.Membership, error) {
		m, err := askPinned[v1.Membership](ctx, j.Join, t.Fingerprint, "/v1/join",
			v1.Join{Token: t.Secret, Node: node, Request: string(csr), Version: j.Version, Gateway: !j.NoGateway, Networks: nets, Volumes: volumes})
		return m, blameClock(err, j.now())
	})
	if err != nil {
		return err
	}
	j.Log.Info("joined", "cluster", m.Cluster, "server", j.Join)
	return j.keep(dir, m)
}

// admitted asks until a server answers, if the agent is to wait for one: it may have
// been started before them, or while they are away. What a server refuses ends it.
func (j *joined) admitted(ctx context.Context, ask func() (v1.Membership, error)) (v1.Membership, error) {
	last := ""
	for wait := firstRetry; ; wait = min(2*wait, maxRetry) {
		m, err := ask()
		if err == nil || !j.waits || j.again || cluster.KindOf(err) != cluster.KindTransient || ctx.Err() != nil {
			return m, err
		}
		if text := err.Error(); text != last {
			last = text
			j.Log.Warn("no server lets this machine join yet; asking again", "error", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return m, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// keep writes a membership to disk; the certificate, which says that it is whole, last.
func (j *joined) keep(dir string, m v1.Membership) error {
	if err := writeMembership(j.DataDir, m); err != nil {
		return err
	}
	return pki.SaveMember(dir, m.Cluster, []byte(m.CA), []byte(m.Certificate))
}

func writeMembership(dataDir string, m v1.Membership) error {
	m.CA, m.Certificate = "", ""
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dataDir, membershipFile), append(b, '\n'))
}

// renew gets the node's next certificate while the agent runs, long before the
// one it has ends, and learns where the servers are.
func (j *joined) renew(ctx context.Context) error {
	for wait := time.Minute; ; {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		wait = 10 * time.Minute // also of a machine that slept
		if !j.member.Due() && j.lapsed() == "" {
			continue
		}
		if err := j.renewNow(ctx); err != nil {
			j.Log.Error("could not renew this node's certificate; will retry", "error", err)
		}
	}
}

func (j *joined) renewNow(ctx context.Context) error {
	if j.lapsed() != "" {
		return j.rejoin(ctx)
	}
	if _, err := j.askRenewal(ctx, j.member.TLS(), j.servers()); err != nil {
		return err
	}
	j.Log.Info("renewed this node's certificate")
	return nil
}

// login asks a server for the login of an image registry.
func (j *joined) login(ctx context.Context, registry string) (user, password string, err error) {
	l, err := askServers[v1.Login](ctx, j, http.MethodGet, "/v1/node/login?"+url.Values{"registry": {registry}}.Encode(), nil)
	return l.Username, l.Password, err
}

// fetch asks a server for an image that another node has.
func (j *joined) fetch(ctx context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
	q := url.Values{"ref": {ask.Ref}, "id": {ask.ID}, "whole": {strconv.FormatBool(ask.Whole)}}
	for _, n := range ask.Not {
		q.Add("not", string(n))
	}
	err := cluster.Transientf("this node knows no server")
	for _, s := range j.servers() {
		tr := &http.Transport{TLSClientConfig: j.member.TLS(), DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute}
		var resp *http.Response
		if resp, err = send(ctx, tr, http.MethodGet, "https://"+s+"/v1/node/image?"+q.Encode(), nil); err != nil { //nolint:bodyclose // whose reader closes it
			continue
		}
		if resp.StatusCode == http.StatusOK {
			h := resp.Header
			return cluster.ImageSent{
				ReadCloser: resp.Body, From: cluster.NodeID(h.Get(v1.HeaderImageFrom)), Content: h.Get(v1.HeaderImageContent),
				Pulled: h.Get(v1.HeaderImagePulled) == "true",
			}, nil
		}
		err = refusal(resp)
		if cluster.KindOf(err) != cluster.KindTransient {
			return cluster.ImageSent{}, err
		}
	}
	return cluster.ImageSent{}, err
}
