package cli

import (
	"fmt"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// row is a line of progress: of what, and how far it has come. Two may have one name.
type row struct{ key, name, text string }

// progress shows how far services have come: lines rewritten in place on a
// terminal, else a line at each change.
type progress struct {
	a     *app
	live  bool
	lines int
	last  []row
	said  map[string]string
	// columns is how wide the terminal is now: a line that wraps would not be
	// written over, but pushed up.
	columns func() int
}

func newProgress(a *app) *progress {
	return &progress{a: a, live: a.terminal(), said: map[string]string{}, columns: a.columns}
}

func (p *progress) update(v v1.Progress) {
	rows := make([]row, 0, len(v.Services)+len(v.Hooks))
	for _, s := range v.Services {
		if !p.live && strings.Contains(s.Message, " is pending: ") {
			s.Message = "" // passes in a moment; in a log it would only be noise
		}
		rows = append(rows, row{string(s.Service), string(s.Service), describe(s)})
	}
	for _, h := range v.Hooks {
		text := string(h.Event) + " hook, " + strings.TrimSpace(h.State+" "+oneLine(h.Message))
		rows = append(rows, row{string(h.Hook) + "@" + string(h.Event), string(h.Hook), text})
	}
	p.show(rows)
}

func (p *progress) show(rows []row) {
	if !p.a.human() {
		return
	}
	var b strings.Builder
	if p.live && p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.lines)
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r.name))
	}
	for _, r := range rows {
		line := fmt.Sprintf("  %-*s  %s", width, r.name, r.text)
		switch {
		case p.live:
			b.WriteString("\x1b[2K" + shorten(line, p.columns()) + "\n")
		case p.said[r.key] != line:
			p.said[r.key] = line
			b.WriteString(line + "\n")
		}
	}
	p.lines, p.last = len(rows), rows
	_, _ = fmt.Fprint(p.a.errw, b.String())
}

// end leaves the last state whole, where lines were cut to fit.
func (p *progress) end() {
	if p.live && p.lines > 0 {
		columns := p.columns
		p.columns = func() int { return 0 }
		p.show(p.last)
		p.columns = columns
	}
	p.lines = 0
}

// shorten cuts a line to so many columns; 0 is any number.
func shorten(line string, columns int) string {
	r := []rune(line)
	if columns <= 1 || len(r) < columns {
		return line
	}
	return string(r[:columns-2]) + "…"
}

func describe(s v1.ServiceProgress) string {
	text := fmt.Sprintf("%d/%d ready", s.Updated, s.Wanted)
	switch {
	case s.Old == 0:
	case s.Wanted == 0 && s.Updated == 0:
		text = "" // what stops altogether: nothing of it is to be ready
	case s.Ready > s.Updated && s.Stable > 0: // the old version serves
		text = fmt.Sprintf("%d/%d updated, %d of the old version", s.Updated, s.Wanted, s.Old)
	default: // it never did (what crashes again and again is up for a moment, too), or only stops now
		text += fmt.Sprintf(", %d of an earlier release to stop", s.Old)
	}
	if s.State != "" {
		text = strings.TrimPrefix(text+", "+strings.ReplaceAll(s.State, "_", " "), ", ")
	}
	if s.Message != "" {
		text += ": " + oneLine(s.Message)
	}
	return text
}

// verdict is nil when the release is healthy, else the error that says why not.
func verdict(name cluster.AppName, p v1.Progress) error {
	if !p.Failed {
		return nil
	}
	var b strings.Builder
	failed := func(s v1.ServiceProgress) bool { return s.State != string(cluster.RolloutComplete) }
	if len(p.Unserved) > 0 && p.Message == "" && !slices.ContainsFunc(p.Services, failed) {
		fmt.Fprintf(&b, "%s runs, but is not reachable as its file says", name)
	} else if len(p.Hooks) > 0 {
		fmt.Fprintf(&b, "the change of %s failed", name)
	} else {
		fmt.Fprintf(&b, "%s did not become healthy", name)
	}
	if p.Message != "" {
		fmt.Fprintf(&b, ": %s", p.Message)
	}
	b.WriteString(troubles(p.Services))
	for _, u := range p.Unserved {
		fmt.Fprintf(&b, "\n  %s", u)
	}
	b.WriteString(strings.TrimRight("\n"+hookTail(p.Hooks), "\n"))
	return failedf("%s", b.String())
}

// troubles says of each service that a task of it has failed, why, and its last lines.
func troubles(services []v1.ServiceProgress) string {
	var b strings.Builder
	for _, s := range services {
		if len(s.Tail) == 0 && s.Task == "" {
			continue
		}
		fmt.Fprintf(&b, "\n  %s: %s", s.Service, s.Message)
		if len(s.Tail) > 0 {
			fmt.Fprintf(&b, "\n  last lines of %s:", s.Task)
			for _, l := range s.Tail {
				fmt.Fprintf(&b, "\n    | %s", oneLine(l))
			}
		}
	}
	return b.String()
}

// hookTail shows the last lines of the hooks that failed.
func hookTail(runs []cluster.HookRun) string {
	var b strings.Builder
	for _, r := range runs {
		if r.State != cluster.RunFailed || len(r.Tail) == 0 {
			continue
		}
		fmt.Fprintf(&b, "  last lines of %s:\n", r.Task)
		for _, l := range r.Tail {
			fmt.Fprintf(&b, "    | %s\n", oneLine(l))
		}
	}
	return b.String()
}
