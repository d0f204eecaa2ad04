package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store/internal/zaplog"
)

// EtcdConfig says where etcd is.
type EtcdConfig struct {
	Endpoints []string // URLs, such as https://10.0.0.1:2379
	// TLS carries the client certificate and the authority; nil only with http URLs.
	TLS *tls.Config
	// Timeout bounds each request; 0 means 5s.
	Timeout time.Duration
}

const (
	defaultTimeout = 5 * time.Second
	// pageSize bounds one answer of a list.
	pageSize  = 2000
	maxRedial = 2 * time.Second
	// revokeTimeout bounds how long the end of a lease is waited for: it runs out by itself.
	revokeTimeout = 2 * time.Second
)

// Etcd is the store in an etcd cluster, version 3.4 or later.
type Etcd struct {
	client  *clientv3.Client
	timeout time.Duration
	log     hclog.Logger
	past    *past

	mu      sync.Mutex
	closed  bool
	cancels map[clientv3.LeaseID]context.CancelFunc // end the leases
	leases  sync.WaitGroup                          // their goroutines
}

var _ Store = (*Etcd)(nil)

// NewEtcd makes a client of an etcd cluster. It does not wait for a connection:
// use Healthy for that. Close must be called.
func NewEtcd(cfg EtcdConfig, log hclog.Logger) (*Etcd, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, cluster.Invalidf("no etcd endpoint is given")
	}
	timeout := cfg.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	log = log.Named("etcd-client")
	c, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, DialTimeout: timeout,
		// Not below what a server's default (5s) allows.
		DialKeepAliveTime: 10 * time.Second,
		// Also how long the kernel waits for what it sent (TCP_USER_TIMEOUT): a server
		// that is cut off is left for another.
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zaplog.New(log),
		// By default two minutes can pass between attempts: a server that is back
		// after an hour must not wait for its agents.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: maxRedial},
			MinConnectTimeout: timeout,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client of etcd at %v: %w", cfg.Endpoints, err)
	}
	return &Etcd{client: c, timeout: timeout, log: log, past: newPast(), cancels: map[clientv3.LeaseID]context.CancelFunc{}}, nil
}

// Close ends all leases at once, then the connection; watches end with it.
func (e *Etcd) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	for _, end := range e.cancels {
		end()
	}
	e.mu.Unlock()
	e.leases.Wait() // each waits at most revokeTimeout
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the etcd client: %w", err)
	}
	return nil
}

// Conn is the connection to the cluster, for what passes requests of others on as they are.
func (e *Etcd) Conn() grpc.ClientConnInterface { return e.client.ActiveConnection() }

// Healthy reports whether the cluster has a quorum that answers.
func (e *Etcd) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	_, err := e.get(ctx, PrefixCluster+"health", clientv3.WithKeysOnly())
	// A refusal also shows that a quorum answered.
	if err != nil && !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return wrap(err, "ask etcd whether it is well")
	}
	return nil
}

// Get implements Store. The read is linearizable.
func (e *Etcd) Get(ctx context.Context, key string) (Entry, error) {
	if key == "" {
		return Entry{}, cluster.Invalidf("get without a key")
	}
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.get(ctx, key)
	if err != nil {
		return Entry{}, wrap(err, "get "+key)
	}
	if len(r.Kvs) == 0 {
		return Entry{}, cluster.NotFoundf("%s is not in the store", key)
	}
	kv := r.Kvs[0]
	return Entry{Key: string(kv.Key), Value: kv.Value, Rev: kv.ModRevision, Created: kv.CreateRevision}, nil
}

// List implements Store. Pages are read at the revision of the first, which is linearizable.
func (e *Etcd) List(ctx context.Context, prefix string) ([]Entry, int64, error) {
	var (
		out  []Entry
		rev  int64
		from = prefix
		end  = clientv3.GetPrefixRangeEnd(prefix)
	)
	if prefix == "" {
		from = "\x00"
	}
	for {
		r, err := e.page(ctx, from, end, rev)
		if err != nil {
			return nil, 0, wrap(err, "list "+prefix)
		}
		if rev == 0 {
			rev = r.Header.Revision
			out = make([]Entry, 0, r.Count)
		}
		for _, kv := range r.Kvs {
			out = append(out, Entry{Key: string(kv.Key), Value: kv.Value, Rev: kv.ModRevision, Created: kv.CreateRevision})
		}
		if !r.More || len(r.Kvs) == 0 {
			return out, rev, nil
		}
		from = out[len(out)-1].Key + "\x00"
	}
}

func (e *Etcd) page(ctx context.Context, from, end string, rev int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	return e.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(rev))
}

// Commit implements Store. After a KindTransient error the transaction may have
// been made all the same: decide again on a fresh snapshot.
func (e *Etcd) Commit(ctx context.Context, t Txn) (int64, error) {
	if err := t.Check(); err != nil {
		return 0, err
	}
	conds := make([]clientv3.Cmp, len(t.If))
	for i, c := range t.If {
		conds[i] = clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Rev)
	}
	ops := make([]clientv3.Op, len(t.Then))
	for i, o := range t.Then {
		if o.Delete {
			ops[i] = clientv3.OpDelete(o.Key)
			continue
		}
		ops[i] = clientv3.OpPut(o.Key, string(o.Value), clientv3.WithLease(clientv3.LeaseID(o.Lease)))
	}
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	what := "write " + t.firstKey()
	propose := func(ctx context.Context) (int64, error) {
		before := e.past.known()
		r, err := e.client.Txn(ctx).If(conds...).Then(ops...).Commit()
		if err != nil {
			return 0, wrap(err, what)
		}
		if len(ops) > 0 { // without a write etcd asks no majority
			e.past.answered(before, r.Header.Revision)
		}
		if !r.Succeeded {
			return 0, t.conflict()
		}
		return r.Header.Revision, nil
	}
	if t.once() {
		return insist(ctx, what, propose)
	}
	return propose(ctx)
}

// Compact forgets what was before rev. The embedded server does so by itself.
func (e *Etcd) Compact(ctx context.Context, rev int64) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	_, err := e.client.Compact(ctx, rev)
	return wrap(err, fmt.Sprintf("compact at revision %d", rev))
}

// wrap says what failed and gives err the kind that tells what to do.
func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("%s: %w", what, ErrCompacted)
	}
	return &cluster.Error{Kind: kindOf(err), Msg: what, Err: err}
}

func kindOf(err error) cluster.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return cluster.KindTransient
	}
	code := status.Code(err)
	if ee, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = ee.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal,
		codes.Unauthenticated: // an expired token: the client gets a new one
		return cluster.KindTransient
	case codes.ResourceExhausted: // no space (an operator can make some), or too many requests
		return cluster.KindTransient
	case codes.InvalidArgument, codes.OutOfRange:
		return cluster.KindInvalid
	case codes.PermissionDenied:
		return cluster.KindForbidden
	case codes.NotFound:
		return cluster.KindNotFound
	}
	return cluster.KindOther
}
