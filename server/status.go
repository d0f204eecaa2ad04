package server

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// output is the format that -o asks for, "" when people read it, and where
// progress goes: beside a document that programs read, not into it.
func output(cmd *cobra.Command) (format string, progress io.Writer) {
	if f := cmd.Flags().Lookup("output"); f != nil && (f.Value.String() == "json" || f.Value.String() == "yaml") {
		return f.Value.String(), cmd.ErrOrStderr()
	}
	return "", cmd.OutOrStdout()
}

// printDocument prints all of v for programs.
func printDocument(out io.Writer, format string, v any) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	// By way of JSON, whose numbers are read as they are written: a revision stays
	// a whole number.
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
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

// printStatus prints, of what a server says of itself, what tells servers and
// clusters apart.
func printStatus(out io.Writer, st map[string]any) error {
	for _, k := range []string{"version", "node", "cluster", "servers", "serving", "ca"} {
		if v, ok := st[k]; ok {
			if _, err := fmt.Fprintf(out, "%-8s %v\n", k, v); err != nil {
				return err
			}
		}
	}
	// Names are answered by a process of their own, which outlives the server.
	if pid, ok := st["names_pid"]; ok {
		if _, err := fmt.Fprintf(out, "%-8s answered by process %v\n", "names", pid); err != nil {
			return err
		}
	}
	return nil
}
