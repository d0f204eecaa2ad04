package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// talker has a log.
type talker struct {
	Engine
	lines []string
}

func (e talker) Logs(_ context.Context, _ string, _ bool, _ cluster.LogOptions, emit func(cluster.LogLine) error) error {
	for _, l := range e.lines {
		if err := emit(cluster.LogLine{Text: l}); err != nil {
			return err
		}
	}
	return nil
}

func TestTheTailOfALogIsBounded(t *testing.T) {
	tail := func(lines ...string) []string {
		a := &Agent{cfg: Config{Engine: talker{lines: lines}, Log: hclog.NewNullLogger()}}
		return a.tail(t.Context(), docker.Container{})
	}
	var short, long []string
	for i := range 30 {
		short = append(short, fmt.Sprint("line ", i))
		long = append(long, fmt.Sprint("line ", i, " ", strings.Repeat("é", 100_000)))
	}
	if got := tail(short...); len(got) != 20 || got[0] != "line 10" || got[19] != "line 29" {
		t.Errorf("short lines: %q", got)
	}
	got, size := tail(long...), 0
	for _, l := range got {
		size += len(l)
		if len(l) > 512 || !utf8.ValidString(l) || !strings.HasSuffix(l, "…") {
			t.Errorf("a line of %d bytes: %q", len(l), l)
		}
	}
	if size > 4<<10 || len(got) != 8 || !strings.HasPrefix(got[7], "line 29 ") {
		t.Errorf("%d lines of %d bytes", len(got), size)
	}
	if got := tail("a", ""); len(got) != 2 {
		t.Errorf("%q", got)
	}
}
