package server

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/cluster"
)

func TestArgumentsOfTheUnitAreQuoted(t *testing.T) {
	for arg, want := range map[string]string{
		"--data-dir=/var/lib/fairlead": "--data-dir=/var/lib/fairlead",
		"":                             `""`,
		"--traefik=/opt/my tools/t":    `"--traefik=/opt/my tools/t"`,
		"100%":                         `"100%%"`,
		"$HOME;":                       `"$$HOME;"`,
		`a"b\c'd`:                      `"a\"b\\c'd"`,
		"two\nlines":                   `"two\nlines"`,
	} {
		if got := unitCommand([]string{arg}); got != want {
			t.Errorf("%q becomes %s, not %s", arg, got, want)
		}
		if back, err := unitArgs(unitCommand([]string{"a", arg, "b"})); err != nil || !slices.Equal(back, []string{"a", arg, "b"}) {
			t.Errorf("%q is read back as %q, %v", arg, back, err)
		}
	}
	if args, err := unitArgs(`a "b`); err == nil {
		t.Errorf("an open quote is read as %q", args)
	}
	if diff := cmp.Diff("a b", unitCommand([]string{"a", "b"})); diff != "" {
		t.Error(diff)
	}
}

func TestTheUnitIsNeverGivenUpAndWritesNoCore(t *testing.T) {
	text := fmt.Sprintf(unit, unitCommand([]string{programPath, "server", "--domain=a b"}))
	section := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name = line
		} else if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			section[name+k] = v
		}
	}
	for k, want := range map[string]string{
		"[Unit]StartLimitIntervalSec": "0", "[Service]LimitCORE": "0", "[Service]KillMode": "process",
		"[Service]ExecStart": programPath + ` server "--domain=a b"`,
	} {
		if section[k] != want {
			t.Errorf("%s is %q, not %q", k, section[k], want)
		}
	}
	for _, after := range []string{"docker.service", "nftables.service", "firewalld.service"} {
		if !strings.Contains(section["[Unit]After"], after) {
			t.Errorf("it does not start after %s", after)
		}
	}
}

// serviceIn is what an install with these flags leaves, read back.
func serviceIn(t *testing.T, args ...string) *service {
	t.Helper()
	s := service{file: filepath.Join(t.TempDir(), "lib", unitName)}
	if err := s.write(args); err != nil {
		t.Fatal(err)
	}
	back, err := readService(s.file)
	if err != nil || back == nil {
		t.Fatalf("%v, %v", back, err)
	}
	return back
}

func TestTheServiceIsReadFromItsUnit(t *testing.T) {
	s := serviceIn(t, "--data-dir=/srv/my data", "--run-dir=/run/other", "--of-a-later-version=1", "--docker=unix:///d.sock")
	if got := []string{s.cfg.DataDir, s.cfg.RunDir, s.cfg.Docker}; !slices.Equal(got, []string{"/srv/my data", "/run/other", "unix:///d.sock"}) {
		t.Errorf("%q", got)
	}
	if s := serviceIn(t); s.cfg.DataDir != defaultDataDir || s.cfg.RunDir != defaultRunDir {
		t.Errorf("without flags: %+v", s.cfg)
	}
	if s, err := readService(filepath.Join(t.TempDir(), unitName)); s != nil || err != nil {
		t.Errorf("no unit: %v, %v", s, err)
	}
	for _, text := range []string{"", "[Service]\n", "ExecStart=/usr/local/bin/fairlead \"server\n"} {
		file := filepath.Join(t.TempDir(), unitName)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readService(file); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAnInstallDoesNotTakeTheServiceFromAnotherCluster(t *testing.T) {
	s := serviceIn(t, "--data-dir=/srv/a")
	if err := mayInstall(s, Config{DataDir: "/srv/a"}); err != nil {
		t.Error(err)
	}
	if err := mayInstall(nil, Config{DataDir: "/srv/a"}); err != nil {
		t.Error(err)
	}
	err := mayInstall(s, Config{DataDir: defaultDataDir})
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "--data-dir /srv/a") {
		t.Errorf("%v", err)
	}
}

func TestUninstallKnowsItsServer(t *testing.T) {
	other := serviceIn(t, "--data-dir=/srv/a", "--run-dir=/run/a", "--docker=unix:///a.sock")
	for name, c := range map[string]struct {
		service *service
		given   Config
		want    []string
		is      bool // it is the machine's service
	}{
		"nothing is installed":                    {nil, Config{}, []string{defaultDataDir, defaultRunDir, ""}, false},
		"a server by hand":                        {nil, Config{DataDir: "/tmp/d", RunDir: "/tmp/r"}, []string{"/tmp/d", "/tmp/r", ""}, false},
		"the service, wherever it is":             {other, Config{}, []string{"/srv/a", "/run/a", "unix:///a.sock"}, true},
		"the service, by name":                    {other, Config{DataDir: "/srv/a"}, []string{"/srv/a", "/run/a", "unix:///a.sock"}, true},
		"the service, whose engine has moved":     {other, Config{Docker: "unix:///b.sock"}, []string{"/srv/a", "/run/a", "unix:///b.sock"}, true},
		"another server beside the service":       {other, Config{DataDir: "/tmp/d", RunDir: "/tmp/r"}, []string{"/tmp/d", "/tmp/r", ""}, false},
		"what lies where the service usually has": {other, Config{DataDir: defaultDataDir}, []string{defaultDataDir, defaultRunDir, ""}, false},
	} {
		got := choose(c.service, c.given)
		if d := cmp.Diff(c.want, []string{got.DataDir, got.RunDir, got.Docker}); d != "" || (got.service != nil) != c.is {
			t.Errorf("%s: %v, service: %v\n%s", name, got.Config, got.service != nil, d)
		}
	}
}

func TestOnlyAServersDirectoryIsRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "absent")} {
		if err := removable(d, "--data-dir", "server.pid", "pki"); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	for _, c := range []struct {
		name string
		ok   bool
	}{{"photo.jpg", false}, {"pki", true}} {
		if err := os.WriteFile(filepath.Join(dir, c.name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := removable(dir, "--data-dir", "server.pid", "pki"); (err == nil) != c.ok {
			t.Errorf("with %s: %v", c.name, err)
		}
	}
}

// The command in the unit takes each flag that an install gives it.
func TestTheUnitsCommandIsUnderstood(t *testing.T) {
	for given, want := range map[string]string{
		"--domain a.example.com -o json":                                      "server --domain=a.example.com",
		"--join 10.0.0.1:7420 --node n2":                                      "agent --node=n2",
		"--join 10.0.0.1:7420 --token-file t":                                 "agent",
		"--join 10.0.0.1:7420 --gateway --http-port 81":                       "agent --gateway=true --http-port=81",
		"--trusted-proxies 10.0.0.0/8,192.0.2.1 --trusted-proxies fd00::/8":   "server --trusted-proxies=10.0.0.0/8,192.0.2.1,fd00::/8",
		"--join 10.0.0.1:7420 --server --token-file t":                        "server",
		"--join 10.0.0.1:7420 --server --no-agent --etcd-quota 1GiB --node x": "server --etcd-quota=1GiB --no-agent=true --node=x",
	} {
		dir := t.TempDir()
		install := installCommand("dev")
		install.Flags().StringP("output", "o", "", "")
		if err := install.ParseFlags(append(strings.Fields(given), "--data-dir", dir)); err != nil {
			t.Fatal(err)
		}
		cfg := Config{DataDir: dir}
		cfg.Join, _ = install.Flags().GetString("join")
		asServer, _ := install.Flags().GetBool("server")
		isGateway, _ := install.Flags().GetBool("gateway")
		args, err := serviceArgs(install.Flags(), &cfg, asServer, isGateway)
		if err != nil {
			t.Fatalf("%s: %v", given, err)
		}
		c := map[string]*cobra.Command{"server": serverCommand("dev", time.Now), "agent": agentCommand("dev", time.Now)}[args[0]]
		if err := c.ParseFlags(args[1:]); err != nil {
			t.Errorf("%s makes %q: %v", given, args, err)
		}
		if got := strings.Join(slices.DeleteFunc(args, func(a string) bool { return a == "--data-dir="+dir }), " "); got != want {
			t.Errorf("%s makes %q, not %q", given, got, want)
		}
	}
}

// A node does not become a server by an install, nor an agent where a server is asked for.
func TestANodeIsNotMadeAServer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, membershipFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	install := installCommand("dev")
	args, err := serviceArgs(install.Flags(), &Config{DataDir: dir, Join: "10.0.0.1:7420"}, true, false)
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "is that of a node") {
		t.Errorf("%q, %v", args, err)
	}
}
