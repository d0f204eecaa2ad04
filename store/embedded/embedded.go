package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store/internal/zaplog"
)

// Default ports, as etcd's own.
const (
	DefaultClientPort = 2379
	DefaultPeerPort   = 2380
)

// Config of a server.
type Config struct {
	Dir  string // of the data; made when missing
	Name string // of the member: the node's name
	// Address is the node's address, which other machines reach. Peers and
	// clients are served on it and clients on 127.0.0.1 too.
	Address string
	// Unsettled says that Address is only what there is until the machine has one that
	// others reach: they keep to the one before.
	Unsettled bool
	// ClientPort and PeerPort; 0 means 2379 and 2380.
	ClientPort, PeerPort int
	// Initial are the members of the cluster that this one joins at its first start,
	// its own among them: peer URLs by name. Empty: it is the first of a new cluster.
	Initial map[string]string
	// Token tells this cluster's members from another's: the cluster ID.
	Token string
	// CAFile, ServerFile (certificate and key for clients) and PeerFile
	// (certificate and key among peers) are PEM files; they are read again for
	// each connection, so that renewing them needs no restart.
	CAFile, ServerFile, PeerFile string
	// PeerName is the common name that peers' certificates have.
	PeerName string
	// Quota bounds the database in bytes, 16 MiB to 8 GiB; 0 means 4 GiB.
	Quota int64
	// Retention is how long history is kept for watches; 0 means 10m.
	Retention time.Duration
	// Check is how often the database's size is looked at; 0 means 10s.
	Check time.Duration
	// Now is the clock; nil is not allowed.
	Now func() time.Time `json:"-"`
}

const (
	loopback         = "127.0.0.1"
	defaultQuota     = 4 << 30
	minQuota         = 16 << 20
	maxQuota         = 8 << 30
	defaultRetention = 10 * time.Minute
	// stopTimeout bounds an orderly end; what was acknowledged is on disk before that.
	stopTimeout = 10 * time.Second
	// announceTimeout bounds what only a changed address needs; after announceEvery it is
	// tried again.
	announceTimeout = 5 * time.Second
	announceEvery   = 5 * time.Second
	// voteEvery is how often a new member looks whether it votes.
	voteEvery  = 20 * time.Millisecond
	memberData = "member-data"
)

// Validate refuses a configuration that cannot work, and says why.
func (c Config) Validate() error {
	switch {
	case c.Dir == "" || c.Name == "" || c.Token == "":
		return cluster.Invalidf("embedded etcd needs a data directory, a name and a token")
	case net.ParseIP(c.Address) == nil || net.ParseIP(c.Address).IsUnspecified():
		return cluster.Invalidf("embedded etcd: node address %q is not an IP address that other machines reach", c.Address)
	case c.CAFile == "" || c.ServerFile == "" || c.PeerFile == "" || c.PeerName == "":
		return cluster.Invalidf("embedded etcd needs the authority's, a server's and a peer's certificate")
	case c.Quota != 0 && (c.Quota < minQuota || c.Quota > maxQuota):
		return cluster.Invalidf("embedded etcd: quota of %d bytes: between 16 MiB and 8 GiB", c.Quota)
	case c.Now == nil:
		return cluster.Invalidf("embedded etcd needs a clock")
	}
	return nil
}

func (c Config) quota() int64 {
	if c.Quota == 0 {
		return defaultQuota
	}
	return c.Quota
}

// Endpoint is the URL for clients on this machine.
func (c Config) Endpoint() string { return c.url(loopback, c.clientPort()).String() }

// Advertised is the URL for clients on other machines.
func (c Config) Advertised() string { return c.url(c.Address, c.clientPort()).String() }

// Peer is the URL for other members.
func (c Config) Peer() string { return c.url(c.Address, c.peerPort()).String() }

func (c Config) clientPort() int { return orPort(c.ClientPort, DefaultClientPort) }
func (c Config) peerPort() int   { return orPort(c.PeerPort, DefaultPeerPort) }

func orPort(p, def int) int {
	if p == 0 {
		return def
	}
	return p
}

func (Config) url(host string, port int) *url.URL {
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))}
}

// Server is an etcd server.
type Server struct {
	cfg   Config
	log   hclog.Logger
	ready chan struct{}
	// died receives what etcd would have ended the process for.
	died chan error
	once sync.Once

	// stopping is set once an orderly stop has begun.
	stopping atomic.Bool
	guard    guard

	mu    sync.Mutex
	alarm string
}

// errRemoved is the one reason for which etcd stops in order by itself.
var errRemoved = errors.New("etcd stopped by itself: this member was removed from the cluster")

// New makes a server; Run starts it.
func New(cfg Config, log hclog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, log: log.Named("etcd"), ready: make(chan struct{}), died: make(chan error, 1)}, nil
}

// HasData reports whether a member has started in Dir before.
func HasData(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, memberData, "member", "wal"))
	return err == nil
}

// Forget removes a member's data, for one that was never a voter: what it has the
// others have too.
func Forget(dir string) error { return os.RemoveAll(filepath.Join(dir, memberData)) }

// Ready is closed once clients are served with a quorum, and this member votes.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, then stops in order and returns the context's cause.
// Any other error means that etcd could not start, or died; the process should
// then end, since an etcd that died may have left goroutines behind.
func (s *Server) Run(ctx context.Context) error {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	e, err := s.start()
	if err != nil {
		return errors.Join(fmt.Errorf("start etcd in %s: %w", s.cfg.Dir, err), lock.Close())
	}
	s.guard.start(e.Server)
	ready := e.Server.ReadyNotify()
	voting := time.NewTicker(voteEvery)
	defer voting.Stop()
	started := false
	kctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept := make(chan struct{})
	close(kept)
	for {
		select {
		case <-ready:
			ready, started = nil, true
			continue
		case <-voting.C:
			if !started || e.Server.IsLearner() {
				continue
			}
			started = false
			voting.Stop()
			announced := s.announce(kctx, e)
			s.once.Do(func() { close(s.ready) })
			kept = make(chan struct{})
			go func() {
				defer close(kept)
				var wg sync.WaitGroup
				wg.Go(func() { s.untilAnnounced(kctx, announced) })
				s.keepRoom(kctx, e.Server)
				wg.Wait()
			}()
			continue
		case <-ctx.Done():
			s.stopping.Store(true)
			err = context.Cause(ctx)
		case err = <-s.died:
			err = fmt.Errorf("etcd died: %w", err)
		case err = <-e.Err():
			err = fmt.Errorf("etcd stopped serving: %w", err)
			select {
			case <-e.Server.StoppingNotify(): // it may notice first that nothing is served any more
				err = errRemoved
			default:
			}
		case <-e.Server.StopNotify():
			err = errRemoved
		}
		break
	}
	cancel()
	if !s.stop(e, kept) {
		// The lock stays: etcd may still write.
		s.log.Warn("etcd did not stop in time", "timeout", stopTimeout)
		return err
	}
	return errors.Join(err, lock.Close())
}

// announce tells the cluster this member's peer address when it is another than
// at the first start, since etcd itself keeps to the first. What it returns does so again,
// nil where there is nothing to do any more.
func (s *Server) announce(ctx context.Context, e *embed.Etcd) (again func(context.Context) error) {
	want := []string{s.cfg.url(s.cfg.Address, s.cfg.peerPort()).String()}
	m := e.Server.Cluster().Member(e.Server.MemberID())
	if m == nil || s.cfg.Unsettled || slices.Equal(m.PeerURLs, want) {
		return nil
	}
	update := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, announceTimeout)
		defer cancel()
		next := membership.Member{ID: m.ID, RaftAttributes: membership.RaftAttributes{PeerURLs: want}}
		if _, err := e.Server.UpdateMember(ctx, next); err != nil {
			return err
		}
		s.log.Info("the address changed and is announced", "from", m.PeerURLs, "to", want)
		return nil
	}
	if err := update(ctx); err != nil {
		s.log.Error("could not announce the new address to the other members; will retry", "address", s.cfg.Address, "error", err)
		return update
	}
	return nil
}

// untilAnnounced repeats an announcement that failed until it succeeds or ctx ends: the
// others look for this member where it was.
func (s *Server) untilAnnounced(ctx context.Context, again func(context.Context) error) {
	for again != nil {
		t := time.NewTimer(announceEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		switch err := again(ctx); {
		case err == nil:
			return
		case ctx.Err() == nil:
			s.log.Debug("could not announce the new address yet", "error", err)
		}
	}
}

// lock makes the data directory and takes it for this process. etcd has locks
// of its own, but waits for them without a word.
func (s *Server) lock() (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the etcd data directory: %w", err)
	}
	l, err := fileutil.TryLockFile(filepath.Join(s.cfg.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, cluster.Invalidf("etcd data directory %s is in use by another process: is a fairlead server running already?", s.cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the etcd data directory: %w", err)
	}
	return l, nil
}

// start starts etcd in a goroutine of its own, since etcd answers some errors of
// a start with a panic or with what zap calls fatal.
func (s *Server) start() (*embed.Etcd, error) {
	var (
		e    *embed.Etcd
		err  = errors.New("etcd gave up")
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("etcd gave up: %v", p)
			}
		}()
		e, err = embed.StartEtcd(s.config())
	}()
	select {
	case cause := <-s.died: // even when etcd waits for the goroutine that gave up
		return nil, cause
	case <-done:
	}
	select {
	case cause := <-s.died:
		return nil, cause
	default:
	}
	return e, err
}

// stop waits for kept too: a defragmentation that has begun cannot be cancelled.
func (s *Server) stop(e *embed.Etcd, kept <-chan struct{}) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Close()
		<-kept
	}()
	t := time.NewTimer(stopTimeout)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// OnWrite implements zapcore.CheckWriteHook for fatal messages and panics: zap
// would end the process, and the panics are not all in a goroutine of start's.
func (s *Server) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(ce.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok {
			err = fmt.Errorf("%s: %w", ce.Message, cause)
		}
	}
	select {
	case s.died <- err:
	default:
	}
	runtime.Goexit()
}

func (s *Server) config() *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = s.cfg.Name, filepath.Join(s.cfg.Dir, memberData)
	c.InitialClusterToken = s.cfg.Token
	peer := *s.cfg.url(s.cfg.Address, s.cfg.peerPort())
	client := *s.cfg.url(s.cfg.Address, s.cfg.clientPort())
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	if client.Host != s.cfg.url(loopback, s.cfg.clientPort()).Host {
		c.ListenClientUrls = append(c.ListenClientUrls, *s.cfg.url(loopback, s.cfg.clientPort()))
	}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	if len(s.cfg.Initial) > 0 {
		c.ClusterState = embed.ClusterStateFlagExisting
		all := make([]string, 0, len(s.cfg.Initial))
		for name, peer := range s.cfg.Initial {
			all = append(all, name+"="+peer)
		}
		slices.Sort(all)
		c.InitialCluster = strings.Join(all, ",")
	}

	c.ClientTLSInfo = tlsInfo(s.cfg.ServerFile, s.cfg.CAFile)
	c.PeerTLSInfo = tlsInfo(s.cfg.PeerFile, s.cfg.CAFile)
	// Every node has a certificate of the authority: only servers may be peers.
	c.PeerTLSInfo.AllowedCNs = []string{s.cfg.PeerName}
	// A machine with several addresses may connect from another than it advertises.
	c.PeerTLSInfo.SkipClientSANVerify = true
	c.TlsMinVersion = "TLS1.3"

	c.QuotaBackendBytes = s.cfg.quota()
	retention := s.cfg.Retention
	if retention == 0 {
		retention = defaultRetention
	}
	c.AutoCompactionMode, c.AutoCompactionRetention = "periodic", retention.String()
	// Raft entries are kept in memory until a snapshot, and these many after it.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 5000, 1000
	c.EnableGRPCGateway = false
	c.UserHandlers = noPages()
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.guard.unary), grpc.ChainStreamInterceptor(s.guard.streams),
	}
	c.WatchProgressNotifyInterval = time.Minute
	// On a small machine the defaults (100ms, 300ms) complain all day.
	c.WarningApplyDuration, c.WarningUnaryRequestDuration = time.Second, time.Second
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zaplog.NewServer(s.log, s.stopping.Load, zap.WithFatalHook(s), zap.WithPanicHook(s)))
	return c
}

func tlsInfo(pair, ca string) transport.TLSInfo {
	return transport.TLSInfo{CertFile: pair, KeyFile: pair, TrustedCAFile: ca, ClientCertAuth: true}
}
