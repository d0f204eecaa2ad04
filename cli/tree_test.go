package cli_test

import (
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/cli"
	"github.com/fairlead/fairlead/server"
)

func tree() *cobra.Command {
	return cli.New(cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Now: now}, server.Commands("test", now)...)
}

// walk calls f with every command that is not hidden, and its path without "fairlead".
func walk(c *cobra.Command, path string, f func(path string, c *cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Hidden {
			continue
		}
		p := strings.TrimSpace(path + " " + sub.Name())
		f(p, sub)
		walk(sub, p, f)
	}
}

func TestEveryCommandIsDocumented(t *testing.T) {
	groups := map[string]bool{}
	for _, g := range tree().Groups() {
		groups[g.ID] = true
	}
	walk(tree(), "", func(path string, c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Short[0] < 'A' || c.Short[0] > 'Z' {
			t.Errorf("%s: Short is %q: a sentence without its stop", path, c.Short)
		}
		if !strings.Contains(path, " ") && !groups[c.GroupID] {
			t.Errorf("%s is in no group", path)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); strings.Contains(name, " ") {
				t.Errorf("%s: --%s takes a %q: what is in backquotes names the value", path, f.Name, name)
			}
		})
		if c.Example == "" {
			t.Errorf("%s has no example", path)
		}
		named := false
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: the example %q is not indented", path, line)
			}
			named = named || exampleOf(t, path, line)
		}
		if c.Example != "" && !named {
			t.Errorf("%s: no example shows the command itself:\n%s", path, c.Example)
		}
	})
}

// exampleOf checks that a line of an example could be run: the command is there,
// and takes these flags and that many arguments. True: it is of this command.
func exampleOf(t *testing.T, of, line string) bool {
	t.Helper()
	line, _, _ = strings.Cut(line, "#")
	_, line, found := strings.Cut(line, "fairlead ")
	if !found {
		t.Errorf("%s: the example %q does not call fairlead", of, line)
		return false
	}
	var args []string
	for w := range strings.FieldsSeq(line) {
		if !strings.HasPrefix(w, "<") { // redirected input
			args = append(args, w)
		}
	}
	c, rest, err := tree().Find(args)
	if err != nil {
		t.Errorf("%s: example %q: %v", of, line, err)
		return false
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%s: example %q: %v", of, line, err)
	} else if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		t.Errorf("%s: example %q: %v", of, line, err)
	}
	path := strings.TrimPrefix(c.CommandPath(), "fairlead ")
	return path == of || strings.HasPrefix(path, of+" ")
}

var quoted = regexp.MustCompile("`([^`]+)`")

// TestTreeIsTheDecidedOne: docs/adr/0003-command-tree.md has every command, and
// those that it has for later are not there yet.
func TestTreeIsTheDecidedOne(t *testing.T) {
	b, err := os.ReadFile("../docs/adr/0003-command-tree.md")
	if err != nil {
		t.Fatal(err)
	}
	decided, later := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "| ") || !strings.Contains(line, "`") {
			continue
		}
		cells := strings.SplitN(strings.ReplaceAll(line, `\|`, "\x00"), "|", 3)
		if regexp.MustCompile(`^ [0-9]`).MatchString(cells[1]) {
			continue // exit codes
		}
		into := decided
		if strings.Contains(cells[1], "later") {
			into = later
		}
		for part := range strings.SplitSeq(cells[2], "later") {
			for _, m := range quoted.FindAllStringSubmatch(part, -1) {
				for _, p := range paths(m[1]) {
					into[p] = true
				}
			}
			into = later
		}
	}
	have := map[string]bool{}
	walk(tree(), "", func(path string, c *cobra.Command) {
		if strings.HasPrefix(path, "completion ") {
			return // one for each shell
		}
		if !c.HasSubCommands() || path == "completion" || path == "server" {
			have[path] = true
		}
		for _, al := range c.Aliases {
			have[al] = true
		}
	})
	for _, p := range slices.Sorted(maps.Keys(have)) {
		if !decided[p] {
			t.Errorf("fairlead %s is not in the decision", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(decided)) {
		if !have[p] {
			t.Errorf("fairlead %s is decided and not there", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(later)) {
		if have[p] {
			t.Errorf("fairlead %s is there: it is no longer for later", p)
		}
	}
	if len(decided)+len(later) < 110 {
		t.Errorf("%d commands decided, %d for later: the table is not read", len(decided), len(later))
	}
}

// paths reads "node ls|rm NODE" (with \x00 for |) as "node ls" and "node rm".
func paths(s string) []string {
	var words []string
	for w := range strings.FieldsSeq(s) {
		if strings.ContainsAny(w, "[]…=.") || strings.HasPrefix(w, "-") || strings.ToUpper(w) == w {
			break
		}
		words = append(words, w)
	}
	if len(words) == 0 {
		return nil
	}
	var out []string
	for last := range strings.SplitSeq(words[len(words)-1], "\x00") {
		out = append(out, strings.Join(append(slices.Clone(words[:len(words)-1]), last), " "))
	}
	return out
}

func TestCompletion(t *testing.T) {
	h := newHub(t)
	withFront(h)
	h.must("", "context", "add", "prod", "--server", "https://203.0.113.5:7420", "--no-check")
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{[]string{"dep"}, []string{"deploy"}},
		{[]string{"secret", ""}, []string{"set", "ls", "inspect", "rm"}},
		{[]string{"ps", ""}, []string{"store"}},
		{[]string{"rm", ""}, []string{"store"}},
		{[]string{"logs", ""}, []string{"store", "store/front", "store/pump", "store/auto"}},
		{[]string{"inspect", ""}, []string{"store", "store/front"}},
		{[]string{"restart", ""}, []string{"store", "store/front"}},
		{[]string{"exec", "store/f"}, []string{"store/front"}},
		{[]string{"exec", "store/front."}, []string{"store/front.1"}},
		{[]string{"logs", "store/front."}, []string{"store/front.1"}},
		{[]string{"cp", "store/front."}, []string{"store/front.1:"}},
		{[]string{"node", "drain", ""}, []string{"n1"}},
		{[]string{"context", "use", ""}, []string{"prod"}},
		{[]string{"ls", "--context", ""}, []string{"prod"}},
		{[]string{"deploy", ""}, []string{"store"}},
		{[]string{"ps", "-p", ""}, []string{"store"}},
		{[]string{"explain", ""}, []string{"store", "store/front"}},
		{[]string{"scale", "store/front=2", ""}, []string{"store/pump="}},
		{[]string{"update", "store", "--image", ""}, []string{"front="}},
		{[]string{"secret", "rm", ""}, []string{"store/pw"}},
		{[]string{"secret", "ls", ""}, []string{"store"}},
		{[]string{"cp", ""}, []string{"store/front:"}},
		{[]string{"image", "ls", "--node", ""}, []string{"n1"}},
		{[]string{"ls", "-o", ""}, []string{"table", "wide", "json", "yaml"}},
		{[]string{"help", ""}, []string{"deploy", "secret"}},
		{[]string{"deploy", "--no-"}, []string{"--no-build", "--no-cache"}},
	} {
		s := h.must("", append([]string{"__complete"}, c.words...)...)
		for _, w := range c.want {
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(w) + `(\t|$)`).MatchString(s.out) {
				t.Errorf("%q offers\n%swithout %q", c.words, s.out, w)
			}
		}
	}
	// In an app's directory, and with -p, a service's name is enough.
	for _, where := range [][]string{{"-p", "store"}, nil} {
		if where == nil {
			h.write("compose.yaml", "name: store\nservices: {front: {image: a}}\n")
		}
		for typed, want := range map[string]string{"exec": "front", "logs front.": "front.1", "cp": "front:", "scale": "front=", "secret rm": "pw"} {
			words := strings.Fields(typed)
			if !strings.HasSuffix(typed, ".") {
				words = append(words, "")
			}
			s := h.must("", append([]string{"__complete"}, append(where, words...)...)...)
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(want) + `$`).MatchString(s.out) {
				t.Errorf("%v %s offers\n%swithout %q", where, typed, s.out, want)
			}
		}
	}
	if s := h.must("", "__complete", "ls", "--c"); !strings.Contains(s.out, "--context\tname of the cluster") {
		t.Errorf("a flag's text is shown as\n%s", s.out)
	}
	// Where nothing is known, the files that lie here are no answer either.
	h.write("here.txt", "")
	walk(tree(), "", func(path string, c *cobra.Command) {
		if c.ValidArgsFunction == nil && c.Runnable() && len(c.ValidArgs) == 0 {
			t.Errorf("fairlead %s offers files", path)
		}
	})
	for _, words := range [][]string{{"ps", "store", ""}, {"node", "drain", "n1", ""}, {"token", "create", ""}, {"ls", ""}} {
		s := h.must("", append([]string{"__complete"}, words...)...)
		if !strings.HasPrefix(s.out, ":4\n") {
			t.Errorf("%q offers\n%s", words, s.out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if s := h.must("", "completion", shell); len(s.out) < 500 {
			t.Errorf("%s: %q", shell, s.out)
		}
	}
	// Where no server answers, a key pressed must not print errors.
	if s := h.cli("", "--socket", "/nonexistent", "__complete", "ps", ""); s.code != 0 || strings.Contains(s.all, "cannot reach") {
		t.Errorf("%d %s", s.code, s.all)
	}
}
