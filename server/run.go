package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/secrets/vault"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// local is what a node is and holds on disk, whatever its roles.
type local struct {
	Config
	now      func() time.Time
	cluster  string // ID
	identity *age.X25519Identity
	services netip.Prefix
	private  []uint16 // ports of this node that containers must not reach
	worker   bool     // its servers are elsewhere
	alarms   storeAlarms
}

// machine is a server's node: it has the authority and the key of secrets too.
type machine struct {
	local
	pki *pki.PKI
	key *sealed.Key // opens and seals what the store keeps in secret
	// vault resolves secrets that are elsewhere; nil without one.
	vault *vault.Client
	etcd  string // URL of the embedded etcd for other machines; "" when it is external
	// proxied is the URL of the external etcd's proxy for nodes; "" without one.
	proxied string
	// users are who may use the store, nil before it is opened.
	users users
	// members are the embedded etcd's; nil when it is external.
	members members
	// settings are what this server was told when it joined; nil: it was the first.
	settings *settings
	changer  control.Changer // the API: makes what hooks have run for
}

// Run runs a server until ctx ends. Containers and Traefik stay running.
// A machine that is to join other servers does so first, with the token that token
// returns.
func Run(ctx context.Context, cfg Config, token func() (string, error), now func() time.Time) error {
	if err := requireRoot("fairlead server"); err != nil {
		return err
	}
	return explainFull(whileMoved(ctx, func() error { return run(ctx, cfg, token, now) }), cfg.DataDir)
}

func run(ctx context.Context, cfg Config, token func() (string, error), now func() time.Time) error {
	keepDescriptors()
	if err := cfg.chooseRanges(cfg.ownNets); err != nil {
		return err
	}
	if err := cfg.awaitClock(ctx, now); err != nil {
		return ignoreCancel(err)
	}
	m, release, err := openMachine(ctx, cfg, token, now)
	if err != nil {
		return err
	}
	defer release()
	m.Log.Info("starting", "version", m.Version, "node", m.Node, "cluster", m.cluster, "address", m.Advertise)

	// Certificates are looked after from the beginning: without good ones the store does
	// not answer, and is waited for.
	rctx, endRenewal := context.WithCancel(ctx)
	var renewal sync.WaitGroup
	renewal.Go(func() { m.renew(rctx) })
	defer func() { endRenewal(); renewal.Wait() }()

	// The store outlives what uses it, so that the others can end in order.
	sctx, stopStore := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopStore(nil)
	early := context.AfterFunc(ctx, func() { stopStore(context.Cause(ctx)) })
	st, storeDone, err := m.openStore(sctx)
	if !early() && err != nil {
		return ignoreCancel(err) // it was told to end while it waited for the others
	}
	if err != nil {
		return err
	}
	gated := newGate(st)
	wait, err := m.openGate(ctx, gated, storeDone)
	if err != nil {
		stopStore(context.Canceled)
		return errors.Join(err, st.Close(), ignoreCancel(<-storeDone))
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case err := <-storeDone:
			return fmt.Errorf("the embedded etcd ended: %w", err)
		case <-gctx.Done():
			return nil
		}
	})
	g.Go(func() error { return wait(gctx) })
	g.Go(func() error {
		return m.watchAddress(gctx, m.own(false, m.others), func(from, to string) error {
			m.Log.Warn("this server's address has changed; beginning again with the new one, and what runs runs on", "from", from, "to", to)
			return errMoved
		})
	})
	if m.alarms.embedded == nil {
		g.Go(func() error { return m.watchAlarms(gctx, st) })
	}
	if m.vault != nil {
		g.Go(func() error { return m.vault.Run(gctx) })
	}
	if err := m.parts(gctx, g, gated, st.Conn()); err != nil {
		stopStore(context.Canceled)
		return errors.Join(err, ignoreCancel(g.Wait()), st.Close())
	}
	g.Go(func() error { return m.watchPast(gctx, st, store.LockKey("leader")) })
	err = ignoreCancel(g.Wait())
	m.Log.Info("stopping")
	stopStore(context.Canceled)
	return errors.Join(err, st.Close(), ignoreCancel(<-storeDone))
}

// watchPast ends a run whose store was put back to an older state: everything is read and
// said anew, and an empty one is refused.
func (c *Config) watchPast(ctx context.Context, st *store.Etcd, key string) error {
	err := st.AwaitPutBack(ctx, key)
	if errors.Is(err, store.ErrPutBack) {
		c.Log.Warn("the store was put back to an older state; beginning again with that one, and what runs runs on until it says otherwise")
	}
	return err
}

func ignoreCancel(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// openMachine makes the directories, takes them for this process
// and reads or makes the node's keys.
func openMachine(ctx context.Context, cfg Config, token func() (string, error), now func() time.Time) (*machine, func(), error) {
	release, err := openDirs(cfg)
	if err != nil {
		return nil, nil, err
	}
	m := &machine{local: local{Config: cfg, now: now}}
	if err = m.joinServers(ctx, token); err == nil && m.settings == nil {
		if err = m.keepName(); err == nil {
			err = m.keepRanges()
		}
	}
	if err == nil {
		m.settleAddress(m.own(false, m.others), false)
		err = m.readKeys()
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return m, release, nil
}

// others are the servers that this one joined, where it did.
func (m *machine) others() []string {
	if m.settings == nil {
		return nil
	}
	return m.settings.Servers
}

// openDirs makes the directories and takes them for this process.
func openDirs(cfg Config) (func(), error) {
	for _, dir := range []string{cfg.DataDir, filepath.Join(cfg.DataDir, "pki")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
	}
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil { //nolint:gosec // the socket in it has permissions of its own
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	if err := ensureTmpfs(cfg.RunDir); err != nil {
		return nil, err
	}
	return takeDirs(cfg)
}

func (m *machine) readKeys() (err error) {
	dir := filepath.Join(m.DataDir, "pki")
	host, _ := os.Hostname()
	m.pki, err = pki.Open(dir, pki.Host{Node: cluster.NodeID(m.Node), Hosts: []string{m.Advertise, m.Node, host}}, m.now)
	if err != nil {
		return err
	}
	if m.identity, err = pki.NodeIdentity(dir); err != nil {
		return err
	}
	if m.cluster, err = pki.ClusterID(dir); err != nil {
		return err
	}
	if m.key, err = sealed.LoadOrCreate(filepath.Join(m.DataDir, secretsFile)); err != nil {
		return err
	}
	if m.Vault.Address != "" {
		if m.vault, err = vault.New(m.Vault, m.now, m.Log.Named("vault")); err != nil {
			return err
		}
	}
	m.services, err = netip.ParsePrefix(m.ServiceRange)
	return err
}

// pool is the cluster's address range of containers.
func (m *local) pool() netip.Prefix {
	p, _ := netip.ParsePrefix(m.Pool) // validated
	return p
}

// takeDirs refuses a second server on the data directory or the run directory.
func takeDirs(cfg Config) (func(), error) {
	data, err := takeDir(cfg.DataDir, "server.pid")
	if err != nil {
		return nil, err
	}
	run, err := takeDir(cfg.RunDir, "server.lock")
	if err != nil {
		data()
		return nil, err
	}
	return func() { run(); data() }, nil
}

// takeDir refuses a second server on one directory, by a lock that ends with the
// process. The file names the process.
func takeDir(dir, file string) (func(), error) {
	path := filepath.Join(dir, file)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // a process ID is no secret
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		other, _ := os.ReadFile(path) //nolint:gosec // the lock in our own directory
		return nil, errors.Join(cluster.Invalidf("another fairlead server (process %s) uses %s", other, dir), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAll(f, strconv.Itoa(os.Getpid()))); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func writeAll(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// openStore starts the embedded etcd, or connects to the external one, and
// waits until that answers. done receives the end of the embedded etcd.
func (m *machine) openStore(ctx context.Context) (*store.Etcd, <-chan error, error) {
	done, ready := make(chan error, 1), true
	client := store.EtcdConfig{Endpoints: m.EtcdEndpoints}
	if len(m.EtcdEndpoints) > 0 {
		if m.EtcdCA != "" || m.EtcdCert != "" {
			conf, err := pki.ClientTLS(m.EtcdCA, m.EtcdCert, m.EtcdKey)
			if err != nil {
				return nil, nil, err
			}
			client.TLS = conf
		}
		go func() { <-ctx.Done(); done <- context.Canceled }()
	} else {
		dir := m.etcdDir()
		if m.servedFrom() != "" && !embedded.HasData(dir) { // not even started: the other servers' etcds know this one
			return nil, nil, m.emptied()
		}
		cfg := embedded.Config{
			Dir: dir, Name: m.Node, Address: m.Advertise, Unsettled: m.unsettled(), Token: m.cluster,
			ClientPort: m.EtcdClientPort, PeerPort: m.EtcdPeerPort,
			CAFile: m.pki.CAFile(), ServerFile: m.pki.ServerFile(), PeerFile: m.pki.PeerFile(), PeerName: pki.NamePeer,
			Quota: m.quota, Now: m.now,
		}
		var err error
		if done, ready, err = m.startEtcd(ctx, cfg); err != nil {
			return nil, nil, err
		}
		client.Endpoints, client.TLS = []string{cfg.Endpoint()}, m.pki.RootTLS()
		m.etcd = cfg.Advertised()
		m.private = append(m.private, uint16(m.EtcdClientPort), uint16(m.EtcdPeerPort)) //nolint:gosec // validated
	}
	st, err := store.NewEtcd(client, m.Log)
	if err != nil {
		return nil, nil, err
	}
	if m.etcd == "" {
		return st, done, nil // an external one may answer later
	}
	m.users, m.members = st, st
	if !ready {
		return st, done, nil
	}
	err = m.insist(ctx, done, func(ctx context.Context) error {
		if err := st.Healthy(ctx); err != nil {
			return err
		}
		return st.Secure(ctx)
	})
	if cluster.KindOf(err) == cluster.KindTransient && m.served() {
		return st, done, nil // the others went again: they are waited for as above
	}
	return st, done, err
}

// startEtcd starts the embedded etcd, where this server joins as a member that the others
// know of, and waits as awaitStore does.
func (m *machine) startEtcd(ctx context.Context, cfg embedded.Config) (chan error, bool, error) {
	for mayUntold := true; ; mayUntold = false {
		untold := false
		if m.settings != nil && !m.settings.Member {
			var err error
			if untold, err = m.become(ctx, &cfg, mayUntold); err != nil {
				return nil, false, err
			}
		}
		srv, err := embedded.New(cfg, m.Log)
		if err != nil {
			return nil, false, err
		}
		m.alarms.embedded = srv.Alarm
		done := make(chan error, 1)
		go func() {
			// Closed after it: who waits for the end finds it also when another took the
			// news, as happens when etcd ends by itself.
			defer close(done)
			done <- srv.Run(ctx)
		}()
		ready, err := m.awaitStore(ctx, srv.Ready(), done)
		switch {
		case err == nil:
			return done, ready, nil
		case ctx.Err() != nil: // it ends in order
			return nil, false, errors.Join(err, ignoreCancel(<-done))
		case !untold || !errors.Is(err, cluster.ErrRemoved):
			return nil, false, err
		}
		m.Log.Warn("the other servers have taken this one out before it voted; it joins anew", "reason", err)
	}
}

// quorumPatience is how long a server that has served before waits for the others
// before it starts what ran there last, or one that joins what it has of the store.
const quorumPatience = 5 * time.Second

// awaitStore waits until the embedded etcd answers and votes; false: it has no
// quorum, and this server has served before. done receives etcd's end.
func (m *machine) awaitStore(ctx context.Context, ready <-chan struct{}, done <-chan error) (bool, error) {
	var patience <-chan time.Time
	if m.served() {
		t := time.NewTimer(quorumPatience)
		defer t.Stop()
		patience = t.C
	}
	select {
	case err := <-done:
		if strings.Contains(err.Error(), "was removed from the cluster") {
			err = fmt.Errorf("%w; this server is %w: `fairlead system uninstall --purge` here, then it can join again", err, cluster.ErrRemoved)
		}
		return false, fmt.Errorf("start the embedded etcd: %w", err)
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-ready:
	case <-patience:
		m.Log.Error("the store has no quorum: most of the servers do not answer; starting what ran here last, and waiting for them")
		return false, nil
	}
	if m.settings == nil || m.settings.Member {
		return true, nil
	}
	m.Log.Info("joined: this server votes now")
	m.settings.Member = true
	return true, m.settings.write(m.DataDir)
}
