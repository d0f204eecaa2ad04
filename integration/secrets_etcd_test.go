package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/control"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// TestSecretsNeverInClear takes a generated secret through a real etcd to the
// node that needs it, then looks for it in every file of etcd's directory (its
// write-ahead log too), in every key, and in the broker's log at its chattiest.
// So it does with the hash of a user whom a route asks for, deployed by the API.
func TestSecretsNeverInClear(t *testing.T) {
	server := etcdtest.New(t)
	stop := server.Start(t)
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = stop()
		}
	})
	st := server.Client(t)
	key, err := sealed.LoadOrCreate(filepath.Join(t.TempDir(), "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	value, err := secrets.Generate(32)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := secrets.SealRecord(key, cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db-password"}, Version: 1, Generated: true}, value)
	if err != nil {
		t.Fatal(err)
	}

	var logs lockedBuffer
	log := hclog.New(&hclog.LoggerOptions{Output: &logs, Level: hclog.Trace})
	m := store.NewMirror(st, store.Root, log)
	broker := control.Broker(store.Guarded(st, store.WriterBroker), m, secrets.Providers{secrets.ProviderSealed: key}, time.Now, log)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { _ = broker.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })

	put := func(k string, v any) {
		t.Helper()
		op, err := store.PutJSON(k, v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	p := cluster.NodePlacement{Task: "shop_api.1.x", Node: "n1", ServiceID: cluster.ServiceID{App: "shop", Name: "api"}, Slot: 1, Desire: cluster.DesireRun}
	p.Spec.Secrets = []cluster.FileRef{{Name: "db-password"}}
	put(store.NodeInfoKey("n1"), cluster.NodeInfo{ID: "n1", PublicKey: node.Recipient().String()})
	put(store.PlacementKey("n1", p.Task), p)
	wait := waitForKey(t, st, store.DecisionKey("broker", "shop/api"))
	var d cluster.Decision
	if err := json.Unmarshal(wait, &d); err != nil || !strings.Contains(d.Reason, "fairlead secret set shop/db-password") {
		t.Fatalf("decision %+v, %v", d, err)
	}
	put(store.SecretKey(rec.SecretRef), rec)
	var s cluster.Sealed
	if err := json.Unmarshal(waitForKey(t, st, store.SealedKey("n1", p.Task)), &s); err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(s.Data), node)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := cluster.DecodePayload(r)
	if err != nil || !bytes.Equal(payload.Secrets["db-password"], value.Reveal()) {
		t.Fatal("the node did not get the value", err)
	}
	if _, err := age.Decrypt(bytes.NewReader(s.Data), stranger); err == nil {
		t.Error("another node opens it")
	}

	hash := "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"
	deployGuarded(t, st, m, key, log, hash)

	cancel()
	wg.Wait()
	_ = stop()
	stopped = true
	for _, form := range []string{string(value.Reveal()), base64.StdEncoding.EncodeToString(value.Reveal()), hash, strings.ReplaceAll(hash, "$", "$$")} {
		if strings.Contains(logs.String(), form) {
			t.Error("the log holds the value")
		}
		files := 0
		err := filepath.WalkDir(server.Config.Dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if bytes.Contains(b, []byte(form)) {
				return fmt.Errorf("%s holds the value", path)
			}
			if strings.HasSuffix(path, ".wal") && !bytes.Contains(b, []byte("db-password")) {
				return fmt.Errorf("%s does not even hold the secret's name: this test looks at the wrong file", path)
			}
			return nil
		})
		if err != nil || files < 2 {
			t.Errorf("%d files: %v", files, err)
		}
	}
}

// deployGuarded deploys an app whose route asks for a user, by the API and its
// client, and waits until proxyconf has written the route.
func deployGuarded(t *testing.T, st store.Store, m *store.Mirror, key *sealed.Key, log hclog.Logger, hash string) {
	t.Helper()
	srv, err := api.New(api.Config{
		Store: store.Guarded(st, store.WriterAPI), Mirror: m, Hosts: struct{ api.Hosts }{}, Keeper: key, Resolver: key, Now: time.Now, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		srv.ServeHTTP(w, r.WithContext(api.Trusted(r.Context(), "test")))
	}))
	defer ts.Close()
	c, err := client.New(client.Options{URL: ts.URL, Token: "any"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec := cluster.ServiceSpec{
		Task: cluster.TaskSpec{Image: "web", Labels: map[string]string{"traefik.http.middlewares.auth.basicauth.users": "ann:" + hash}},
		Routes: []cluster.Route{{Host: "users.example.com", Port: 80, Middlewares: []cluster.Middleware{
			{Name: "auth", Options: map[string]string{"basicauth/users": "ann:" + hash}},
		}}},
	}
	if _, err := c.Deploy(t.Context(), "users", v1.Bundle{
		Services: map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}, Rendered: "users: ann:" + strings.ReplaceAll(hash, "$", "$$"),
	}); err != nil {
		t.Fatal(err)
	}
	tree := store.NewMirror(st, store.TraefikRoot, log)
	pc := control.Proxyconf(store.Guarded(st, store.WriterProxyconf), m, tree, control.ProxyconfOptions{Now: time.Now}, log)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = tree.Run(ctx) })
	wg.Go(func() { _ = pc.Run(ctx) })
	ref := string(waitForKey(t, st, store.TraefikRoot+"/http/routers/users_web-0/middlewares/0"))
	cancel()
	wg.Wait()
	if !strings.HasPrefix(ref, "fairlead-auth-basicauth-") || !strings.HasSuffix(ref, "@file") {
		t.Errorf("the route asks for %s", ref)
	}
}

// waitForKey polls until a key is there.
func waitForKey(t *testing.T, st store.Store, key string) []byte {
	t.Helper()
	for deadline := time.Now().Add(need.Patience * 10 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		e, err := st.Get(t.Context(), key)
		if err == nil {
			return e.Value
		}
		if cluster.KindOf(err) != cluster.KindNotFound {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s did not come", key)
	return nil
}

// lockedBuffer is a buffer that a logger writes from several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
