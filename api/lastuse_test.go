package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/plan"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// meeting holds the first transaction of each server back until all have one: each has
// decided on what was before the others'.
type meeting struct {
	store.Store
	once sync.Once
	all  *sync.WaitGroup
}

func (m *meeting) Commit(ctx context.Context, t store.Txn) (int64, error) {
	m.once.Do(func() {
		m.all.Done()
		m.all.Wait()
	})
	return m.Store.Commit(ctx, t)
}

// serve is one of several servers on a real store, which begin to write together.
func serve(t *testing.T, st *store.Etcd, all *sync.WaitGroup) *api.Server {
	t.Helper()
	log := hclog.NewNullLogger()
	m := store.NewMirror(st, store.Root, log)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-m.Ready()
	key, err := sealed.NewKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{
		Store: &meeting{Store: store.Guarded(st, store.WriterAPI), all: all}, Mirror: m, Hosts: newFakeHost(), Keeper: key, CA: "sha256:ca", Node: "n1",
		Now: time.Now, Log: log, Version: "test", Domain: "example.test", Entry: plan.EntryPoints{Web: 80, WebSecure: 443, Internal: 8080},
		Admission: &fakeDoor{store: st, open: map[cluster.NodeID]string{}}, Servers: &fakeSeats{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// As many machines get in as a token has uses, however many ask at once, each another
// server, on a real store: the last use is one machine's.
func TestATokensLastUse(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		path, body, admitted, prefix string
		server                       bool
	}{
		{"/v1/join", `{"token":"s","node":"m%d","request":"k%d"}`, "cert of k", store.PrefixNodes, false},
		{"/v1/join-server", `{"token":"s","node":"m%d","recipient":"age%d"}`, "sealed", store.PrefixServers, true},
	} {
		for _, uses := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s %d", kind.path, uses), func(t *testing.T) {
				t.Parallel()
				srv := etcdtest.Start(t)
				st := srv.Client(t)
				tok, err := store.PutJSON(store.TokenKey("043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89"), // of "s"
					cluster.Token{Name: "join", Join: true, Server: kind.server, Expires: time.Now().Add(time.Hour), Uses: uses})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{tok}}); err != nil {
					t.Fatal(err)
				}
				const machines = 5
				var all, asked sync.WaitGroup
				all.Add(machines)
				var said [machines]string
				for i := range machines {
					s := serve(t, srv.Client(t), &all)
					asked.Go(func() {
						r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, kind.path, strings.NewReader(fmt.Sprintf(kind.body, i, i)))
						r.Header.Set("Content-Type", "application/json")
						w := httptest.NewRecorder()
						s.ServeHTTP(w, r)
						said[i] = w.Body.String()
					})
				}
				asked.Wait()
				in := 0
				for _, text := range said {
					switch {
					case strings.Contains(text, kind.admitted):
						in++
					case !strings.Contains(text, "used up"):
						t.Errorf("refused with %s", text)
					}
				}
				records, _, err := st.List(t.Context(), kind.prefix)
				if in != uses || len(records) != uses || err != nil {
					t.Errorf("of %d machines %d got in, and %d have records, by a token of %d uses: %v", machines, in, len(records), uses, err)
				}
				var left cluster.Token
				if e, err := st.Get(t.Context(), tok.Key); err != nil || json.Unmarshal(e.Value, &left) != nil || left.Uses != 0 {
					t.Errorf("%d uses are left, %v", left.Uses, err)
				}
			})
		}
	}
}
