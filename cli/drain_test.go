package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cli"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// agents does on every node what an agent does, as far as its status tells: what is
// placed there is ready, what is to stop has stopped.
func (h *hub) agents() {
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	h.t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		for ctx.Err() == nil {
			changed := h.mirror.Changed()
			var ops []store.Op
			h.mirror.Read(func(v store.View) {
				for _, e := range store.All[cluster.NodePlacement](v, store.PrefixPlacements, nil) {
					p := e.V
					st := cluster.Status{Task: p.Task, Node: p.Node, ServiceID: p.ServiceID, Slot: p.Slot, Version: p.Version, State: cluster.StateRunning, Ready: true, Container: "c", At: today, ReadySince: today}
					if p.Desire == cluster.DesireStop {
						st.State, st.Ready = cluster.StateStopped, false
					}
					key := store.StatusKey(p.Node, p.Task)
					if old, ok, err := store.One[cluster.Status](v, key); ok && err == nil && old.V.State == st.State {
						continue
					}
					if op, err := store.PutJSON(key, st); err == nil {
						ops = append(ops, op)
					}
				}
			})
			if len(ops) > 0 {
				_, _ = h.store.Commit(ctx, store.Txn{Then: ops})
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
}

// twoNodes is a hub with a second node, n2, on which things happen.
func twoNodes(t *testing.T) *hub {
	t.Helper()
	h := newHub(t)
	h.put(store.NodeInfoKey("n2"), cluster.NodeInfo{ID: "n2", Hostname: "n2", Address: "203.0.113.2", OS: "linux", Arch: "amd64", CPU: 4000, Memory: 8 << 30, Roles: []string{"agent"}})
	h.put(store.AliveKey("n2"), true)
	h.loops()
	h.agents()
	return h
}

// ready waits until an app has so many ready tasks.
func (h *hub) ready(app cluster.AppName, want int) {
	h.t.Helper()
	for {
		changed, n := h.mirror.Changed(), 0
		h.mirror.Read(func(v store.View) {
			for _, e := range store.All[cluster.Status](v, store.PrefixStatus, nil) {
				if e.V.App == app && e.V.Ready {
					n++
				}
			}
		})
		if n == want {
			return
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatalf("%d tasks are ready", n)
		}
	}
}

func TestDrainWaitsUntilTheNodeIsEmpty(t *testing.T) {
	h := twoNodes(t)
	h.deploy("name: shop\nservices: {web: {image: a, deploy: {replicas: 4}}, watch: {image: b, deploy: {mode: global}}}\n")
	h.ready("shop", 6)
	s := h.must("", "node", "drain", "n2")
	for _, want := range []string{"  shop/watch  1 of 1 gone\n", "  shop/web    2 of 2 gone\n"} {
		if !strings.Contains(s.err, want) {
			t.Errorf("it does not say %q:\n%s", want, s.all)
		}
	}
	if !strings.Contains(s.out, "drain") {
		t.Errorf("the node is not shown: %s", s.all)
	}
	var n v1.NodeDetail
	if s := h.must("", "node", "drain", "n2", "-o", "json"); json.Unmarshal([]byte(s.out), &n) != nil || n.Availability != cluster.Drain || len(n.Each) > 0 || s.err != "" {
		t.Errorf("for a program: %s", s.all)
	}
	if s := h.must("", "ps", "shop"); strings.Contains(s.out, "n2") || strings.Count(s.out, "n1") != 5 {
		t.Errorf("afterwards:\n%s", s.out)
	}
}

func TestDrainSaysWhatStays(t *testing.T) {
	h := twoNodes(t)
	h.put(store.NodeSpecKey("n1"), cluster.NodeSpec{ID: "n1", Availability: cluster.Pause}) // so that all goes to n2
	h.deploy("name: shop\nservices: {db: {image: a, volumes: [data:/data]}, web: {image: a, deploy: {placement: {constraints: [node.hostname == n2]}}}}\nvolumes: {data: {}}\n")
	h.ready("shop", 2)
	h.put(store.NodeSpecKey("n1"), cluster.NodeSpec{ID: "n1"})

	// What its volumes hold is not waited for; what has nowhere to go is.
	s := h.cli("", "node", "drain", "n2", "--timeout", "2s")
	if s.code != 1 {
		t.Errorf("exit code %d", s.code)
	}
	for _, want := range []string{
		"n2 is drained, but not empty after 2s",
		"shop/db.1: stays: its volumes are on node n2",
		"shop/web.1: has nowhere to go: no suitable node (",
		"fairlead node activate n2", "fairlead node rm n2 --lose-volumes",
		"  shop/web  0 of 1 gone, 1 with nowhere to go: no suitable node (",
	} {
		if !strings.Contains(s.err, want) {
			t.Errorf("it does not say %q:\n%s", want, s.all)
		}
	}
	h.must("", "scale", "shop/web=0")
	s = h.cli("", "node", "drain", "n2", "-o", "json") // with no other timeout
	var n v1.NodeDetail
	if err := json.Unmarshal([]byte(s.out), &n); err != nil || s.code != 1 || len(n.Leaving) != 1 || n.Leaving[0].State != v1.LeavingHeld {
		t.Errorf("a volume alone: %d %v %s", s.code, err, s.all)
	}
	if strings.Contains(s.err, "after") || !strings.Contains(s.err, "shop/db.1: stays") {
		t.Errorf("a volume alone: %s", s.err)
	}
	h.must("", "node", "activate", "n2")
	if s := h.must("", "node", "drain", "n2", "-d"); !strings.Contains(s.out, "drain") || s.err != "" {
		t.Errorf("without waiting: %s", s.all)
	}
}

func TestDrainInterrupted(t *testing.T) {
	h := newHub(t) // no loops: nothing moves
	h.deploy("name: shop\nservices: {web: {image: a}}\n")
	h.run("shop", "web")
	// follow drains n1, and returns when the command has shown how far it is.
	follow := func() (func(), *bytes.Buffer, <-chan int) {
		ctx, stop := context.WithCancel(t.Context())
		t.Cleanup(stop)
		shown, done := make(chan struct{}), make(chan int, 1)
		var errs bytes.Buffer
		once := sync.OnceFunc(func() { close(shown) })
		show := writer(func(p []byte) (int, error) {
			defer once()
			return errs.Write(p)
		})
		go func() {
			done <- cli.Main(ctx, []string{"node", "drain", "n1"}, cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: show, Now: now})
		}()
		<-shown
		return stop, &errs, done
	}
	stop, says, done := follow()
	stop()
	if code := <-done; code != 1 || !strings.Contains(says.String(), "n1 stays drained") || !strings.Contains(says.String(), "fairlead node activate n1") {
		t.Errorf("interrupted: %d %s", code, says)
	}
	if n, _ := read[cluster.NodeSpec](h, store.NodeSpecKey("n1")); n.Availability != cluster.Drain {
		t.Errorf("interrupted, it is %s", n.Availability)
	}
	_, says, done = follow()
	h.must("", "node", "activate", "n1")
	if code := <-done; code != 1 || !strings.Contains(says.String(), "n1 is not drained any more: it was made active meanwhile") {
		t.Errorf("activated meanwhile: %d %s", code, says)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestScaleSaysWhatHasNoPlace: a count that no node can take is set, and what of it
// will not run is said at once, as plan would.
func TestScaleSaysWhatHasNoPlace(t *testing.T) {
	h := newHub(t)
	h.loops()
	h.agents()
	h.deploy("name: shop\nservices:\n  web: {image: shop/web:1, deploy: {resources: {reservations: {memory: 1G}}}}\n  log: {image: shop/log:1}\n")
	if s := h.must("", "scale", "shop/web=2", "shop/log=20"); s.err != "" {
		t.Errorf("what has a place: %q", s.err)
	}
	if s := h.must("", "status", "shop"); !strings.Contains(s.out, "  web is kept at 2 by hand; `fairlead scale shop/web=auto`") {
		t.Errorf("status does not say who decides the count:\n%s", s.out)
	}
	s := h.must("", "scale", "shop/web=10", "shop/log=3")
	if !strings.HasPrefix(s.err, "warning: 2 of 10 tasks of shop/web cannot be placed now: ") || !strings.Contains(s.err, "n1") || !strings.Contains(s.err, "memory") ||
		!strings.HasSuffix(s.err, "; `fairlead explain shop/web` follows it\n") || strings.Count(s.err, "\n") != 1 {
		t.Errorf("%q", s.err)
	}
	// Asked again it says so again, and to a program in its answer alone.
	s = h.must("", "scale", "shop/web=10", "-o", "json")
	var got []v1.Scaled
	if err := json.Unmarshal([]byte(s.out), &got); err != nil || s.err != "" || got[0].Replicas != 10 || got[0].Waits == nil || got[0].Waits.Waiting != 2 {
		t.Errorf("%q %q %v", s.out, s.err, err)
	}
}
