package compose

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"

	"github.com/fairlead/fairlead/cluster"
)

// valueTypes says what text a key takes where compose-go's schema takes any, so
// that a wrong one is reported with its line: d duration, z size in bytes, i
// whole number, n one that is not below zero, b boolean, f number, o file mode, p
// port, v volume.
func valueTypes() map[string]byte {
	const s = "services.*."
	out := map[string]byte{}
	put := func(typ byte, keys ...string) {
		for _, k := range keys {
			out[s+k] = typ
		}
	}
	put('d', "stop_grace_period", "healthcheck.interval", "healthcheck.timeout", "healthcheck.start_period", "healthcheck.start_interval",
		"deploy.restart_policy.delay", "deploy.restart_policy.window", "deploy.update_config.delay", "deploy.update_config.monitor",
		"deploy.rollback_config.delay", "deploy.rollback_config.monitor")
	put('z', "mem_limit", "mem_reservation", "shm_size", "build.shm_size", "volumes[].tmpfs.size",
		"deploy.resources.limits.memory", "deploy.resources.reservations.memory")
	put('i', "scale", "deploy.replicas", "pids_limit", "deploy.resources.limits.pids", "cpu_quota", "cpu_period")
	put('n', "healthcheck.retries", "deploy.restart_policy.max_attempts", "deploy.placement.max_replicas_per_node", "ports[].target",
		"deploy.update_config.parallelism", "deploy.rollback_config.parallelism")
	put('b', "privileged", "read_only", "init", "tty", "stdin_open", "volumes[].read_only", "healthcheck.disable", "build.no_cache", "build.pull",
		"volumes[].bind.create_host_path", "volumes[].volume.nocopy", "env_file[].required")
	put('f', "cpus", "deploy.resources.limits.cpus", "deploy.resources.reservations.cpus",
		"deploy.update_config.max_failure_ratio", "deploy.rollback_config.max_failure_ratio")
	put('o', "volumes[].tmpfs.mode", "secrets[].mode", "configs[].mode")
	put('p', "ports[]")
	put('v', "volumes[]")
	return out
}

// checkValue reports a scalar whose text its key cannot take.
func (l *load) checkValue(d *doc, n *node, typ byte, path string) {
	if n.kind != scalarNode || n.bad || (n.value == "" && n.raw != "" && typ != 'v' && typ != 'p') {
		return
	}
	msg := valueProblem(typ, n.value)
	switch {
	case typ == 'o':
		msg = l.checkMode(d, n, path)
	case typ == 'z' && n.tag == "!!float": // compose-go takes it for nothing
		msg = "is not a whole number of bytes; write for example 64M or 1.5G"
	}
	if msg != "" {
		l.refuse(cluster.Source{File: d.file, Line: n.line}, path, quote(n.value)+" "+msg, "")
		n.bad = true
		return
	}
	if typ == 'b' {
		switch strings.ToLower(n.value) {
		case "yes", "on", "y":
			l.warn(cluster.Source{File: d.file, Line: n.line}, path, quote(n.value)+" is read as true", "write true")
		case "no", "off", "n":
			l.warn(cluster.Source{File: d.file, Line: n.line}, path, quote(n.value)+" is read as false", "write false")
		}
	}
}

var (
	longRE  = regexp.MustCompile(`^([0-9.]+(ns|us|µs|ms|s|m|h|d|w))+$`)
	wholeRE = regexp.MustCompile(`^[+-]?[0-9_]+$`)
)

func valueProblem(typ byte, v string) string {
	switch typ {
	case 'd':
		if _, err := time.ParseDuration(v); err != nil && !longDuration(v) {
			return "is not a duration; write for example 30s or 1m30s"
		}
	case 'z':
		if n, err := units.RAMInBytes(v); err != nil || n < 0 {
			return "is not an amount of memory; write for example 64M or 1.5G"
		}
	case 'i':
		if !wholeRE.MatchString(v) || len(v) > 18 {
			return "is not a whole number"
		}
	case 'n':
		if !wholeRE.MatchString(v) || len(v) > 18 || v[0] == '-' {
			return "is not a whole number from 0"
		}
	case 'f':
		if f, err := strconv.ParseFloat(v, 64); err != nil || f-f != 0 {
			return "is not a number"
		}
	case 'b':
		switch strings.ToLower(v) {
		case "true", "false", "yes", "no", "on", "off", "y", "n", "1", "0":
		default:
			return "is neither true nor false"
		}
	case 'p':
		if n := portSpan(v); n > maxPortRange {
			return fmt.Sprintf("is a range of %d ports; at most %d", n, maxPortRange)
		}
		if _, err := parsePort(v); err != nil {
			return fmt.Sprintf("is not a port such as 8080:80 (%v)", err)
		}
	case 'v':
		return volumeProblem(v)
	}
	return ""
}

// checkMode says why a scalar is no mode, and warns of one that can be read in two ways.
func (l *load) checkMode(d *doc, n *node, path string) string {
	at := cluster.Source{File: d.file, Line: n.line}
	mode, decimal, fine := n.fileMode()
	tmpfs := strings.HasSuffix(path, ".tmpfs.mode") // and not of a service that is named so
	switch {
	case !fine && tmpfs:
		return "is not a mode such as 01777"
	case !fine:
		return "is not a mode such as 0440"
	case mode == 0 && !tmpfs:
		return "lets nobody read the file"
	case decimal:
		l.warn(at, path, fmt.Sprintf("%s is a decimal number, as docker compose takes it: the mode %#o", n.value, mode), fmt.Sprintf("write %#o", mode))
	case n.decimal():
		l.warn(at, path, n.value+" is read as octal; docker compose would take it for a decimal number", "write 0"+n.value)
	}
	return ""
}

// decimal: a number as YAML has it, and not in octal.
func (n *node) decimal() bool { return n.tag != "!!str" && !strings.HasPrefix(n.value, "0") }

// fileMode reads permission bits, which are octal however they are written: nobody
// means 0670 by 440. But a decimal number that is a mode, and as octal none that
// anyone would write, is what a tool printed: 288 is 0440, 420 is 0644.
func (n *node) fileMode() (mode int, decimal, fine bool) {
	octal, err := octalMode(n.value)
	if n.decimal() && (err != nil || !usual(octal)) {
		if m, derr := strconv.ParseUint(n.value, 10, 9); derr == nil && usual(int(m)) {
			return int(m), true, true
		}
	}
	return octal, false, err == nil
}

func octalMode(v string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "0o"), 8, 12)
	return int(n), err
}

// usual: the owner reads, the group may do nothing that the owner may not, nor others
// what the group may not.
func usual(mode int) bool {
	owner, group, others := mode>>6&7, mode>>3&7, mode&7
	return owner&4 != 0 && group&^owner == 0 && others&^group == 0
}

// maxPortRange bounds the ports that one item stands for.
const maxPortRange = 100

// portSpan is the widest range in a port's short form.
func portSpan(v string) int {
	widest := 1
	v, _, _ = strings.Cut(v, "/")
	for part := range strings.SplitSeq(v, ":") {
		if from, to, ranged := strings.Cut(part, "-"); ranged {
			a, err1 := strconv.Atoi(from)
			b, err2 := strconv.Atoi(to)
			if err1 == nil && err2 == nil {
				widest = max(widest, b-a+1)
			}
		}
	}
	return widest
}

// longDuration takes the days and weeks that compose-go takes.
func longDuration(v string) bool {
	return longRE.MatchString(v)
}

// parseVolume reads the short form of a mount.
func parseVolume(v string) (vol types.ServiceVolumeConfig, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return format.ParseVolume(v)
}

var driveRE = regexp.MustCompile(`^[A-Za-z]:/`)

func volumeProblem(v string) string {
	vol, err := parseVolume(v)
	switch {
	case err != nil && strings.Contains(err.Error(), "empty section"):
		return "has an empty part; is a variable unset? Write for example data:/data"
	case err != nil:
		return "is not a volume such as data:/data"
	case driveRE.MatchString(vol.Target):
		return "reads as a drive of Windows, with docker compose too; give the volume a name of two letters or more"
	case !strings.HasPrefix(vol.Target, "/"):
		return "has no absolute path in the container; write for example data:/data"
	}
	return ""
}
