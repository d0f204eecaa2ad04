package outage

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestAnOutageIsToldOfMoreAndMoreRarely(t *testing.T) {
	var b bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &b, DisableTime: true})
	said := func() string {
		defer b.Reset()
		return b.String()
	}
	var o Outage
	o.Over(log, "the store answers again")
	if s := said(); s != "" {
		t.Errorf("nothing was wrong, and it says %q", s)
	}
	for range 2 { // each outage is told of from its beginning
		o.Failed(log, "could not ask the store", "prefix", "p/")
		if s := said(); s != "[WARN]  could not ask the store: prefix=p/\n" {
			t.Errorf("the first failure: %q", s)
		}
		for range 1999 {
			o.Failed(log, "could not ask the store", "prefix", "p/")
		}
		lines := strings.Split(strings.TrimSpace(said()), "\n")
		if n := len(lines); n != 11 || !strings.HasSuffix(lines[n-1], "attempts=1536") || !strings.HasSuffix(lines[0], "attempts=2") {
			t.Errorf("%d lines of 1999 failures:\n%s", n, strings.Join(lines, "\n"))
		}
		o.Over(log, "the store answers again", "prefix", "p/")
		o.Over(log, "the store answers again", "prefix", "p/")
		if s := said(); s != "[INFO]  the store answers again: prefix=p/ attempts=2000\n" {
			t.Errorf("over: %q", s)
		}
	}
}
