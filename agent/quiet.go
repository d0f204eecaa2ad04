package agent

import (
	"bufio"
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

const (
	tcpEstablished = "01"
	tcpListen      = "0A"
)

// quiet reports whether the network namespace of a process has no established
// connection that came in from outside it. What cannot be read is quiet: the
// process is gone.
func quiet(pid int) bool {
	net := "/proc/" + strconv.Itoa(pid) + "/net/"
	for _, family := range []struct{ sockets, count, key string }{{"tcp", "sockstat", "TCP:"}, {"tcp6", "sockstat6", "TCP6:"}} {
		// The kernel finds a namespace's connections by a walk over those of the
		// whole machine. A listener alone has none, and its count costs nothing.
		if b, err := os.ReadFile(net + family.count); err == nil { //nolint:gosec // as below
			if n, ok := inUse(string(b), family.key); ok && n < 2 {
				continue
			}
		}
		f, err := os.Open(net + family.sockets) //nolint:gosec // two fixed names of the kernel's
		if err != nil {
			continue
		}
		n := inbound(bufio.NewScanner(f))
		_ = f.Close()
		if n > 0 {
			return false
		}
	}
	return true
}

// inUse reads how many sockets of a protocol there are, listening or connected.
func inUse(sockstat, key string) (n int, ok bool) {
	for line := range strings.Lines(sockstat) {
		f := strings.Fields(line)
		if len(f) > 2 && f[0] == key && f[1] == "inuse" {
			n, err := strconv.Atoi(f[2])
			return n, err == nil
		}
	}
	return 0, false
}

// inbound counts established connections to a port that is listened on, but for
// those from the loopback address: a task's own checks are no clients.
func inbound(sc *bufio.Scanner) int {
	listens := map[string]bool{}
	var ports []string
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 4 {
			continue
		}
		_, port, ok := strings.Cut(f[1], ":")
		if !ok {
			continue
		}
		remote, _, _ := strings.Cut(f[2], ":")
		switch f[3] {
		case tcpListen:
			listens[port] = true
		case tcpEstablished:
			if !loopback(remote) {
				ports = append(ports, port)
			}
		}
	}
	n := 0
	for _, p := range ports {
		if listens[p] {
			n++
		}
	}
	return n
}

// loopback reads an address as /proc/net/tcp writes it: 32-bit words in the
// machine's byte order.
func loopback(hex string) bool {
	var b []byte
	for i := 0; i+8 <= len(hex); i += 8 {
		w, err := strconv.ParseUint(hex[i:i+8], 16, 32)
		if err != nil {
			return false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
	}
	a, ok := netip.AddrFromSlice(b)
	return ok && a.Unmap().IsLoopback()
}
