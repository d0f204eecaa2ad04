package cli

import (
	"encoding/csv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// valueFlags are the user's values, named as Helm names them.
type valueFlags struct {
	files []string
	given chart.Values
}

func (v *valueFlags) register(c *cobra.Command) {
	c.Flags().StringSliceVarP(&v.files, "values", "f", nil, valuesUsage)
	v.registerSets(c)
}

const valuesUsage = "`file` with values, YAML; repeat for more, or write commas, the last wins (- is standard input)"

// registerLong is register where -f means something else.
func (v *valueFlags) registerLong(c *cobra.Command) {
	c.Flags().StringSliceVar(&v.files, "values", nil, valuesUsage)
	v.registerSets(c)
}

func (v *valueFlags) registerSets(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&v.given.Set, "set", nil, "`value`: KEY=VALUE, a.b=1,c={x,y}")
	f.StringArrayVar(&v.given.String, "set-string", nil, "`value` that stays text: KEY=VALUE")
	f.StringArrayVar(&v.given.File, "set-file", nil, "`value` read from a file: KEY=PATH")
	f.StringArrayVar(&v.given.JSON, "set-json", nil, "`value` as JSON: KEY=JSON, or a whole object")
	f.StringArrayVar(&v.given.Literal, "set-literal", nil, "`value` taken as it stands: KEY=TEXT")
	_ = c.MarkFlagFilename("values", "yaml", "yml")
}

// noteValues keeps what flags are given, in the order in which they were written.
func noteValues(c *cobra.Command, to *[]string, flags ...string) {
	for _, name := range flags {
		f := c.Flags().Lookup(name)
		f.Value = noted{f.Value, to}
		f.DefValue = "" // help would show one
	}
}

type noted struct {
	pflag.Value
	to *[]string
}

func (n noted) Set(s string) error {
	*n.to = append(*n.to, s)
	return n.Value.Set(s)
}

// valueFiles are the files that are written with commas, as --values takes them.
func valueFiles(written []string) (files []string, _ error) {
	for _, s := range written {
		if s == "" {
			continue
		}
		list, err := csv.NewReader(strings.NewReader(s)).Read()
		if err != nil {
			return nil, usagef("-f %s: %w", s, err)
		}
		files = append(files, list...)
	}
	return files, nil
}

// read returns the values, with the files that they name.
func (v *valueFlags) read(a *app) (chart.Values, error) {
	out := v.given
	err := out.ReadValues(v.files, a.in)
	if err == nil {
		_, err = out.Merge()
		if err != nil {
			err = cluster.Invalidf("%w", err)
		}
	}
	return out, err
}
