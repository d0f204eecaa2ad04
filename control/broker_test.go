package control_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
)

// brokerWorld is a store with a broker's loop on it, in fake time.
type brokerWorld struct {
	t    *testing.T
	st   *watched
	key  *sealed.Key
	node *age.X25519Identity
	logs *bytes.Buffer

	mu    sync.Mutex
	away  bool // the provider answers with an error
	asked int
}

// watched is a store that checks who writes what.
type watched struct {
	store.Store
	t       *testing.T
	mu      sync.Mutex
	commits int
	bytes   int
	before  func() // runs once, before the next commit of the broker
}

func (w *watched) Commit(ctx context.Context, t store.Txn) (int64, error) {
	w.mu.Lock()
	w.commits++
	before := w.before
	w.before = nil
	for _, op := range t.Then {
		w.bytes = max(w.bytes, len(op.Value))
		if !store.MayWrite(store.WriterBroker, op.Key) {
			w.t.Errorf("the broker writes %s", op.Key)
		}
	}
	w.mu.Unlock()
	if err := t.Check(); err != nil {
		w.t.Error(err)
	}
	if before != nil {
		before()
	}
	return w.Store.Commit(ctx, t)
}

// Resolve implements secrets.Resolver.
func (b *brokerWorld) Resolve(ctx context.Context, rec cluster.SecretRecord) (cluster.Secret, error) {
	b.mu.Lock()
	b.asked++
	away := b.away
	b.mu.Unlock()
	if away {
		return cluster.Secret{}, cluster.Transientf("the provider is away")
	}
	return b.key.Resolve(ctx, rec)
}

func (b *brokerWorld) setAway(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
}

func newBrokerWorld(t *testing.T) *brokerWorld {
	t.Helper()
	key, err := sealed.NewKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b := &brokerWorld{t: t, key: key, node: id, logs: &bytes.Buffer{}, st: &watched{Store: store.NewMemory(), t: t}}
	log := hclog.New(&hclog.LoggerOptions{Output: b.logs, Level: hclog.Trace})
	m := store.NewMirror(b.st, store.Root, log)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { _ = m.Run(ctx) })
	loop := control.Broker(b.st, m, b, time.Now, log)
	wg.Go(func() { _ = loop.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", PublicKey: id.Recipient().String()})
	return b
}

func (b *brokerWorld) put(key string, v any) {
	b.t.Helper()
	op, err := store.PutJSON(key, v)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.st.Store.Commit(b.t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *brokerWorld) remove(key string) {
	b.t.Helper()
	if _, err := b.st.Store.Commit(b.t.Context(), store.Txn{Then: []store.Op{{Key: key, Delete: true}}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *brokerWorld) secret(version int, value string) {
	b.t.Helper()
	rec, err := secrets.SealRecord(b.key, cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Version: version},
		cluster.NewSecret([]byte(value)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(store.SecretKey(rec.SecretRef), rec)
}

func (b *brokerWorld) place(task string, needs ...string) {
	b.t.Helper()
	p := cluster.NodePlacement{
		Task: cluster.TaskID(task), Node: "n1", ServiceID: cluster.ServiceID{App: "shop", Name: "api"}, Slot: 1, Desire: cluster.DesireRun,
	}
	for _, n := range needs {
		name, hash, config := strings.Cut(n, "@")
		if config {
			p.Spec.Configs = append(p.Spec.Configs, cluster.FileRef{Name: name, Version: hash})
		} else {
			p.Spec.Secrets = append(p.Spec.Secrets, cluster.FileRef{Name: name})
		}
	}
	b.put(store.PlacementKey("n1", p.Task), p)
}

// payload opens what the node would open; nil when nothing was written.
func (b *brokerWorld) payload(task string) *cluster.Payload {
	b.t.Helper()
	synctest.Wait()
	e, err := b.st.Get(b.t.Context(), store.SealedKey("n1", cluster.TaskID(task)))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	var s cluster.Sealed
	if err := json.Unmarshal(e.Value, &s); err != nil {
		b.t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(s.Data), b.node)
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := cluster.DecodePayload(r)
	if err != nil {
		b.t.Fatal(err)
	}
	return &p
}

// reason is what explain would print about the service; "" when nothing.
func (b *brokerWorld) reason() string {
	b.t.Helper()
	synctest.Wait()
	e, err := b.st.Get(b.t.Context(), store.DecisionKey("broker", "shop/api"))
	if cluster.KindOf(err) == cluster.KindNotFound {
		return ""
	}
	if err != nil {
		b.t.Fatal(err)
	}
	var d cluster.Decision
	if err := json.Unmarshal(e.Value, &d); err != nil {
		b.t.Fatal(err)
	}
	return d.Reason
}

// quiet fails when the loop writes or asks without a reason.
func (b *brokerWorld) quiet() {
	b.t.Helper()
	synctest.Wait()
	b.st.mu.Lock()
	commits := b.st.commits
	b.st.mu.Unlock()
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	b.st.mu.Lock()
	defer b.st.mu.Unlock()
	if b.st.commits != commits {
		b.t.Errorf("%d writes with nothing to do", b.st.commits-commits)
	}
}

func TestBrokerGivesTasksTheirSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		b.place("t1", "db", "conf@abc")
		want := "waits for config shop/conf in version abc (deploy the app again), secret shop/db (fairlead secret set shop/db)"
		if got := b.reason(); got != want {
			t.Fatalf("reason %q", got)
		}
		b.put(store.ConfigKey("shop", "conf", "abc"), cluster.Config{App: "shop", Name: "conf", Hash: "abc", Content: []byte("x=1")})
		if got := b.reason(); got != "waits for secret shop/db (fairlead secret set shop/db)" {
			t.Fatalf("reason %q", got)
		}
		b.secret(1, "hunter2")
		p := b.payload("t1")
		if p == nil || string(p.Secrets["db"]) != "hunter2" || string(p.Configs["conf"]) != "x=1" {
			t.Fatalf("payload is there: %v", p != nil)
		}
		if got := b.reason(); got != "" {
			t.Errorf("reason %q after all is well", got)
		}
		b.quiet()

		// A new value reaches new tasks; the old task keeps its own.
		b.secret(2, "hunter3")
		b.place("t2", "db")
		if p := b.payload("t2"); p == nil || string(p.Secrets["db"]) != "hunter3" {
			t.Error("a new task has not got the new value")
		}
		if p := b.payload("t1"); string(p.Secrets["db"]) != "hunter2" {
			t.Error("a running task's payload changed")
		}
		b.remove(store.PlacementKey("n1", "t1"))
		if b.payload("t1") != nil {
			t.Error("a task that is gone keeps its payload")
		}
		b.noLeak("hunter2", "hunter3")
	})
}

// noLeak looks for values, in clear or in base64, in the whole store and the log.
func (b *brokerWorld) noLeak(values ...string) {
	b.t.Helper()
	entries, _, err := b.st.List(b.t.Context(), "")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, v := range values {
		for _, form := range []string{v, base64.StdEncoding.EncodeToString([]byte(v))} {
			for _, e := range entries {
				if bytes.Contains(e.Value, []byte(form)) {
					b.t.Errorf("%s holds a secret in clear", e.Key)
				}
			}
			if strings.Contains(b.logs.String(), form) {
				b.t.Error("the log holds a secret in clear")
			}
		}
	}
}

func TestBrokerNewNodeKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		b.secret(1, "hunter2")
		b.place("t1", "db")
		b.payload("t1")
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		b.node = id
		b.put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", PublicKey: id.Recipient().String()})
		if p := b.payload("t1"); p == nil || string(p.Secrets["db"]) != "hunter2" {
			t.Error("not sealed to the new key")
		}
	})
}

// TestBrokerProviderAway: one service's provider must not hold up another's, is
// asked less and less often, and at once when the secret is set anew.
func TestBrokerProviderAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		b.secret(1, "hunter2")
		b.setAway(true)
		b.place("t1", "db")
		if got := b.reason(); !strings.Contains(got, "the provider is away") {
			t.Fatalf("reason %q", got)
		}
		b.put(store.ConfigKey("shop", "conf", "abc"), cluster.Config{App: "shop", Name: "conf", Hash: "abc"})
		b.place("t2", "conf@abc")
		if b.payload("t2") == nil {
			t.Error("a task without secrets waits for another's")
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		b.mu.Lock()
		asked := b.asked
		b.mu.Unlock()
		if asked < 10 || asked > 30 {
			t.Errorf("asked %d times in ten minutes", asked)
		}
		b.setAway(false)
		b.secret(2, "hunter3") // no need to wait for the next attempt
		if p := b.payload("t1"); p == nil || string(p.Secrets["db"]) != "hunter3" {
			t.Error("not tried again when the secret was set")
		}
		if got := b.reason(); got != "" {
			t.Errorf("reason %q", got)
		}
		b.noLeak("hunter2", "hunter3")
	})
}

func TestBrokerWrongKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		b.secret(1, "hunter2")
		other, err := sealed.NewKey(bytes.Repeat([]byte{8}, 32))
		if err != nil {
			t.Fatal(err)
		}
		b.mu.Lock()
		b.key = other
		b.mu.Unlock()
		b.place("t1", "db")
		if got := b.reason(); !strings.Contains(got, "another key than this server's secrets.key") {
			t.Errorf("reason %q", got)
		}
	})
}

// TestBrokerManyTasks: many placements at once are few requests and transactions.
func TestBrokerManyTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		b.secret(1, "hunter2")
		synctest.Wait()
		ops := make([]store.Op, 0, 90)
		for i := range 90 {
			p := cluster.NodePlacement{Task: cluster.TaskID(fmt.Sprint("t", i)), Node: "n1", ServiceID: cluster.ServiceID{App: "shop", Name: "api"}, Desire: cluster.DesireRun}
			p.Spec.Secrets = []cluster.FileRef{{Name: "db"}}
			op, err := store.PutJSON(store.PlacementKey("n1", p.Task), p)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, op)
		}
		if _, err := b.st.Store.Commit(t.Context(), store.Txn{Then: ops}); err != nil {
			t.Fatal(err)
		}
		for i := range 90 {
			if b.payload(fmt.Sprint("t", i)) == nil {
				t.Fatalf("t%d has no payload", i)
			}
		}
		if b.asked != 1 || b.st.commits > 3 {
			t.Errorf("%d requests and %d transactions", b.asked, b.st.commits)
		}
	})
}

// TestBrokerTooLarge: what does not fit is said, once, and not tried for ever.
func TestBrokerTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		for _, n := range []string{"a", "b", "c"} {
			b.put(store.ConfigKey("shop", n, "1"), cluster.Config{App: "shop", Name: n, Hash: "1", Content: incompressible(400 << 10)})
		}
		b.place("t1", "a@1", "b@1", "c@1")
		if got := b.reason(); !strings.Contains(got, "too large together") {
			t.Errorf("reason %q", got)
		}
		b.quiet()
	})
}

// TestBrokerDeliversTheMost: what the API accepts arrives, even where nothing can be compressed.
func TestBrokerDeliversTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		left := cluster.MaxPayload - 5
		for i, n := range []string{"a", "b", "c", "d", "e"} {
			size := left / 5
			if i == 0 {
				size += left % 5
			}
			b.put(store.ConfigKey("shop", n, "1"), cluster.Config{App: "shop", Name: n, Hash: "1", Content: incompressible(size)})
		}
		b.place("t1", "a@1", "b@1", "c@1", "d@1", "e@1")
		p := b.payload("t1")
		if p == nil {
			t.Fatalf("not delivered: %s", b.reason())
		}
		if got := len(p.Configs["a"]) + 4*len(p.Configs["e"]); got != left {
			t.Errorf("%d bytes arrived of %d", got, left)
		}
	})
}

func incompressible(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestBrokerLosesARace: the placement goes while its payload is being made.
func TestBrokerLosesARace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerWorld(t)
		b.secret(1, "hunter2")
		synctest.Wait()
		b.st.mu.Lock()
		b.st.before = func() {
			if _, err := b.st.Store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.PlacementKey("n1", "t1"), Delete: true}}}); err != nil {
				t.Error(err)
			}
		}
		b.st.mu.Unlock()
		b.place("t1", "db")
		b.place("t2", "db")
		if b.payload("t1") != nil {
			t.Error("a payload for a task that is gone")
		}
		time.Sleep(time.Minute)
		if p := b.payload("t2"); p == nil {
			t.Error("the other one was forgotten")
		}
		entries, _, err := b.st.List(t.Context(), store.PrefixSealed)
		if err != nil {
			t.Fatal(err)
		}
		keys := map[string]bool{}
		for _, e := range entries {
			keys[e.Key] = true
		}
		if d := cmp.Diff([]string{store.SealedKey("n1", "t2")}, slices.Sorted(maps.Keys(keys))); d != "" {
			t.Error(d)
		}
	})
}
