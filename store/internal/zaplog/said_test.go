package zaplog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
)

// What etcd says each half second for an hour is told a few times, of each peer, and at
// once when it is said again another day.
func TestWhatIsSaidAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := New(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info, DisableTime: true}))
		lines := func() []string {
			defer out.Reset()
			return strings.Split(strings.TrimSpace(out.String()), "\n")
		}
		for i := range 7200 {
			log.Warn("waiting for ReadIndex response took too long, retrying", zap.Uint64("sent-request-id", uint64(i)), zap.Error(fmt.Errorf("port %d", i)))
			log.Info("not told at all")
			time.Sleep(500 * time.Millisecond)
		}
		got := lines()
		if len(got) < 5 || len(got) > 15 || strings.Contains(got[0], "withheld") || !strings.Contains(got[1], "withheld=19") {
			t.Errorf("told %d times:\n%s", len(got), strings.Join(got, "\n"))
		}
		for _, peer := range []string{"a", "b", "a"} {
			log.Warn("lost a peer", zap.String("peer", peer), zap.Error(errors.New("gone")))
			log.Error("an error", zap.String("peer", peer))
		}
		log.Warn("lost a peer", zap.String("peer", "a"), zap.Error(errors.New("its disk is full")))
		if got := lines(); len(got) != 2+1+3 {
			t.Errorf("of two peers, another warning and three errors: %q", got)
		}
		time.Sleep(24 * time.Hour)
		log.Warn("waiting for ReadIndex response took too long, retrying")
		log.Warn("waiting for ReadIndex response took too long, retrying")
		if got := lines(); len(got) != 1 || strings.Contains(got[0], "withheld") {
			t.Errorf("a day later: %q", got)
		}
	})
}

// However many things there are to say, what is remembered of them is bounded.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	var s said
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 * subjects {
		if _, now := s.again(fmt.Sprint(i), at); !now {
			t.Fatal("news is not told")
		}
		if len(s.of) > subjects {
			t.Fatalf("%d are remembered", len(s.of))
		}
	}
}
