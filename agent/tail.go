package agent

import (
	"slices"
	"strings"
)

// The end of a log goes into the task's status, and so into the store.
const (
	tailLines     = 20
	tailLineBytes = 512
	tailBytes     = 4 << 10
)

// cutLine returns the beginning of a line.
func cutLine(s string) string {
	if len(s) <= tailLineBytes {
		return s
	}
	const mark = "…"
	return strings.ToValidUTF8(s[:tailLineBytes-len(mark)], "") + mark
}

// lastLines returns the last lines that fit, each cut.
func lastLines(lines []string) []string {
	size, from := 0, len(lines)
	for from > 0 && len(lines)-from < tailLines {
		size += min(len(lines[from-1]), tailLineBytes)
		if size > tailBytes {
			break
		}
		from--
	}
	out := slices.Clone(lines[from:])
	for i := range out {
		out[i] = cutLine(out[i])
	}
	return out
}
