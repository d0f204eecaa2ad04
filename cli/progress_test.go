package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func TestProgressWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	a := &app{errw: &b, output: formatTable}
	p := newProgress(a)
	one := func(updated int, state, message string) v1.Progress {
		return v1.Progress{Services: []v1.ServiceProgress{
			{Service: "web", Wanted: 2, Updated: updated, State: state, Message: message},
			{Service: "db", Wanted: 1, Updated: 1, State: "complete"},
		}}
	}
	for _, v := range []v1.Progress{
		one(0, "running", "shop/web.1 is pending: placed on n1"), // passes in a moment
		one(0, "running", ""),
		one(1, "running", ""),
		one(1, "running", ""), // said already
		one(1, "rolling_back", "exit\n\x1b[31mcode 1"),
		one(2, "complete", ""),
	} {
		p.update(v)
	}
	p.end()
	want := `  web  0/2 ready, running
  db   1/1 ready, complete
  web  1/2 ready, running
  web  1/2 ready, rolling back: exit  [31mcode 1
  web  2/2 ready, complete
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	a.output = formatJSON
	newProgress(a).update(one(1, "running", ""))
	if b.Len() > 0 {
		t.Errorf("a program is shown %q", b.String())
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]v1.ServiceProgress{
		"0/1 ready, running":                                   {Wanted: 1, State: "running"},
		"1/3 updated, 2 of the old version, running":           {Wanted: 3, Updated: 1, Ready: 3, Old: 2, Stable: 1, State: "running"},
		"0/1 ready, 1 of an earlier release to stop, running":  {Wanted: 1, Ready: 1, Old: 1, State: "running"},
		"0/1 ready, 1 of an earlier release to stop: x":        {Wanted: 1, Old: 1, Message: "x"},
		"1/1 ready, 1 of an earlier release to stop, complete": {Wanted: 1, Updated: 1, Ready: 1, Old: 1, State: "complete"},
		"removing: 1 task still to stop":                       {Old: 1, State: "removing", Message: "1 task still to stop"},
	} {
		if got := describe(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestProgressOnATerminal(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&app{errw: &b, output: formatTable})
	p.live, p.columns = true, func() int { return 30 }
	v := v1.Progress{Services: []v1.ServiceProgress{{Service: "web", Wanted: 1}, {Service: "db", Wanted: 1}}}
	p.update(v)
	if strings.Contains(b.String(), "\x1b[2A") {
		t.Errorf("the first goes over what was there: %q", b.String())
	}
	b.Reset()
	p.update(v)
	if !strings.HasPrefix(b.String(), "\x1b[2A\x1b[2K") || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("the second is not in place of the first: %q", b.String())
	}
	// A line that does not fit is cut while it may be written over, and whole in the end.
	b.Reset()
	v.Services[1].Message = "no suitable node (insufficient resources)"
	p.update(v)
	if d := cmp.Diff("\x1b[2A\x1b[2K  web  0/1 ready\n\x1b[2K  db   0/1 ready: no suitabl…\n", b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	p.end()
	if !strings.Contains(b.String(), "(insufficient resources)\n") || !strings.HasPrefix(b.String(), "\x1b[2A") {
		t.Errorf("in the end %q", b.String())
	}
}

func TestVerdict(t *testing.T) {
	if err := verdict("shop", v1.Progress{Done: true}); err != nil {
		t.Error(err)
	}
	err := verdict("shop", v1.Progress{Done: true, Failed: true, Services: []v1.ServiceProgress{
		{Service: "db", State: "complete"},
		{Service: "web", State: "rolled_back", Message: "exit code 1", Task: "shop_web.1.abc", Tail: []string{"no \x1b[2Jconfig"}},
	}})
	want := "shop did not become healthy\n  web: exit code 1\n  last lines of shop_web.1.abc:\n    | no  [2Jconfig"
	if Code(err) != codeFailed || err.Error() != want {
		t.Errorf("%d %q", Code(err), err)
	}
	err = verdict("shop", v1.Progress{Done: true, Failed: true, Services: []v1.ServiceProgress{{Service: "db", State: "complete"}}, Unserved: []string{"db: no port"}})
	if want := "shop runs, but is not reachable as its file says\n  db: no port"; Code(err) != codeFailed || err.Error() != want {
		t.Errorf("%d %q", Code(err), err)
	}
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		0:               {nil},
		codeFailed:      {errors.New("x"), cluster.Conflictf("x"), failedf("x: %w", cluster.NotFoundf("y"))},
		codeUsage:       {usagef("x"), cluster.Invalidf("x"), fmt.Errorf("a: %w", cluster.Invalidf("b")), errors.New("unknown command \"x\" for \"fairlead server\"")},
		codeUnreachable: {cluster.Transientf("x"), &cluster.Error{Kind: cluster.KindForbidden, Msg: "x"}},
		codeNotFound:    {cluster.NotFoundf("x")},
		codeTimeout:     {fmt.Errorf("x: %w", context.DeadlineExceeded)},
		codeRemoved:     {&cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("x: %w", cluster.ErrRemoved)}},
		codeChanges:     {&exitError{code: codeChanges}},
	} {
		for _, err := range errs {
			if got := Code(err); got != want {
				t.Errorf("%v: %d, want %d", err, got, want)
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		d    int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"detatch", "detach", 1}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"é", "e", 1}} {
		if got := distance(c.a, c.b); got != c.d || distance(c.b, c.a) != c.d {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.d)
		}
	}
}

func TestPortPair(t *testing.T) {
	for in, want := range map[string]pair{"80": {"80", 80}, "8080:80": {"8080", 80}, "0:80": {"0", 80}, ":80": {"0", 80}} {
		if got, err := portPair(in); err != nil || got != want {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "0", "80:", ":", ":0", "::80", "80:0", "70000", "1:2:3", "-1:80", "80:-1"} {
		if got, err := portPair(in); Code(err) != codeUsage {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
}
