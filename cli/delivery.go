package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// deliverCommand fetches a source and makes a bundle of it, for a server.
func (a *app) deliverCommand() *cobra.Command {
	return &cobra.Command{
		Use: work.Command, Short: "Fetch the source of a delivery that comes by standard input", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return work.Serve(cmd.Context(), a.in, a.out, os.Exit) },
	}
}

func (a *app) deliveryCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "delivery", Short: "Let apps follow a Git repository or a repository of packages",
		Long: `A delivery looks at its source every minute, or when a webhook says so, and makes
an app what the source says: by the same way as fairlead deploy, with a release
that names the commit. What fails is tried again, or gone back from.`,
		Example: "  fairlead delivery create shop https://git.example.com/shop.git --branch main\n  fairlead delivery get\n  fairlead delivery reconcile shop",
	}
	c.AddCommand(a.deliveryCreate(), a.deliveryGet(), a.deliveryDescribe(), a.deliveryDiff(), a.deliveryReconcile(),
		a.deliverySuspend(), a.deliveryResume(), a.deliveryHistory(), a.deliveryRemove())
	return c
}

// deliveryFlags are a delivery as flags.
type deliveryFlags struct {
	d                  cluster.Delivery
	knownHosts, ca     string
	notifyCA           string
	env, depends       []string
	notify, slack, on  []string
	interval, deadline time.Duration
	values             valueFlags
	replace, prune     bool
	images             []string
	wait               waitFlags
}

func (a *app) deliveryCreate() *cobra.Command {
	var x deliveryFlags
	c := &cobra.Command{
		Use: "create NAME URL", Short: "Make an app follow a source, from now on",
		Long: `URL is a Git repository (https://…, ssh://…, user@host:path, file:///… of the
servers), a repository of packages with --chart (https://…), or a package or an
artifact with Compose files in a registry (oci://REGISTRY/PATH/NAME). The app is called like the delivery, unless
-p names another.

Passwords, tokens and private keys are secrets of the app, set before: --secret
names one; a registry's may be kept by fairlead image login. Over ssh the keys of the host must be given with --known-hosts.
Files in the source that SOPS or age encrypted are read with the keys in the secret
that --decrypt names; what is in them can only become secrets of the app.

With --replace, one that is there becomes what the flags say: what they leave out is as if
it had never been given. Each line that changes is shown. One that is suspended stays so;
--suspend=false resumes it.

It waits until the app is healthy, unless told otherwise.`,
		Example: `  fairlead delivery create shop https://git.example.com/shop.git --branch main --on-failure rollback
  fairlead secret set shop/deploy-key <id_ed25519
  ssh-keyscan git.example.com >hosts      # and compare with what the host's owner says
  fairlead delivery create shop git@git.example.com:shop.git --secret deploy-key --known-hosts hosts --semver '^1'
  fairlead delivery create shop https://git.example.com/mono.git --path shop --semver 1.x --tag-prefix shop/
  fairlead secret set shop/age <key.txt && fairlead delivery create shop https://git.example.com/shop.git --decrypt age --env-file prod.enc.env
  fairlead delivery create web https://git.example.com/web.git --image 'web=registry.example.com/shop/web semver 1.x' --image-write commit --secret token
  fairlead delivery create db https://charts.example.com --chart postgres --semver 1.x --values-file prod.yaml --set replicas=1
  fairlead delivery create shop oci://registry.example.com/shop/config --tag production`,
		Args: rangeArgs(2, 2, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if err := x.wait.check(); err != nil {
				return err
			}
			d, err := x.delivery(a, args[0], args[1])
			if err != nil {
				return err
			}
			if err := d.Validate(); err != nil {
				return err
			}
			resume := cmd.Flags().Changed("suspend") && !d.Suspend
			got, err := a.setDelivery(cmd.Context(), cl, v1.DeliverySet{Delivery: d, Replace: x.replace, Resume: resume})
			if err != nil {
				return err
			}
			if x.wait.detach || got.Suspend {
				return a.print(got, func() *table { return a.deliveryTable([]v1.DeliveryStatus{got}) })
			}
			asked, err := cl.Reconcile(cmd.Context(), d.Name, false)
			if err != nil {
				return err
			}
			return a.awaitDelivery(cmd.Context(), cl, asked, x.wait.timeout)
		}),
	}
	x.register(c)
	return c
}

func (x *deliveryFlags) register(c *cobra.Command) {
	f, d := c.Flags(), &x.d
	f.StringVar(&d.Source.Branch, "branch", "", "follow this branch; default: the repository's own")
	f.StringVar(&d.Source.Tag, "tag", "", "follow this tag")
	f.StringVar(&d.Source.Semver, "semver", "", "follow the highest tag, or version of a package, in this `range`: ^1.2, 1.x")
	f.StringVar(&d.Source.TagPrefix, "tag-prefix", "", "with --semver, only tags of Git that begin so, the version behind it: app-a/ for app-a/v1.2.3")
	f.StringVar(&d.Source.Commit, "commit", "", "stay at this commit")
	f.StringVar(&d.Source.Digest, "digest", "", "stay at this digest, of what is in a registry: sha256:…")
	f.StringVar(&d.Source.Chart, "chart", "", "the package, of a repository of packages")
	f.StringVar(&d.Source.User, "user", "", "login at the source; of Git the default is git")
	f.StringVar(&d.Source.Secret, "secret", "", "secret of the app that holds the password, token or private key")
	f.StringVar(&x.knownHosts, "known-hosts", "", "`file` with the keys of an ssh host, as ssh-keyscan prints them")
	f.StringVar(&x.ca, "ca", "", "`file` with certificates to trust, PEM")
	f.BoolVar(&d.Source.PlainHTTP, "plain-http", false, "the registry speaks no TLS")
	f.StringVar(&d.Path, "path", "", "`directory` in the source that files are relative to")
	f.StringArrayVarP(&d.Compose, "file", "f", nil, "Compose file in the source; repeat to merge several (default: compose.yaml)")
	f.StringArrayVar(&d.Profiles, "profile", nil, "switch a profile on")
	f.StringArrayVar(&d.EnvFiles, "env-file", nil, "file in the source with variables for interpolation; repeat for layers")
	f.StringArrayVar(&x.env, "env", nil, "`NAME=VALUE` for interpolation; wins over files")
	f.StringVar(&d.Package, "package", "", "`directory` of a package in the source, in place of Compose files")
	f.StringArrayVar(&d.Values, "values", nil, "file of values in the source, for the package; repeat for layers")
	f.StringArrayVar(&x.values.files, "values-file", nil, "local `file` of values for the package, kept with the delivery; wins over those in the source; repeat for layers")
	x.values.registerSets(c)
	f.BoolVar(&d.SkipCRDs, "skip-crds", false, skipCRDsUsage)
	f.BoolVar(&d.SkipSchema, "skip-schema-validation", false, skipSchemaUsage)
	f.StringVar(&d.Decrypt, "decrypt", "", "`secret` of the app with the age keys that SOPS or age encrypted files of the source to")
	f.DurationVar(&x.interval, "interval", cluster.DefaultDeliveryInterval, "time between two looks at the source")
	f.DurationVar(&x.deadline, "deadline", cluster.DefaultDeliveryTimeout, "time to fetch, and to become healthy, before it counts as failed")
	f.StringSliceVar(&x.depends, "depends-on", nil, "deliveries that must be ready before")
	f.BoolVar(&x.prune, "prune", true, "remove services that left the source")
	f.BoolVar(&d.Adopt, "adopt", false, "take over an app that was made otherwise, and remove its services that the source does not have")
	f.BoolVar(&d.Suspend, "suspend", false, "do nothing until resumed")
	f.StringVar(&d.OnFailure, "on-failure", cluster.OnFailureRetry, "`retry` ever more seldom, or rollback and stay until a new commit")
	f.StringVar(&d.Drift, "drift", cluster.DriftCorrect, "`correct` what was changed by hand, or report it")
	f.StringVar(&d.Webhook, "webhook", "", "take webhooks that this `secret` of the app signs")
	f.StringArrayVar(&x.notify, "notify", nil, "send news as JSON to this `URL`, or to that in secret:NAME")
	f.StringArrayVar(&x.slack, "notify-slack", nil, "send news in Slack's format to this `URL`, or to that in secret:NAME")
	f.StringVar(&x.notifyCA, "notify-ca", "", "`file` with certificates to trust of those who are notified, PEM")
	f.StringSliceVar(&x.on, "notify-on", nil, "only these `events`: "+strings.Join(cluster.DeliveryEvents, ", "))
	x.registerImages(c)
	f.BoolVar(&x.replace, "replace", false, "change the delivery if it is there already: all that is not given anew is the default again, but for --suspend")
	x.wait.register(c)
	for _, name := range []string{"on-failure", "drift"} {
		words := map[string][]string{"on-failure": {cluster.OnFailureRetry, cluster.OnFailureRollback}, "drift": {cluster.DriftCorrect, cluster.DriftReport}}[name]
		_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
}

// delivery is what the flags say.
func (x *deliveryFlags) delivery(a *app, name, url string) (cluster.Delivery, error) {
	d := x.d
	d.Name, d.App, d.Source.URL, d.Source.Kind = cluster.DeliveryName(name), cluster.AppName(name), url, cluster.SourceGit
	if a.appFlag != "" {
		d.App = cluster.AppName(a.appFlag)
	}
	switch {
	case strings.HasPrefix(url, "oci://"):
		d.Source.Kind = cluster.SourceOCI
	case d.Source.Chart != "":
		d.Source.Kind = cluster.SourceChart
	}
	d.Interval, d.Timeout, d.KeepGone = cluster.Duration(x.interval), cluster.Duration(x.deadline), !x.prune
	for _, dep := range x.depends {
		d.DependsOn = append(d.DependsOn, cluster.DeliveryName(dep))
	}
	for _, read := range []struct {
		file string
		into *string
	}{{x.knownHosts, &d.Source.KnownHosts}, {x.ca, &d.Source.CA}, {x.notifyCA, &d.NotifyCA}} {
		if read.file == "" {
			continue
		}
		b, err := os.ReadFile(read.file)
		if err != nil {
			return d, usagef("%w", err)
		}
		*read.into = string(b)
	}
	for _, kv := range x.env {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return d, usagef("--env %s: write NAME=VALUE", kv)
		}
		if d.Env == nil {
			d.Env = map[string]string{}
		}
		d.Env[k] = v
	}
	variables := map[string]any{}
	for k, v := range d.Env {
		variables[k] = v
	}
	a.warnOfClear(variables, ofVariables(), nil)
	if err := x.setValues(a, &d); err != nil {
		return d, err
	}
	for format, list := range map[string][]string{"json": x.notify, "slack": x.slack} {
		for _, to := range list {
			n := cluster.Notice{URL: to, Format: format, Events: x.on}
			if secret, ok := strings.CutPrefix(to, "secret:"); ok {
				n.URL, n.Secret = "", secret
			}
			d.Notify = append(d.Notify, n)
		}
	}
	if err := x.readImages(&d); err != nil {
		return d, err
	}
	slices.SortFunc(d.Notify, func(a, b cluster.Notice) int {
		return strings.Compare(a.Format+a.URL+a.Secret, b.Format+b.URL+b.Secret)
	})
	return d, nil
}

// setValues are the values that the flags give, as one text.
func (x *deliveryFlags) setValues(a *app, d *cluster.Delivery) error {
	values, err := x.values.read(a)
	if err != nil {
		return usagef("%w", err)
	}
	if values.Empty() {
		return nil
	}
	if len(d.Values) > 0 {
		lists, err := values.Elements()
		if err != nil {
			return usagef("values: %w", err)
		}
		if len(lists) > 0 {
			return usagef("values: of %s single elements are set, and a list that the source's --values have there would be replaced by these: give the whole list (--set-json '%s=[…]', or --values-file)", strings.Join(lists, ", "), lists[0])
		}
	}
	if d.Set, err = values.Text(); err != nil {
		return usagef("values: %w", err)
	}
	d.SetTyped = true
	a.warnOfPasswords(d.Set, ofDelivery(d.Source.Kind == cluster.SourceGit), nil)
	return nil
}

// awaitDelivery waits until a request was followed and what came of it is known.
func (a *app) awaitDelivery(ctx context.Context, cl *client.Client, asked v1.DeliveryAsked, timeout time.Duration) error {
	const look = 300 * time.Millisecond
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	shown, waits, quiet := "", "", silence{a: a}
	for ; ; pause(wctx, look) {
		d, err := cl.Delivery(wctx, asked.Name)
		switch {
		case ctx.Err() != nil:
			return &exitError{code: codeFailed, err: fmt.Errorf("stopped waiting; it goes on: `fairlead delivery describe %s`", asked.Name)}
		case wctx.Err() != nil && quiet.why != nil:
			return quiet.late("how "+string(asked.Name)+" is", timeout, fmt.Sprintf("`fairlead delivery describe %s`", asked.Name))
		case wctx.Err() != nil:
			return &exitError{code: codeTimeout, err: fmt.Errorf("%s is not done after %s%s; it goes on: `fairlead delivery describe %s`", asked.Name, timeout, waits, asked.Name)}
		case quiet.outlasts(err):
			continue
		case err != nil:
			return err
		}
		quiet.heard()
		line := strings.TrimSpace(d.Phase() + " " + oneLine(d.State.Message))
		if waits = ""; d.State.Phase == cluster.PhaseWaiting {
			waits = ": it " + oneLine(d.State.Message)
		}
		if line != shown && a.human() && (d.State.Asked >= asked.Number || waits != "") {
			a.note("%s: %s", d.Name, line)
			shown = line
		}
		if d.Settled(asked.Number) {
			return a.deliveryVerdict(d)
		}
	}
}

func (a *app) deliveryVerdict(d v1.DeliveryStatus) error {
	if err := a.print(d, func() *table { return a.deliveryTable([]v1.DeliveryStatus{d}) }); err != nil {
		return err
	}
	switch d.State.Phase {
	case cluster.PhaseFailed, cluster.PhaseHeld:
		return failedf("%s %s: %s", d.Name, d.State.Phase, oneLine(d.State.Message))
	}
	return nil
}

func (a *app) completeDeliveries() completion {
	return a.offer(1, func(ctx context.Context, cl *client.Client) ([]string, error) {
		list, err := cl.Deliveries(ctx)
		return named(list, err, func(d v1.DeliveryStatus) string { return string(d.Name) })
	})
}

func (a *app) deliveryReconcile() *cobra.Command {
	var w waitFlags
	again := false
	c := &cobra.Command{
		Use: "reconcile NAME", Short: "Look at the source now, and wait for what comes of it", Args: oneArg("the delivery"),
		Long: `Looks at the source now, and waits for what comes of it. A revision that failed and was gone
back from stays so, unless --again tries it once more: what it failed for may be mended.`,
		Example: "  fairlead delivery reconcile shop\n  fairlead delivery reconcile shop --again", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			asked, err := cl.Reconcile(cmd.Context(), cluster.DeliveryName(args[0]), again)
			if err != nil {
				return err
			}
			if w.detach {
				return a.print(asked, func() *table {
					t := &table{columns: columns("DELIVERY", "REQUEST")}
					t.add(string(asked.Name), fmt.Sprint(asked.Number))
					return t
				})
			}
			return a.awaitDelivery(cmd.Context(), cl, asked, w.timeout)
		}),
	}
	w.register(c)
	c.Flags().BoolVar(&again, "again", false, "try a revision again that failed and was gone back from")
	return c
}

func (a *app) deliverySuspend() *cobra.Command {
	return a.deliverySwitch("suspend", "Leave the app as it is, until resumed", (*client.Client).Suspend)
}

func (a *app) deliveryResume() *cobra.Command {
	return a.deliverySwitch("resume", "Follow the source again", (*client.Client).Resume)
}

func (a *app) deliverySwitch(word, what string, do func(*client.Client, context.Context, cluster.DeliveryName) (v1.DeliveryStatus, error)) *cobra.Command {
	return &cobra.Command{
		Use: word + " NAME", Short: what, Args: oneArg("the delivery"),
		Example: "  fairlead delivery " + word + " shop", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			d, err := do(cl, cmd.Context(), cluster.DeliveryName(args[0]))
			if err != nil {
				return err
			}
			return a.print(d, func() *table { return a.deliveryTable([]v1.DeliveryStatus{d}) })
		}),
	}
}

func (a *app) deliveryRemove() *cobra.Command {
	force := false
	c := &cobra.Command{
		Use: "rm NAME", Short: "Follow a source no longer; the app stays as it is", Args: oneArg("the delivery"),
		Long:    "It is refused where other deliveries depend on this one (--depends-on): they would wait for it.",
		Example: "  fairlead delivery rm shop", ValidArgsFunction: a.completeDeliveries(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if err := cl.RemoveDelivery(cmd.Context(), cluster.DeliveryName(args[0]), force); err != nil {
				return err
			}
			a.note("%s is followed no longer; its app stays", args[0])
			return nil
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "also where others depend on it")
	return c
}
