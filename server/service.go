package server

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
)

const (
	unitName    = "fairlead.service"
	unitFile    = "/etc/systemd/system/" + unitName
	programPath = "/usr/local/bin/fairlead"
)

// plainUnit is where the unit stands on a machine without systemd: nothing reads
// it but the next install or uninstall, and whoever writes one for another init.
const plainUnit = gateway.LibDir + "/" + unitName

// unit keeps Traefik and containers running while the server restarts
// (KillMode=process), and starts after Docker where Docker is a service, and
// after firewalls, which flush all rules when they start. systemd never gives up
// on it, unless the machine was removed from its cluster (exit code 6), no core file
// takes secrets to the disk, and a Traefik that the kernel kills for its memory ends alone.
const unit = `# Written by "fairlead system install"; changes are lost with the next install.
[Unit]
Description=Fairlead server
Documentation=https://github.com/fairlead/fairlead
After=network-online.target docker.service nftables.service firewalld.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=%s
Restart=always
RestartSec=1
RestartPreventExitStatus=6
KillMode=process
TimeoutStopSec=30
LimitNOFILE=1048576
LimitCORE=0
OOMScoreAdjust=-500
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
`

func systemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// service is the server that "system install" has made a service of this
// machine. There is one at most; servers run by hand, as the demo's, are none.
type service struct {
	file string // its unit
	cfg  Config // of the command line in it
}

// write makes the unit.
func (s *service) write(args []string) error {
	if err := os.MkdirAll(filepath.Dir(s.file), 0o755); err != nil { //nolint:gosec // units and programs, for everyone
		return err
	}
	text := fmt.Sprintf(unit, unitCommand(append([]string{programPath}, args...)))
	return atomicfile.Copy(s.file, strings.NewReader(text), 0o644) // units are world-readable
}

// log says where the service's log is.
func (s *service) log() string {
	if s.file == unitFile {
		return "journalctl -u " + unitName
	}
	return filepath.Join(s.cfg.DataDir, "server.log")
}

// installed reads the machine's service, nil when there is none.
func installed() (*service, error) {
	for _, file := range []string{unitFile, plainUnit} {
		s, err := readService(file)
		if s != nil || err != nil {
			return s, err
		}
	}
	return nil, nil //nolint:nilnil // none is no error
}

func readService(file string) (*service, error) {
	text, err := os.ReadFile(file) //nolint:gosec // one of two fixed paths, and tests
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // none is no error
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		command, is := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "ExecStart=")
		if !is {
			continue
		}
		s := &service{file: file}
		f := pflag.NewFlagSet("service", pflag.ContinueOnError)
		f.SetOutput(io.Discard)
		f.ParseErrorsAllowlist.UnknownFlags = true // of another version
		s.cfg.register(f)
		args, err := unitArgs(command)
		if err == nil {
			err = f.Parse(args)
		}
		if err != nil {
			return nil, cluster.Invalidf("%s: ExecStart is not understood: %w; mend it, or remove the file", file, err)
		}
		return s, nil
	}
	return nil, cluster.Invalidf("%s has no ExecStart: mend it, or remove the file", file)
}

// plainArg needs no quotes in a unit.
var plainArg = regexp.MustCompile(`^[a-zA-Z0-9_./:=,@+-]+$`)

// unitCommand writes a command as ExecStart reads it: in quotes where it must be,
// and with neither specifiers (%) nor variables ($) of systemd's.
func unitCommand(args []string) string {
	inQuotes := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "%", "%%", "$", "$$")
	out := make([]string, 0, len(args))
	for _, a := range args {
		if !plainArg.MatchString(a) {
			a = `"` + inQuotes.Replace(a) + `"`
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

// unitArgs reads what unitCommand wrote.
func unitArgs(command string) ([]string, error) {
	var out []string
	unquote := strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n", `\t`, "\t", "%%", "%", "$$", "$")
	for rest := strings.TrimSpace(command); rest != ""; rest = strings.TrimLeft(rest, " ") {
		if rest[0] != '"' {
			var word string
			word, rest, _ = strings.Cut(rest, " ")
			out = append(out, word)
			continue
		}
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			return nil, fmt.Errorf("a quote is not closed in %s", rest)
		}
		out = append(out, unquote.Replace(rest[1:end]))
		rest = rest[end+1:]
	}
	return out, nil
}

// mayInstall refuses to turn the machine's service into that of another cluster:
// what the one before runs would be left to nobody.
func mayInstall(s *service, cfg Config) error {
	if s == nil || s.cfg.DataDir == cfg.DataDir {
		return nil
	}
	return cluster.Invalidf("this machine's service (%s) runs the server of %s: to upgrade or change that one add --data-dir %s, to have another one in its place first run `fairlead system uninstall`",
		s.file, s.cfg.DataDir, s.cfg.DataDir)
}

// target is the server that an uninstall is about.
type target struct {
	Config
	service *service // nil: it is not the machine's service
}

// choose finds out which server is meant: the machine's service, unless another
// data directory is named.
func choose(s *service, given Config) target {
	t := target{Config: given}
	if s != nil && (given.DataDir == "" || given.DataDir == s.cfg.DataDir) {
		t = target{Config: s.cfg, service: s}
		t.RunDir, t.Docker = cmp.Or(given.RunDir, t.RunDir), cmp.Or(given.Docker, t.Docker)
	}
	t.DataDir, t.RunDir = cmp.Or(t.DataDir, defaultDataDir), cmp.Or(t.RunDir, defaultRunDir)
	return t
}

// removable refuses to remove a directory with all that is in it when it is not a server's.
func removable(dir, flag string, signs ...string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, sign := range signs {
			if e.Name() == sign {
				return nil
			}
		}
	}
	return cluster.Invalidf("%s %s is no directory of a Fairlead server, it holds none of %s: nothing was removed", flag, dir, strings.Join(signs, ", "))
}
