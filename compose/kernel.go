package compose

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// ofKernel refuses names that neither the kernel nor Docker knows: the container would
// not be made, or would not start.
func (c *converter) ofKernel(name string, s types.ServiceConfig) {
	if d := s.WorkingDir; d != "" && !path.IsAbs(d) {
		c.no(quote(d)+" is not an absolute path", "write it from / on", name, "working_dir")
	}
	if s.StopSignal != "" && !knownSignal(strings.ToUpper(s.StopSignal)) {
		c.no(quote(s.StopSignal)+" is not a signal", "write for example SIGTERM", name, "stop_signal")
	}
	c.capabilities(name, "cap_add", s.CapAdd)
	c.capabilities(name, "cap_drop", s.CapDrop)
	for _, k := range slices.Sorted(maps.Keys(s.Ulimits)) {
		if _, err := units.ParseUlimit(k + "=0"); err != nil {
			c.no(quote(k)+" is not a limit of the kernel's", "write for example nofile or nproc", name, "ulimits", k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Sysctls)) {
		switch dotted := strings.ReplaceAll(k, "/", "."); {
		case !ownSysctl(dotted):
			c.no("this setting is the whole node's, not a container's", "set it on the nodes (sysctl -w), and leave it out", name, "sysctls", k)
		case s.NetworkMode == "host" && strings.HasPrefix(dotted, "net."):
			c.no("with network_mode: host it is the node's setting", "set it on the nodes (sysctl -w), and leave it out", name, "sysctls", k)
		}
	}
}

func (c *converter) capabilities(name, key string, list []string) {
	known := knownCapabilities()
	for _, given := range list {
		plain := strings.TrimPrefix(strings.ToUpper(given), "CAP_")
		if plain == "ALL" || slices.Contains(known, plain) {
			continue
		}
		advice := didYouMean(plain, known)
		if advice == "" {
			advice = "write for example NET_ADMIN, or ALL"
		}
		full := []string{"services", name, key}
		_, at := c.idx.item(func(n *node) bool { return n.value == given }, full...)
		c.refuse(at, dotted(full...), quote(given)+" is not a capability", advice)
	}
}

func knownCapabilities() (names []string) {
	for _, c := range capability.ListKnown() {
		names = append(names, strings.ToUpper(c.String()))
	}
	return names
}

var realTime = regexp.MustCompile(`^RT(MIN(\+([0-9]|1[0-5]))?|MAX(-([0-9]|1[0-4]))?)$`)

// knownSignal takes what Docker takes: a number, or a name with or without SIG.
func knownSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n > 0 && n <= 64
	}
	s = strings.TrimPrefix(s, "SIG")
	return unix.SignalNum("SIG"+s) != 0 || realTime.MatchString(s)
}

// ownSysctl reports whether each container has a kernel setting of its own.
func ownSysctl(k string) bool {
	switch k {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.domainname":
		return true
	}
	return strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "fs.mqueue.")
}
