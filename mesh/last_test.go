package mesh

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
)

func some(n int) []cluster.Endpoints {
	return []cluster.Endpoints{{
		ServiceID: cluster.ServiceID{App: "shop", Name: "web"}, Address: "10.212.0.1", Networks: []cluster.NetworkName{"shop_default"},
		Tasks: []cluster.Endpoint{{
			Task: "shop_web.1.x", Slot: 1, Node: "n1",
			Addresses: map[cluster.NetworkName]string{"shop_default": fmt.Sprintf("10.213.0.%d", n)},
		}},
	}}
}

func TestLastEndpointsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := OpenLast(path, hclog.NewNullLogger())
		if _, known := l.Endpoints(); known {
			t.Fatal("endpoints out of nothing")
		}
		done := make(chan struct{})
		go func() { _ = l.Run(ctx); close(done) }()
		writes := 0
		var last os.FileInfo
		for i := 1; i <= 100; i++ { // over ten seconds
			l.Keep(some(i), cluster.StoreRev(i))
			<-time.After(100 * time.Millisecond)
			synctest.Wait()
			if st, err := os.Stat(path); err == nil && (last == nil || !os.SameFile(st, last)) {
				writes++
				last = st
			}
		}
		if writes < 2 || writes > 12 {
			t.Errorf("100 changes in ten seconds were written %d times", writes)
		}
		l.Keep(some(7), 101)
		cancel()
		<-done
	})
	eps, known := OpenLast(path, hclog.NewNullLogger()).Endpoints()
	if d := cmp.Diff(some(7), eps); d != "" || !known {
		t.Error(d)
	}
	for _, broken := range []string{"{", `{"version":9}`} {
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		_, known := OpenLast(path, hclog.New(&hclog.LoggerOptions{Output: &log})).Endpoints()
		if known || !strings.Contains(log.String(), path) {
			t.Errorf("%s: %v, %s", broken, known, &log)
		}
	}
}
