package gateway

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// hold keeps a public port from other programs, which would start, get no
// request and wonder why: packets to it go to Traefik's private port before any
// socket sees them. For TCP the socket listens, so that nobody else can, and has a
// filter that drops what reaches it before the first Traefik serves, and while another
// program has flushed those rules: who asks then asks again a second later (see forgetUnmapped).
type hold struct{ fd int }

// holdPort takes a public port, or says who has it and what to do: stop that
// program, or instead.
func holdPort(proto string, port int, instead string) (*hold, error) {
	kind := unix.SOCK_STREAM
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	var addr unix.Sockaddr = &unix.SockaddrInet6{Port: port}
	if err != nil { // no IPv6 here
		addr = &unix.SockaddrInet4{Port: port}
		if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("gateway: hold port %d: %w", port, err)
		}
	} else if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("gateway: hold port %d: %w", port, err)
	}
	err = nil
	if proto != "udp" {
		// Connections of a program that had the port and ended linger for a minute.
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
				Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
			}),
		)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("gateway: hold port %d: %w", port, err)
	}
	if err = unix.Bind(fd, addr); err == nil && proto != "udp" {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, cluster.Invalidf("port %d/%s is in use%s: stop that program, or %s (%w)", port, proto, portUser(proto, port), instead, err)
	}
	return &hold{fd}, nil
}

func (h *hold) release() { _ = unix.Close(h.fd) }

// portUser names the program that has a port, as well as can be told. The kernel's
// lists leave something out now and then, while others open and close: they are read
// again.
func portUser(proto string, port int) string {
	for range 5 {
		if user := findPortUser(proto, port); user != "" {
			return user
		}
	}
	return " by another program"
}

func findPortUser(proto string, port int) string {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/thread-self/net/" + proto, "/proc/thread-self/net/" + proto + "6"} {
		b, err := os.ReadFile(file) //nolint:gosec // a path of the kernel's
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			// local address, remote address, state (0A is listening, 07 UDP's only one), …, inode
			if len(f) < 10 || (f[3] != "0A" && f[3] != "07") {
				continue
			}
			_, hexPort, _ := strings.Cut(f[1], ":")
			raw, err := hex.DecodeString(hexPort)
			if err == nil && len(raw) == 2 && int(raw[0])<<8|int(raw[1]) == port {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || !inodes[target] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(fd, "/")[2])
		if err != nil {
			continue
		}
		name, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		return fmt.Sprintf(" by %s (PID %d)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}
