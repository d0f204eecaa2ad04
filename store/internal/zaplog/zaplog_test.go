package zaplog_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/store/internal/zaplog"
)

func TestLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[hclog.Level][]string{
		hclog.Trace: {"[TRACE]", "[DEBUG]", "[WARN]", "[ERROR]"},
		hclog.Info:  {"[WARN]", "[ERROR]"},
		hclog.Error: {"[ERROR]"},
	} {
		var out bytes.Buffer
		log := zaplog.New(hclog.New(&hclog.LoggerOptions{Output: &out, Level: level, DisableTime: true}))
		log.Debug("m")
		log.Info("m")
		log.Warn("m")
		log.Error("m")
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, strings.Fields(line)[0])
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("at %s: %s", level, d)
		}
	}
}

// While stopping, and only then, what a closed listener says is no error; all else is.
func TestStopping(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	stopping := false
	log := zaplog.NewServer(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info, DisableTime: true}), func() bool { return stopping })
	closed := &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	for _, stopping = range []bool{false, true} {
		out.Reset()
		log.Error("serving failed", zap.Error(closed))
		log.Error("serving failed", zap.Error(http.ErrServerClosed))
		log.Warn("stopped", zap.Error(closed))
		if said := out.Len() > 0; said == stopping {
			t.Errorf("stopping %v: %s", stopping, &out)
		}
		out.Reset()
		log.Error("serving failed", zap.Error(errors.New("disk full")))
		log.Error("no cause")
		if got := strings.Count(out.String(), "[ERROR]"); got != 2 {
			t.Errorf("stopping %v: real errors are missing: %s", stopping, &out)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := zaplog.New(hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true, JSONFormat: false}))
	log.With(zap.String("member", "n1")).Warn("slow", zap.Int("count", 3), zap.Error(errors.New("disk")))
	for _, want := range []string{"slow", "member=n1", "count=3", "error=disk"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %s", want, out.String())
		}
	}
}
