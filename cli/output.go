package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"gopkg.in/yaml.v3"
)

// Formats of -o.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// table is what a command prints for people; columns marked wide only with -o wide.
type table struct {
	columns []column
	rows    [][]string
	// empty is printed instead of a table without rows.
	empty string
}

type column struct {
	name string
	wide bool
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func columns(names ...string) []column {
	out := make([]column, len(names))
	for i, n := range names {
		out[i].name, out[i].wide = strings.CutPrefix(n, "+")
	}
	return out
}

// print writes v as JSON or YAML, or else the table that human makes.
func (a *app) print(v any, human func() *table) error {
	switch a.output {
	case formatJSON:
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case formatYAML:
		return printYAML(a.out, v)
	}
	t := human()
	if len(t.rows) == 0 && t.empty != "" {
		_, err := fmt.Fprintln(a.out, t.empty)
		return err
	}
	return t.write(a.out, a.output == formatWide)
}

// whole prints all that is known of a thing: in format where people read it.
func (a *app) whole(v any, format string) error {
	if a.human() {
		a.output = format
	}
	return a.print(v, nil)
}

func (t *table) write(out io.Writer, wide bool) error {
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	line := func(cell func(i int) string) {
		var cells []string
		for i, c := range t.columns {
			if !c.wide || wide {
				cells = append(cells, cell(i))
			}
		}
		_, _ = fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
	}
	line(func(i int) string { return t.columns[i].name })
	for _, r := range t.rows {
		line(func(i int) string {
			if r[i] == "" {
				return "-"
			}
			return oneLine(r[i])
		})
	}
	return w.Flush()
}

// printYAML goes through JSON, so that both formats have the same keys.
func printYAML(out io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// JSON is YAML: read as such, numbers stay as they are written.
	var plain any
	if err := yaml.Unmarshal(b, &plain); err != nil {
		return err
	}
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	if err := enc.Encode(plain); err != nil {
		return err
	}
	return enc.Close()
}

// oneLine keeps a table's row on its line, whatever a program printed.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// age prints how long ago t was, in one unit.
func age(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(now.Sub(t))
}

// span prints a duration in one unit.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size prints bytes in the unit that people use for them.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
