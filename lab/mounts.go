package lab

import (
	"slices"
	"strings"
)

// mountPoint is a line of /proc/self/mountinfo.
type mountPoint struct{ path, fs string }

func parseMounts(info string) []mountPoint {
	var out []mountPoint
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if ok && len(b) > 4 && len(a) > 0 {
			out = append(out, mountPoint{unescape.Replace(b[4]), a[0]})
		}
	}
	return out
}

// foreign lists the mounts that a lab takes no copy of, in the order in which they
// can be taken away: those of other programs' containers, namespaces and secrets,
// which a copy would keep from ending. What is kept is what a machine is made of:
// its disks, /dev and /sys.
func foreign(mounts []mountPoint) []string {
	var out []string
	for _, m := range slices.Backward(mounts) {
		below := func(dirs ...string) bool {
			return slices.ContainsFunc(dirs, func(d string) bool { return m.path == d || strings.HasPrefix(m.path, d+"/") })
		}
		switch {
		case m.path == "/" || below("/dev", "/sys", "/proc"):
		case below("/run", "/var/run", "/var/lib/docker", "/var/lib/containerd", "/var/lib/fairlead"):
			out = append(out, m.path)
		case m.fs == "nsfs" || m.fs == "overlay" || m.fs == "proc" || m.fs == "tmpfs" && m.path != "/tmp" && m.path != "/var/tmp":
			out = append(out, m.path)
		}
	}
	return out
}
