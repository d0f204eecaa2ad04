package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// meansNothing accepts flags of Helm's that mean nothing here.
func meansNothing(f *pflag.FlagSet, names ...string) {
	for _, name := range names {
		f.Bool(name, false, "Helm's; there is nothing here that it could mean")
	}
	hide(f, names...)
}

// helmOnly says what to do in place of Helm's flags that are not there.
var helmOnly = map[string]string{ //nolint:gosec // no passwords, but flags for them
	"force":            "what differs is replaced by itself; leave it out",
	"replace":          "`fairlead upgrade --install` takes a name that is there, or not",
	"generate-name":    "an app's name is its address: give one",
	"g":                "an app's name is its address: give one",
	"name-template":    "an app's name is its address: give one",
	"post-renderer":    "no program of this machine changes what is rendered: change the chart, or deploy what you make of `fairlead chart template`",
	"password":         "it would stand in the list of processes: with --username it is asked for, or read from standard input",
	"pass-credentials": "a login is for the repository's own host alone; leave it out",
	"cert-file":        "repositories are logged in to with --username, not with a certificate",
	"key-file":         "repositories are logged in to with --username, not with a certificate",
	"labels":           "a release has no labels; `--note` says what it is",
	"take-ownership":   "nothing outside of the app is ever changed, so there is nothing to take over; leave it out",
	"enable-dns":       "templates ask no name server; leave it out, and give addresses as values",
}

func hide(f *pflag.FlagSet, names ...string) {
	for _, name := range names {
		_ = f.MarkHidden(name)
	}
}

// helmFlags are what Helm's users type with rollback and uninstall beside what these
// take: what means nothing here is accepted, and what would be ignored wrongly refused.
type helmFlags struct {
	waits     bool
	dryRun    string
	namespace string
	cascade   string
}

// register registers them, hidden but for --wait; nothing are those that mean nothing.
func (h *helmFlags) register(c *cobra.Command, nothing ...string) {
	f := c.Flags()
	f.BoolVar(&h.waits, "wait", true, "wait until it is done, which is what happens without it too; --wait=false is --detach")
	f.StringVar(&h.dryRun, "dry-run", "none", "Helm's; there is none")
	f.Lookup("dry-run").NoOptDefVal = "client"
	f.StringVarP(&h.namespace, "namespace", "n", "", "Helm's; an app has none: its name is its address")
	hide(f, "dry-run", "namespace")
	meansNothing(f, nothing...)
}

// check refuses what cannot be meant; instead says what to do in place of a dry run.
func (h *helmFlags) check(instead string) error {
	switch h.dryRun {
	case "none", "false":
	default:
		return usagef("--dry-run: there is none of this command, and nothing was changed: %s", instead)
	}
	if h.namespace != "" {
		return usagef("-n %s: an app has no namespace, its name is its address; `fairlead ls` says which there are", h.namespace)
	}
	switch h.cascade {
	case "", "background", "foreground": // tasks end with their app in either
		return nil
	}
	return usagef("--cascade=%s: an app's tasks do not outlive it; leave it out", h.cascade)
}
