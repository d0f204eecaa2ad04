package cli_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// hookEnds waits for the task of a hook and ends it, as its node would.
func (h *hub) hookEnds(name cluster.ServiceName, state cluster.TaskState, code int, tail ...string) {
	h.t.Helper()
	for {
		changed := h.mirror.Changed()
		var tasks []cluster.Task
		h.mirror.Read(func(v store.View) { tasks = store.Tasks(v) })
		for _, t := range tasks {
			if _, ended := read[cluster.Status](h, store.StatusKey("n1", t.ID)); t.Hook == "" || t.Name != name || ended {
				continue
			}
			h.put(store.PlacementKey("n1", t.ID), cluster.NodePlacement{Task: t.ID, Node: "n1", ServiceID: t.ServiceID, Slot: t.Slot, Version: t.Version})
			h.put(store.StatusKey("n1", t.ID), cluster.Status{Task: t.ID, Node: "n1", ServiceID: t.ServiceID, Slot: t.Slot, Version: t.Version, State: state, ExitCode: code, LogTail: tail})
			return
		}
		select {
		case <-changed:
		case <-h.t.Context().Done():
			h.t.Fatalf("no task of hook %s", name)
		}
	}
}

// tested installs a package with two tests.
func tested(t *testing.T) *hub {
	t.Helper()
	h := newHub(t)
	h.hooks()
	h.must("", "chart", "create", "demo")
	h.write("demo/templates/tests.yaml", "services:\n  one:\n    image: shop/one:1\n    x-fairlead: {hook: {on: test}}\n  two:\n    image: shop/two:1\n    x-fairlead: {hook: {on: test}}\n")
	h.must("", "install", "shop", "demo", "--detach")
	return h
}

// TestChartTestFails ends with 1 and says what a test wrote last; those behind it do not run.
func TestChartTestFails(t *testing.T) {
	h := tested(t)
	for _, args := range [][]string{nil, {"-o", "json"}} {
		done := make(chan said)
		go func() { done <- h.cli("", append([]string{"chart", "test", "shop"}, args...)...) }()
		h.hookEnds("one", cluster.StateFailed, 3, "no such table")
		s := <-done
		if s.code != 1 || !strings.Contains(s.out, "failed") || strings.Contains(s.out, "two") || !strings.Contains(s.err, "test hook one failed: exit code 3") || !strings.Contains(s.err, "no such table") {
			t.Errorf("%v: %d\n%s", args, s.code, s.all)
		}
	}
	done := make(chan said)
	go func() { done <- h.cli("", "chart", "test", "shop") }()
	h.hookEnds("one", cluster.StateComplete, 0)
	h.hookEnds("two", cluster.StateComplete, 0)
	if s := <-done; s.code != 0 || strings.Count(s.out, "complete") != 2 {
		t.Errorf("%d\n%s", s.code, s.all)
	}
}

// TestChartTestFilters runs the tests that are named, and no other.
func TestChartTestFilters(t *testing.T) {
	h := tested(t)
	done := make(chan said)
	go func() { done <- h.cli("", "chart", "test", "shop", "--filter", "name=two") }()
	h.hookEnds("two", cluster.StateComplete, 0)
	if s := <-done; s.code != 0 || !strings.Contains(s.out, "two") || strings.Contains(s.out, "one") {
		t.Errorf("%d\n%s", s.code, s.all)
	}
	if s := h.cli("", "chart", "test", "shop", "--filter", "name=three"); s.code != 4 || !strings.Contains(s.err, `no test "three"; it has one, two`) {
		t.Errorf("%d\n%s", s.code, s.all)
	}
	if s := h.cli("", "chart", "test", "shop", "--filter", "two"); s.code != 2 {
		t.Errorf("%d\n%s", s.code, s.all)
	}
}
