package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func put(t *testing.T, st store.Store, key, value string) int64 {
	t.Helper()
	rev, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// start runs a mirror in a synctest bubble until the returned function is called.
func start(t *testing.T, m *store.Mirror) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}
}

func content(m *store.Mirror) map[string]string {
	out := map[string]string{}
	m.Read(func(v store.View) {
		for _, k := range v.Keys("") {
			e, _ := v.Entry(k)
			out[k] = string(e.Value)
		}
	})
	return out
}

func TestMirrorListsAgainAfterCompaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		put(t, st, "p/a", "1")
		m := store.NewMirror(st, "p/", hclog.NewNullLogger())
		defer start(t, m)()
		// While the store does not answer, much happens that is then compacted.
		st.Down(true)
		time.Sleep(time.Second)
		st.Down(false)
		put(t, st, "p/b", "2")
		if _, err := st.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: "p/a", Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		last := put(t, st, "q/other", "not mirrored")
		if err := st.Compact(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if d := cmp.Diff(map[string]string{"p/b": "2"}, content(m)); d != "" || m.Rev() != last {
			t.Fatalf("mirror at %d, want %d: %s", m.Rev(), last, d)
		}
		live := put(t, st, "p/c", "3")
		synctest.Wait()
		if m.Rev() != live || len(content(m)) != 2 {
			t.Fatalf("mirror at %d, want %d: %v", m.Rev(), live, content(m))
		}
	})
}

// compacting is a store that compacts between a list and the watch that follows it.
type compacting struct {
	*store.Memory
	times int
}

func (c *compacting) Watch(ctx context.Context, prefix string, rev int64) <-chan store.Batch {
	if c.times > 0 {
		c.times--
		for i := range 3 {
			if _, err := c.Commit(ctx, store.Txn{Then: []store.Op{{Key: "p/b", Value: fmt.Append(nil, i)}}}); err != nil {
				panic(err)
			}
		}
		_, now, _ := c.List(ctx, "")
		if err := c.Compact(ctx, now); err != nil {
			panic(err)
		}
	}
	return c.Memory.Watch(ctx, prefix, rev)
}

func TestMirrorSurvivesCompactionUnderItsWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &compacting{Memory: store.NewMemory(), times: 3}
		put(t, st, "p/a", "1")
		m := store.NewMirror(st, "p/", hclog.NewNullLogger())
		defer start(t, m)()
		time.Sleep(5 * time.Second)
		if d := cmp.Diff(map[string]string{"p/a": "1", "p/b": "2"}, content(m)); d != "" || st.times != 0 {
			t.Fatalf("%d to go: %s", st.times, d)
		}
	})
}

func TestMirrorIsReadyOnlyWithTheFirstList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		st.Down(true)
		m := store.NewMirror(st, "p/", hclog.NewNullLogger())
		defer start(t, m)()
		select {
		case <-m.Ready():
			t.Fatal("ready without a list")
		default:
		}
		st.Down(false)
		time.Sleep(time.Second)
		<-m.Ready()
	})
}

func TestMirrorAnnouncesEveryChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		m := store.NewMirror(st, "p/", hclog.NewNullLogger())
		defer start(t, m)()
		for i := range 20 {
			changed := m.Changed()
			rev := put(t, st, "p/a", fmt.Sprint(i))
			<-changed
			if m.Rev() != rev {
				t.Fatalf("announced at %d, want %d", m.Rev(), rev)
			}
		}
	})
}

func TestMirrorLeavesOutWhatDoesNotDecode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		st := store.NewMemory()
		put(t, st, store.PrefixTasks+"shop/bad", `{"id":`)
		good := put(t, st, store.PrefixTasks+"shop/good", `{"id":"good","slot":2}`)
		m := store.NewMirror(st, store.Root, hclog.New(&hclog.LoggerOptions{Output: &log}))
		stop := start(t, m)
		m.Read(func(v store.View) {
			tasks := store.Tasks(v)
			if len(tasks) != 1 || tasks[0].ID != "good" || tasks[0].Slot != 2 || tasks[0].Rev != cluster.StoreRev(good) {
				t.Errorf("tasks %+v", tasks)
			}
			_, ok, err := store.One[cluster.Task](v, store.TaskKey("shop", "bad"))
			if ok || err == nil || !strings.Contains(err.Error(), "tasks/shop/bad") {
				t.Errorf("bad: %v, %v", ok, err)
			}
			if _, ok, err := store.One[cluster.Task](v, store.TaskKey("shop", "none")); ok || err != nil {
				t.Errorf("missing: %v, %v", ok, err)
			}
			// One value read as two types is a mistake of ours, and not a panic.
			if _, _, err := store.One[cluster.Status](v, store.TaskKey("shop", "good")); err == nil {
				t.Error("a task was read as a status")
			}
		})
		// Mended, it is there.
		put(t, st, store.TaskKey("shop", "bad"), `{"id":"bad"}`)
		synctest.Wait()
		m.Read(func(v store.View) {
			if tasks := store.Tasks(v); len(tasks) != 2 || tasks[0].ID != "bad" {
				t.Errorf("tasks %+v", tasks)
			}
		})
		stop()
		if !strings.Contains(log.String(), "tasks/shop/bad") {
			t.Errorf("the log does not name the key: %s", log.String())
		}
	})
}

// From the end of a watch to the next list a mirror holds what was.
func TestMirrorFollowsUnlessTheStoreIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		m := store.NewMirror(st, "p/", hclog.NewNullLogger())
		if m.Follows() {
			t.Error("before it was listed")
		}
		defer start(t, m)()
		for _, down := range []bool{false, true, false} {
			st.Down(down)
			time.Sleep(time.Second)
			if m.Follows() == down {
				t.Errorf("down %v: follows %v", down, m.Follows())
			}
		}
	})
}

// A store that is away for an hour is told of a few times, and that it is back once.
func TestMirrorDoesNotRepeatItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		log := hclog.New(&hclog.LoggerOptions{Output: &said})
		st := store.NewMemory()
		m := store.NewMirror(st, "p/", log)
		c := store.Candidate{Store: st, Name: "x", ID: "n1", Now: time.Now, Log: log}
		ctx, cancel := context.WithCancel(t.Context())
		led := make(chan error, 1)
		go func() {
			led <- c.Lead(ctx, func(ctx context.Context, _ store.Store, _ time.Time) error { <-ctx.Done(); return context.Cause(ctx) })
		}()
		stop := start(t, m)
		st.Down(true)
		time.Sleep(time.Hour)
		st.Down(false)
		time.Sleep(time.Minute)
		cancel()
		if err := <-led; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		stop()
		for says, most := range map[string]int{"could not list the store": 50, "could not take or keep the lead": 50, "the store answers again": 1, "somebody leads again": 1} {
			if n := strings.Count(said.String(), says); n == 0 || n > most {
				t.Errorf("%d times: %s", n, says)
			}
		}
	})
}
