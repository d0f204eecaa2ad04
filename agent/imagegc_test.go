package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// newFullNode is a node whose disk has room for a few images, of which app:1, app:2, … of
// 10 GiB each can be pulled. Fake "img" takes nothing.
func newFullNode(t *testing.T) *fakeNode {
	t.Helper()
	n := newFakeNode(t)
	n.engine.sizes, n.engine.keeps, n.engine.disk = map[string]int64{}, map[string]bool{}, DiskUse{Total: 100 * gib, Free: 55 * gib}
	for i := range 10 {
		ref, id := fmt.Sprintf("app:%d", i), fmt.Sprintf("sha256:app%d", i)
		n.engine.pullable[ref] = docker.ImageInfo{ID: id, Tags: []string{ref}, Digests: []string{fmt.Sprintf("app@sha256:%064d", i)}}
		n.engine.sizes[id] = 10 * gib
	}
	n.change = func(c *Config) { c.ImageGC, c.DiskUse = ImageGC{High: 85, Low: 80}, n.engine.use }
	return n
}

func taskOf(i int, image string) cluster.NodePlacement {
	p := fakeTask(i)
	p.Spec.Image = image
	return p
}

// deploy runs one version after another, an hour and a half each.
func (n *fakeNode) deploy(versions ...int) {
	n.t.Helper()
	for _, v := range versions {
		n.store.set(true, taskOf(v, fmt.Sprintf("app:%d", v)))
		settleDown(90 * time.Minute)
	}
}

func (n *fakeNode) wants(t *testing.T, when string, versions ...int) {
	t.Helper()
	for v := range 10 {
		if got := n.engine.has(fmt.Sprintf("app:%d", v)); got != slices.Contains(versions, v) {
			t.Errorf("%s: app:%d is there: %v", when, v, got)
		}
	}
}

func removals(calls []string) (out []string) {
	for _, c := range calls {
		if ref, ok := strings.CutPrefix(c, "remove image "); ok {
			out = append(out, ref)
		}
	}
	return out
}

func TestOldVersionsAreRemovedWhenTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2, 3, 4)
		n.wants(t, "85 % are used", 1, 2, 3, 4)
		if calls := n.engine.took(); slices.Contains(calls, "image uses") {
			t.Error("without need the engine was asked for what is in use")
		}
		n.store.set(true, taskOf(5, "app:5"))
		settleDown(10 * time.Minute)
		n.wants(t, "95 % are used", 3, 4, 5)
		if got := removals(n.engine.took()); !slices.Equal(got, []string{"app:1", "app:2"}) {
			t.Errorf("removed: %v", got)
		}
		// A disk that is full of other things is no reason to ask the engine each minute.
		n.engine.mu.Lock()
		n.engine.disk.Free -= 20 * gib
		n.engine.mu.Unlock()
		settleDown(2 * time.Minute)
		n.wants(t, "and more is full", 4, 5)
		n.engine.took()
		settleDown(10 * time.Minute)
		if calls := n.engine.took(); slices.Contains(calls, "image uses") {
			t.Error("the engine was asked though nothing may be removed")
		}
		// A rollback to what was removed pulls it.
		n.store.set(true, taskOf(6, "app:1"))
		settleDown(time.Minute)
		if s := n.store.status(taskOf(6, "app:1").Task); !s.Ready {
			t.Errorf("the rollback: %+v", s)
		}
		stop()
	})
}

func TestTheRecordOfPulledImagesOutlivesTheAgent(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"":        func(string) error { return nil },
		"lost":    os.Remove,
		"damaged": func(f string) error { return os.WriteFile(f, []byte("{"), 0o600) },
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newFullNode(t)
			_, stop := n.start()
			settleDown(time.Second)
			n.deploy(1, 2, 3, 4)
			stop()
			if err := spoil(filepath.Join(n.state, "images.json")); err != nil {
				t.Fatal(err)
			}
			_, stop = n.start()
			n.deploy(5)
			if name == "" {
				n.wants(t, "kept", 3, 4, 5)
			} else {
				n.wants(t, name, 1, 2, 3, 4, 5)
			}
			stop()
		})
	}
}

// What another node sent that had pulled it is as what was pulled here, and passed on as such.
func TestPulledImagesOfOtherNodesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		change := n.change
		n.change = func(c *Config) {
			change(c)
			c.Fetch = func(_ context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
				return cluster.ImageSent{ReadCloser: io.NopCloser(strings.NewReader(ask.Ref)), Pulled: ask.Ref != "app:2"}, nil
			}
		}
		for v := range 10 {
			n.engine.sizes[fmt.Sprintf("sha256:app:%d", v)] = 10 * gib // as the fake loads them
		}
		a, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2, 3, 4)
		if !a.Pulled("docker.io/library/app:1", "sha256:app:1") || a.Pulled("app:2", "sha256:app:2") || a.Pulled("other:1", "sha256:app:1") {
			t.Error("it says otherwise what a registry has")
		}
		n.deploy(5, 6)
		n.wants(t, "of other nodes", 2, 4, 5, 6)
		stop()
	})
}

// What is not ours stays however full the disk is: it was there before, it came from another
// node, or somebody loaded it under a name of ours.
func TestImagesOfOthersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		n.engine.images["app:1"] = n.engine.pullable["app:1"]
		n.engine.sizes["sha256:app:2"] = 10 * gib
		change := n.change
		n.change = func(c *Config) {
			change(c)
			c.Fetch = func(_ context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
				if ask.Ref != "app:2" {
					return cluster.ImageSent{}, cluster.NotFoundf("none")
				}
				return cluster.ImageSent{ReadCloser: io.NopCloser(strings.NewReader("app:2"))}, nil
			}
		}
		a, stop := n.start()
		settleDown(time.Second)
		always := taskOf(1, "app:1")
		always.Spec.PullPolicy = pullAlways
		n.store.set(true, always)
		settleDown(90 * time.Minute)
		n.deploy(2, 3, 4)
		err := a.Brings(t.Context(), []string{"app:3"}, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		n.deploy(5)
		if n.engine.has("app:4") {
			t.Error("app:4, which was pulled, stayed")
		}
		for _, ref := range []string{"app:1", "app:2", "app:3", "app:5", "img"} {
			if !n.engine.has(ref) {
				t.Errorf("%s was removed", ref)
			}
		}
		stop()
	})
}

// What somebody removed and brought back is theirs, and what a release is pinned to may not be
// what its name means in the registry.
func TestImagesThatAreNotOursAnyMoreStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2)
		n.engine.mu.Lock()
		on := n.engine.events
		n.engine.mu.Unlock()
		on(docker.Event{Image: true, Removed: "sha256:app1"})
		pinned := taskOf(3, "app:2")
		pinned.Spec.ImageID = "sha256:app2"
		n.store.set(true, pinned)
		settleDown(90 * time.Minute)
		pinned = taskOf(9, "app:3")
		pinned.Spec.ImageID = "sha256:app3"
		n.store.set(true, pinned)
		settleDown(20 * time.Second) // between two looks
		n.deploy(4, 5)
		n.deploy(6)
		n.wants(t, "at the end", 1, 2, 3, 6)
		stop()
	})
}

func TestWhatTheEngineKeepsIsLeftAloneForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2, 3, 4)
		n.engine.keeps["sha256:app1"] = true
		n.engine.took()
		n.store.set(true, taskOf(5, "app:5"))
		settleDown(30 * time.Minute)
		if got := removals(n.engine.took()); !slices.Equal(got, []string{"app:1", "app:2", "app:3"}) {
			t.Errorf("tried: %v", got)
		}
		n.engine.mu.Lock()
		n.engine.keeps, n.engine.disk.Free = nil, n.engine.disk.Free-21*gib
		n.engine.mu.Unlock()
		settleDown(time.Hour)
		n.wants(t, "later", 5)
		stop()
	})
}

// A task that is placed while its image is being removed waits, and pulls it again.
func TestATaskWhoseImageIsJustBeingRemovedPullsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2, 3, 4)
		back := taskOf(6, "app:1")
		n.engine.removes = func(ref string) {
			if b, err := os.ReadFile(filepath.Join(n.state, "images.json")); err != nil || strings.Contains(string(b), strings.Replace(ref, ":", "", 1)) {
				t.Errorf("%s is still ours while it is removed: %v, %s", ref, err, b)
			}
			if ref == "app:1" {
				n.store.set(true, taskOf(5, "app:5"), back)
			}
		}
		n.engine.took()
		n.store.set(true, taskOf(5, "app:5"))
		settleDown(10 * time.Minute)
		calls := n.engine.took()
		removed, pulled := slices.Index(calls, "remove image app:1"), slices.Index(calls, "pull app:1 as ")
		if s := n.store.status(back.Task); removed < 0 || pulled < removed || !s.Ready {
			t.Errorf("%+v after\n%s", s, strings.Join(calls, "\n"))
		}
		if got := n.store.states[back.Task]; slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "failed") }) {
			t.Errorf("%v", got)
		}
		stop()
	})
}

// What is placed, loaded or retagged between the decision and the removal stays.
func TestARemovalLooksAgainFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		a, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2)
		n.engine.took()
		g := imageGC{a: a, refused: map[string]time.Time{}}
		rows := slices.DeleteFunc(a.images.pulled.all(), func(p pulledImage) bool { return p.Ref != "app:1" })
		u := unusedImage{ID: "sha256:app1", Refs: []string{"app:1"}, rows: rows}
		try := func(when string) {
			t.Helper()
			if err := g.remove(t.Context(), u, time.Now()); err != nil {
				t.Fatal(err)
			}
			if got := removals(n.engine.took()); len(got) > 0 {
				t.Errorf("%s: %v", when, got)
			}
		}
		n.store.set(true, taskOf(7, "app:1"), taskOf(2, "app:2"))
		synctest.Wait()
		try("placed")
		n.store.set(true, taskOf(2, "app:2"))
		settleDown(time.Minute)
		n.engine.took()
		for _, ref := range []string{"app:1", anyImage} {
			if err := a.Brings(t.Context(), []string{ref}, func() error { try("loaded " + ref); return errors.New("broke off") }); err == nil {
				t.Error("the error is lost")
			}
		}
		n.engine.mu.Lock()
		n.engine.images["app:1"] = docker.ImageInfo{ID: "sha256:another"}
		n.engine.mu.Unlock()
		try("another image's")
		n.engine.mu.Lock()
		n.engine.images["app:1"] = n.engine.pullable["app:1"]
		n.engine.mu.Unlock()
		if err := g.remove(t.Context(), u, time.Now()); err != nil || n.engine.has("app:1") {
			t.Errorf("it is not removed at all: %v", err)
		}
		stop()
	})
}

// An engine with containerd's image store gives an image whose tag has moved on no name at all.
func TestAnImageThatLostItsNamesIsRemovedByItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2, 3, 4)
		n.engine.mu.Lock()
		delete(n.engine.images, "app:1")
		n.engine.images["sha256:app1"] = docker.ImageInfo{ID: "sha256:app1"}
		delete(n.engine.images, "app:2")
		n.engine.images["sha256:app2"] = docker.ImageInfo{ID: "sha256:app2", Digests: []string{"mine@sha256:d2"}}
		n.engine.disk.Free -= 15 * gib
		n.engine.mu.Unlock()
		n.engine.took()
		settleDown(5 * time.Minute)
		if got := removals(n.engine.took()); !slices.Equal(got, []string{"sha256:app1", "app:3"}) {
			t.Errorf("removed: %v", got)
		}
		stop()
	})
}

func TestNoImageIsRemovedWithoutTheStoreOrWhenItIsTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFullNode(t)
		_, stop := n.start()
		settleDown(time.Second)
		n.deploy(1, 2, 3, 4)
		stop()
		n.engine.mu.Lock()
		n.engine.disk.Free -= 15 * gib
		n.engine.mu.Unlock()
		n.store.set(false)
		_, stop = n.start()
		settleDown(5 * time.Hour)
		n.wants(t, "without the store", 1, 2, 3, 4)
		stop()
		full := n.change
		n.change = func(c *Config) { full(c); c.ImageGC = ImageGC{} }
		n.store.set(true, taskOf(4, "app:4"))
		_, stop = n.start()
		settleDown(5 * time.Hour)
		n.wants(t, "turned off", 1, 2, 3, 4)
		stop()
		n.change = full
		_, stop = n.start()
		settleDown(5 * time.Minute)
		n.wants(t, "turned on again", 4)
		stop()
	})
}
