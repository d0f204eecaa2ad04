package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Problem is one complaint about a file: a refusal in Problems, a warning in Result.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // from 1; 0 is the whole file
	Path    string `json:"path,omitempty"` // of the key: "services.web.image"
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"` // what to do about it
}

// String prints "compose.yaml:12: services.web.imagee: unknown key; did you mean image?".
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Advice != "" {
		b.WriteString("; " + p.Advice)
	}
	return b.String()
}

// Source returns the place the problem is about.
func (p Problem) Source() cluster.Source { return cluster.Source{File: p.File, Line: p.Line} }

// Problems is the error of a refused file. It lists all problems, by file and line.
type Problems struct{ List []Problem }

// Error prints one problem a line.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, x := range p.List {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error its kind.
func (p *Problems) Unwrap() error {
	return cluster.Invalidf("%d problems in the Compose file", len(p.List))
}

// report collects problems.
type report struct {
	refused, warned []Problem
}

func (r *report) refuse(at cluster.Source, path, message, advice string) {
	r.refused = add(r.refused, at, path, message, advice)
}

func (r *report) warn(at cluster.Source, path, message, advice string) {
	r.warned = add(r.warned, at, path, message, advice)
}

// add appends a problem unless the same is there: an anchor used twice, or a
// base extended twice, is one mistake.
func add(list []Problem, at cluster.Source, path, message, advice string) []Problem {
	p := Problem{File: at.File, Line: at.Line, Path: printable(path), Message: printable(message), Advice: printable(advice)}
	if slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

func (r *report) failed() bool { return len(r.refused) > 0 }

// err returns the refusals as an error, sorted, or nil.
func (r *report) err() error {
	if len(r.refused) == 0 {
		return nil
	}
	return &Problems{List: sorted(r.refused)}
}

func sorted(list []Problem) []Problem {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Path, b.Path), strings.Compare(a.Message, b.Message))
	})
	return out
}

// printable makes text from a hostile file safe for a terminal and short.
func printable(s string) string {
	const most = 400
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if r := []rune(clean); len(r) > most {
		return string(r[:most/2]) + " … " + string(r[len(r)-most/4:])
	}
	return clean
}

// quote shows a value of a file within a message.
func quote(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
