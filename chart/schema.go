package chart

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	helmchart "helm.sh/helm/v4/pkg/chart/v2"
)

// unfit says what the schemas have against the values, but for those that are missing: they
// may come with the installation.
func unfit(c *helmchart.Chart, vals common.Values) error {
	own, err := vals.Table("Values")
	if err != nil {
		return err
	}
	err = util.ValidateAgainstSchema(c, own)
	if err == nil {
		return nil
	}
	if left := withoutMissing(err.Error()); left != "" {
		return fmt.Errorf("values don't meet the specifications of the schema(s) in the following chart(s):\n%w", errors.New(left))
	}
	return nil
}

// withoutMissing leaves out of what Helm's library says of schemas, which tells it as text
// alone, that a value is missing. A chart's name is above what is said of it, and what is
// below another line, indented, is why that is said.
func withoutMissing(text string) string {
	var out []string
	name := ""
	for lines := strings.Split(text, "\n"); len(lines) > 0; {
		if depth, _ := complaint(lines[0]); depth < 0 {
			if line := lines[0]; strings.HasSuffix(line, ":") {
				name = line
			} else if line != "" { // of a schema that is none
				out, name = append(out, strings.Split(strings.TrimPrefix(name+"\n"+line, "\n"), "\n")...), ""
			}
			lines = lines[1:]
			continue
		}
		n := 1
		for n < len(lines) && deeper(lines[n], lines[0]) {
			n++
		}
		if kept := keptOf(lines[:n]); kept != nil {
			if name != "" {
				out, name = append(out, name), ""
			}
			out = append(out, kept...)
		}
		lines = lines[n:]
	}
	return strings.Join(out, "\n")
}

// complaint reads a line of a schema's: how far it is indented, -1 where it is none, and what
// it says.
func complaint(line string) (depth int, says string) {
	rest := strings.TrimLeft(line, " ")
	if !strings.HasPrefix(rest, "- at ") {
		return -1, line
	}
	return len(line) - len(rest), rest
}

// deeper reports whether a line is one of the reasons of another.
func deeper(line, of string) bool {
	depth, _ := complaint(line)
	above, _ := complaint(of)
	return depth > above
}

// keptOf is a complaint with its reasons, without those of missing values; nil: nothing is
// left. Where one of several alternatives lacks values alone, they may come.
func keptOf(lines []string) []string {
	_, says := complaint(lines[0])
	if len(lines) == 1 {
		if strings.Contains(says, ": missing propert") || strings.Contains(says, " required, if ") {
			return nil
		}
		return lines
	}
	var kept [][]string
	all := true
	for rest := lines[1:]; len(rest) > 0; {
		n := 1
		for n < len(rest) && deeper(rest[n], rest[0]) {
			n++
		}
		if k := keptOf(rest[:n]); k != nil {
			kept = append(kept, k)
		} else {
			all = false
		}
		rest = rest[n:]
	}
	alternatives := strings.HasSuffix(says, ": 'anyOf' failed") || strings.HasSuffix(says, ": 'oneOf' failed, none matched")
	if kept == nil || alternatives && !all {
		return nil
	}
	return slices.Concat(lines[:1], slices.Concat(kept...))
}
