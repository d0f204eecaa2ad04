package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// noArgs, oneArg and the like name what is missing, where cobra only counts.
func noArgs(c *cobra.Command, args []string) error { return rangeArgs(0, 0, "")(c, args) }

func oneArg(what string) cobra.PositionalArgs { return rangeArgs(1, 1, what) }

func rangeArgs(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s needs %s. Usage: %s", c.CommandPath(), what, c.UseLine())
		case most >= 0 && len(args) > most:
			return usagef("unexpected %q. Usage: %s", args[most], c.UseLine())
		}
		return nil
	}
}

func compareStrings(a, b string) int { return strings.Compare(a, b) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
