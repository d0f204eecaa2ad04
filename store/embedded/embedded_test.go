package embedded_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
	"github.com/fairlead/fairlead/store/storetest"
)

func TestEtcd(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		t.Helper()
		return srv.Client(t)
	})
}

func put(t *testing.T, st store.Store, key, value string) int64 {
	t.Helper()
	rev, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// Random transactions on Memory and on etcd have the same results, contents and events.
func TestMemoryIsATwinOfEtcd(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			memory, etcd := store.NewMemory(), srv.Client(t)
			clear(t, etcd)
			_, base, err := etcd.List(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			offset := base - 1 // Memory stands at 1
			rnd := rand.New(rand.NewPCG(seed, 0))
			for step := range 300 {
				txn := randomTxn(rnd, memory)
				shifted := txn
				shifted.If = append([]store.Cond(nil), txn.If...)
				for i := range shifted.If {
					if shifted.If[i].Rev > 0 {
						shifted.If[i].Rev += offset
					}
				}
				r1, err1 := memory.Commit(t.Context(), txn)
				r2, err2 := etcd.Commit(t.Context(), shifted)
				if cluster.KindOf(err1) != cluster.KindOf(err2) || err1 == nil && r1+offset != r2 {
					t.Fatalf("step %d: %+v: memory %d, %v; etcd %d (offset %d), %v", step, txn, r1, err1, r2, offset, err2)
				}
			}
			want, wantRev, _ := memory.List(t.Context(), "")
			got, gotRev, err := etcd.List(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, shift(offset), cmpopts.EquateEmpty()); d != "" || wantRev+offset != gotRev {
				t.Fatalf("revision %d and %d (-memory +etcd): %s", wantRev, gotRev-offset, d)
			}
			want1, got1 := events(t, memory, 1, wantRev), events(t, etcd, base, gotRev)
			if d := cmp.Diff(want1, got1, shift(offset), cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("events (-memory +etcd): %s", d)
			}
		})
	}
}

func clear(t *testing.T, st store.Store) {
	t.Helper()
	entries, _, err := st.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: e.Key, Delete: true}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// shift compares memory's entries (first) with etcd's.
func shift(offset int64) cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && (f.Name() == "Rev" || f.Name() == "Created")
	}, cmp.Comparer(func(a, b int64) bool { return a == b || a+offset == b || b+offset == a }))
}

func randomTxn(rnd *rand.Rand, st *store.Memory) store.Txn {
	entries, now, _ := st.List(context.Background(), "")
	key := func() string { return fmt.Sprintf("twin/%d", rnd.IntN(8)) }
	var txn store.Txn
	for range rnd.IntN(3) {
		c := store.Cond{Key: key()}
		switch rnd.IntN(4) {
		case 0: // any revision, most often wrong
			c.Rev = rnd.Int64N(now + 1)
		default:
			for _, e := range entries {
				if e.Key == c.Key {
					c.Rev = e.Rev
				}
			}
		}
		txn.If = append(txn.If, c)
	}
	for range rnd.IntN(5) { // now and then two of one key, or none at all
		txn.Then = append(txn.Then, store.Op{
			Key: key(), Delete: rnd.IntN(3) == 0, Value: fmt.Append(nil, rnd.IntN(100)),
		})
	}
	return txn
}

func events(t *testing.T, st store.Store, from, to int64) []store.Event {
	t.Helper()
	// The last revision may be of other keys: end at the last event before it.
	put(t, st, "twin/end", "")
	var out []store.Event
	for b := range st.Watch(t.Context(), "twin/", from) {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		for _, ev := range b.Events {
			if ev.Key == "twin/end" {
				return out
			}
			out = append(out, ev)
		}
	}
	t.Fatalf("the watch ended before %d", to)
	return nil
}

func TestRestartKeepsWhatWasWritten(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	stop := srv.Start(t)
	rev := put(t, srv.Client(t), "a", "1")
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatalf("an orderly stop returned %v", err)
	}
	stop = srv.Start(t)
	defer func() { _ = stop() }()
	e, err := srv.Client(t).Get(t.Context(), "a")
	if err != nil || string(e.Value) != "1" || e.Rev != rev {
		t.Fatalf("%+v, %v", e, err)
	}
}

// An orderly stop, with clients at work, is no trouble worth a line.
func TestOrderlyStopIsQuiet(t *testing.T) {
	t.Parallel()
	srv, log := etcdtest.New(t), &lockedBuffer{}
	srv.Log = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info})
	stop := srv.Start(t)
	srv.Log = hclog.NewNullLogger() // the client's own log is not looked at
	client := srv.Client(t)
	put(t, client, "a", "1")
	if _, _, err := client.Lease(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	watch := client.Watch(t.Context(), "a", 0)
	put(t, client, "a", "2")
	if b := <-watch; b.Err != nil {
		t.Fatal(b.Err)
	}
	before := len(log.String())
	_ = stop()
	if after := log.String()[before:]; after != "" {
		t.Errorf("stopping says:\n%s", after)
	}
}

func TestPeerAddressIsTheNodesAndFollowsIt(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	for _, address := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1", "unsettled"} {
		srv.Config.Address = address
		if srv.Config.Unsettled = address == "unsettled"; srv.Config.Unsettled {
			address, srv.Config.Address = "127.0.0.1", "127.0.0.3" // the others keep to the one before
		}
		stop := srv.Start(t)
		put(t, srv.Client(t), "a", address)
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{srv.Config.Endpoint()}, TLS: srv.PKI.RootTLS()})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.MemberList(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []string{fmt.Sprintf("https://%s:%d", address, srv.Config.PeerPort)}
		if len(r.Members) != 1 || !slices.Equal(r.Members[0].PeerURLs, want) || r.Members[0].ClientURLs[0] != srv.Config.Advertised() {
			t.Errorf("members %v, want one at %v", r.Members, want)
		}
		_ = c.Close()
		_ = stop()
	}
}

func TestSecondStartIsRefusedAndHarmless(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	client := srv.Client(t)
	put(t, client, "a", "1")
	second, err := embedded.New(srv.Config, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	err = second.Run(t.Context())
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("a second server in the same directory: %v", err)
	}
	put(t, client, "a", "2")
}

func TestPortInUseIsAnError(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", srv.Config.PeerPort))
	if err != nil {
		t.Fatal(err)
	}
	s, err := embedded.New(srv.Config, srv.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("Run returned %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The failed start leaves nothing in the way of the next.
	stop := srv.Start(t)
	put(t, srv.Client(t), "a", "1")
	_ = stop()
}

// etcd answers damaged data with panics and with log messages that end the process.
func TestDamagedDataIsAnError(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"member-data/member/wal/*.wal", "member-data/member/snap/db"} {
		t.Run(filepath.Base(filepath.Dir(pattern)), func(t *testing.T) {
			t.Parallel()
			srv := etcdtest.New(t)
			stop := srv.Start(t)
			put(t, srv.Client(t), "a", "1")
			_ = stop()
			files, err := filepath.Glob(filepath.Join(srv.Config.Dir, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("%v, %v", files, err)
			}
			for _, f := range files {
				if err := os.WriteFile(f, []byte(strings.Repeat("damaged ", 1<<15)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := embedded.New(srv.Config, srv.Log)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = s.Run(ctx)
			if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "start etcd in") {
				t.Fatalf("Run returned %v", err)
			}
		})
	}
}

func TestOnlyTheRightCertificatesConnect(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	other, err := pki.Open(t.TempDir(), pki.Host{Node: "n1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	stranger := srv.PKI.RootTLS()
	stranger.GetClientCertificate = other.RootTLS().GetClientCertificate
	anonymous := srv.PKI.RootTLS()
	anonymous.GetClientCertificate = nil
	peer := srv.PKI.RootTLS()
	peer.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(srv.PKI.PeerFile(), srv.PKI.PeerFile())
		return &c, err
	}
	client, peers := srv.Config.ClientPort, srv.Config.PeerPort
	for name, test := range map[string]struct {
		cfg  *tls.Config
		port int
		ok   bool
	}{
		"control plane":               {srv.PKI.RootTLS(), client, true},
		"node":                        {srv.PKI.NodeTLS(), client, true},
		"no certificate":              {anonymous, client, false},
		"another authority":           {stranger, client, false},
		"server of another authority": {other.RootTLS(), client, false},
		"peer among peers":            {peer, peers, true},
		"node among peers":            {srv.PKI.NodeTLS(), peers, false},
		"control plane among peers":   {srv.PKI.RootTLS(), peers, false},
		"stranger among peers":        {stranger, peers, false},
	} {
		if err := handshake(t, test.cfg, test.port); (err == nil) != test.ok {
			t.Errorf("%s: %v, want success %v", name, err, test.ok)
		}
	}
	// Without TLS there is no answer at all.
	c, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{fmt.Sprintf("http://127.0.0.1:%d", client)}, Timeout: time.Second}, srv.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Healthy(t.Context()); cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("without TLS: %v", err)
	}
}

// handshake connects, and reads, since a server tells its refusal only after the handshake.
func handshake(t *testing.T, cfg *tls.Config, port int) error {
	t.Helper()
	cfg = cfg.Clone()
	cfg.ServerName, cfg.NextProtos = "127.0.0.1", []string{"h2"}
	d := tls.Dialer{Config: cfg}
	c, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // nothing was said: the connection stands
	}
	return err
}

func TestRenewedCertificateIsServedWithoutRestart(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	serial := func() string {
		cfg := srv.PKI.RootTLS()
		cfg.ServerName = "127.0.0.1"
		c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", srv.Config.ClientPort))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	if err := os.Remove(srv.PKI.ServerFile()); err != nil {
		t.Fatal(err)
	}
	if made, err := srv.PKI.Renew(); err != nil || len(made) != 1 {
		t.Fatalf("renewed %v, %v", made, err)
	}
	if serial() == before {
		t.Fatal("the old certificate is still served")
	}
	put(t, srv.Client(t), "a", "1")
}

func TestUnreachableEtcdIsBoundedAndTransient(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	stop := srv.Start(t)
	c, err := store.NewEtcd(store.EtcdConfig{
		Endpoints: []string{srv.Config.Endpoint()}, TLS: srv.PKI.RootTLS(), Timeout: time.Second,
	}, srv.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A lease and a lead that the end of the server takes away.
	const ttl = 3
	_, lost, err := c.Lease(t.Context(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	leads, lostLead := make(chan struct{}), make(chan time.Time, 1)
	go func() {
		cand := store.Candidate{Store: c, Name: "x", ID: "a", TTL: ttl, Now: time.Now, Log: srv.Log}
		_ = cand.Lead(t.Context(), func(ctx context.Context, _ store.Store, _ time.Time) error {
			close(leads)
			<-ctx.Done()
			lostLead <- time.Now()
			return nil
		})
	}()
	<-leads
	_ = stop()
	start := time.Now()
	for what, request := range map[string]func() error{
		"health": func() error { return c.Healthy(t.Context()) },
		"get":    func() error { _, err := c.Get(t.Context(), "a"); return err },
		"list":   func() error { _, _, err := c.List(t.Context(), "a"); return err },
		"lease":  func() error { _, _, err := c.Lease(t.Context(), ttl); return err },
		"commit": func() error {
			_, err := c.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: "a"}}})
			return err
		},
		"watch": func() error { return (<-c.Watch(t.Context(), "a", 1)).Err },
	} {
		begin := time.Now()
		if err := request(); cluster.KindOf(err) != cluster.KindTransient {
			t.Errorf("%s: error %v, want a transient one", what, err)
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("%s took %s", what, took)
		}
	}
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		t.Error("the lease's end is not noticed")
	}
	select {
	case at := <-lostLead:
		if took := at.Sub(start); took > ttl*time.Second {
			t.Errorf("the leader led for %s after the store went, the lease has %d s", took, ttl)
		}
	case <-time.After(10 * time.Second):
		t.Error("the leader does not notice")
	}
}

func TestMirrorGoesOnAfterARestartOfTheServer(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	stop := srv.Start(t)
	client := srv.Client(t)
	put(t, client, "p/a", "1")
	m := store.NewMirror(client, "p/", srv.Log)
	go func() { _ = m.Run(t.Context()) }()
	<-m.Ready()
	_ = stop()
	stop = srv.Start(t)
	defer func() { _ = stop() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for client.Healthy(ctx) != nil {
		if ctx.Err() != nil {
			t.Fatal("the client does not connect again")
		}
	}
	last := put(t, client, "p/b", "2")
	for changed := m.Changed(); m.Rev() < last; changed = m.Changed() {
		select {
		case <-changed:
		case <-time.After(time.Second): // a change between Changed and Rev
		case <-ctx.Done():
			t.Fatalf("mirror stands at %d, want %d", m.Rev(), last)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	t.Parallel()
	good := etcdtest.New(t).Config
	for name, spoil := range map[string]func(*embedded.Config){
		"no directory":    func(c *embedded.Config) { c.Dir = "" },
		"any address":     func(c *embedded.Config) { c.Address = "0.0.0.0" },
		"a name":          func(c *embedded.Config) { c.Address = "localhost" },
		"no certificate":  func(c *embedded.Config) { c.PeerFile = "" },
		"too much quota":  func(c *embedded.Config) { c.Quota = 9 << 30 },
		"no peers' name":  func(c *embedded.Config) { c.PeerName = "" },
		"no cluster's ID": func(c *embedded.Config) { c.Token = "" },
	} {
		c := good
		spoil(&c)
		if _, err := embedded.New(c, hclog.NewNullLogger()); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%s: error %v, want one of kind invalid", name, err)
		}
	}
}
