package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// An operator puts the store back to an older state: a client is told of it, also one that
// asks for nothing meanwhile, and none is of a store that was merely away.
func TestAStoreThatIsPutBack(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	stop := srv.Start(t)
	t.Cleanup(func() { _ = stop() })
	idle, writer := srv.Client(t), srv.Client(t)
	put(t, writer, "app", "older")
	_ = stop()
	older := filepath.Join(t.TempDir(), "older")
	copyDir := func(from, to string) {
		t.Helper()
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	copyDir(srv.Config.Dir, older)
	connected := func(c *store.Etcd) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for c.Healthy(ctx) != nil {
			if ctx.Err() != nil {
				t.Fatal("the client does not connect again")
			}
		}
	}

	stop = srv.Start(t)
	told := map[*store.Etcd]chan error{idle: make(chan error, 1), writer: make(chan error, 1)}
	for c, ch := range told {
		go func() { ch <- c.AwaitPutBack(t.Context(), "app") }()
	}
	seen := idle.Watch(t.Context(), "app", 0)
	for i := range 50 {
		put(t, writer, "app", fmt.Sprintf("newer %d", i))
	}
	for b := range seen {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		if n := len(b.Events); n > 0 && string(b.Events[n-1].Value) == "newer 49" {
			break
		}
	}
	_ = stop()
	stop = srv.Start(t)
	connected(writer)
	put(t, writer, "app", "newer still")
	connected(idle)
	if _, err := idle.Get(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	for _, ch := range told {
		select {
		case err := <-ch:
			t.Fatalf("the store was away, and not put back: %v", err)
		default:
		}
	}

	_ = stop()
	copyDir(older, srv.Config.Dir)
	stop = srv.Start(t)
	connected(writer)
	put(t, writer, "app", "since")
	for c, ch := range told {
		select {
		case err := <-ch:
			if !errors.Is(err, store.ErrPutBack) {
				t.Errorf("%v", err)
			}
		case <-time.After(90 * time.Second):
			t.Errorf("a client is not told; the idle one: %v", c == idle)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := srv.Client(t).AwaitPutBack(ctx, "app"); !errors.Is(err, why) {
		t.Errorf("a client of the store as it is now: %v", err)
	}
}
