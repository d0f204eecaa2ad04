package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// lockedBuffer is a log that is read while it is written.
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

const smallQuota = 16 << 20

// small starts an etcd with the smallest quota that looks after itself often.
func small(t *testing.T) (*embedded.Server, *store.Etcd, *lockedBuffer) {
	t.Helper()
	srv, log := etcdtest.New(t), &lockedBuffer{}
	srv.Config.Quota, srv.Config.Check = smallQuota, 50*time.Millisecond
	s, err := embedded.New(srv.Config, hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("etcd ended with %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready")
	}
	return s, srv.Client(t), log
}

// fill writes a value of half a megabyte and reports whether etcd had room for it.
func fill(t *testing.T, st store.Store, key string) bool {
	t.Helper()
	_, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: bytes.Repeat([]byte("x"), 1<<19)}}})
	if err != nil && !strings.Contains(err.Error(), "database space exceeded") {
		t.Fatal(err)
	}
	return err == nil
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(need.Patience * 20 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, need.Patience*20*time.Second)
		}
	}
}

// An etcd that nobody looks after says so when asked.
func TestAlarmsAreTold(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	srv.Config.Quota, srv.Config.Check = smallQuota, time.Hour
	stop := srv.Start(t)
	defer func() { _ = stop() }()
	st := srv.Client(t)
	if list, err := st.Alarms(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	for fill(t, st, "same") {
	}
	list, err := st.Alarms(t.Context())
	if err != nil || len(list) != 1 || !strings.Contains(list[0], "etcdctl compact, defrag, alarm disarm") {
		t.Fatalf("%q, %v", list, err)
	}
}

// noAlarm waits until nothing is wrong. It writes meanwhile, as a cluster always
// does: etcd counts the pages that a compaction freed at its second write after it.
func noAlarm(t *testing.T, s *embedded.Server, st store.Store) {
	t.Helper()
	until(t, "no alarm is left", func() bool { return canWrite(t, st) && s.Alarm() == "" })
}

func canWrite(t *testing.T, st store.Store) bool {
	t.Helper()
	_, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: "again", Value: []byte("1")}}})
	return err == nil
}

// A store that is full of history makes room by itself.
func TestFullOfHistoryRecovers(t *testing.T) {
	t.Parallel()
	s, st, log := small(t)
	until(t, "the store is full", func() bool {
		fill(t, st, "same")
		return strings.Contains(log.String(), "the store is full: making room")
	})
	until(t, "the store takes writes again", func() bool { return canWrite(t, st) })
	noAlarm(t, s, st)
	for _, want := range []string{"the store is full: making room", "defragmented the store", "the store has room again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if e, err := st.Get(t.Context(), "same"); err != nil || len(e.Value) != 1<<19 {
		t.Errorf("%d bytes, %v: the newest value must stay", len(e.Value), err)
	}
}

// A store that is full of what counts says so, and goes on once something was deleted.
func TestFullOfDataSaysSo(t *testing.T) {
	t.Parallel()
	s, st, log := small(t)
	n := 0 // it makes room once or twice, until there is none to make
	until(t, "an alarm says what to do", func() bool {
		if fill(t, st, fmt.Sprintf("key/%d", n)) {
			n++
		}
		return strings.Contains(s.Alarm(), "takes no change but deletions: start the server with a larger --etcd-quota")
	})
	until(t, "the log says it", func() bool { return strings.Contains(log.String(), "[ERROR]") })
	if canWrite(t, st) {
		t.Error("a full store takes a write")
	}
	for i := range n { // so that it is not nearly full either
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: fmt.Sprintf("key/%d", i), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the store takes writes again", func() bool { return canWrite(t, st) })
	// Some were deleted after it made room: etcd forgets those in its own time.
	_, rev, err := st.List(t.Context(), "key/")
	if err == nil {
		err = st.Compact(t.Context(), rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	noAlarm(t, s, st)
}
