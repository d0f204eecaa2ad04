package agent

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// blockDisk lets no assignment be written until what it returns is called.
func blockDisk(t *testing.T, d *disk) (free func()) {
	t.Helper()
	tmp := d.path() + ".new"
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(tmp); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that is full for an hour is tried now and then, and told of once.
func TestADiskThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var reports []bool
		var tries atomic.Int32
		cfg := &Config{StateDir: t.TempDir(), Log: hclog.New(&hclog.LoggerOptions{Output: &log})}
		d := newDisk(cfg, func(failure string) { reports = append(reports, failure != "") })
		free := blockDisk(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = d.run(ctx, func() assignment { tries.Add(1); return assignment{} }) }()
		for range 3600 { // and all the while something changes
			d.changed()
			settleDown(time.Second)
		}
		if most, got := int32(time.Hour/saveRetryMax)+10, tries.Swap(0); got > most || got < most/2 {
			t.Errorf("tried %d times in an hour", got)
		}
		free()
		settleDown(saveRetryMax + time.Second)
		if _, err := d.load(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.path()); err != nil {
			t.Errorf("there is room again: %v", err)
		}
		// Again as quick as at first.
		tries.Store(0)
		d.changed()
		settleDown(saveGap)
		if got := tries.Load(); got != 1 {
			t.Errorf("tried %d times after it went well", got)
		}
		cancel()
		<-done
		if !slices.Equal(reports, []bool{true, false}) {
			t.Errorf("reports of failure: %v", reports)
		}
		if got := strings.Count(log.String(), "[ERROR]"); got != 1 {
			t.Errorf("told of %d times:\n%s", got, log.String())
		}
	})
}

// A node says that its disk takes nothing, and takes it back.
func TestANodeSaysThatItsDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t)
		a, stop := n.start()
		settleDown(time.Second)
		if got := n.store.described().DiskFailure; got != "" {
			t.Errorf("at first: %q", got)
		}
		free := blockDisk(t, a.disk)
		a.disk.changed()
		settleDown(2 * time.Second)
		if got := n.store.described().DiskFailure; !strings.Contains(got, "assignment.json") {
			t.Errorf("when it is full: %q", got)
		}
		free()
		settleDown(saveRetryMax)
		if got := n.store.described().DiskFailure; got != "" {
			t.Errorf("when there is room again: %q", got)
		}
		stop()
	})
}
