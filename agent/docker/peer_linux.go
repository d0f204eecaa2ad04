package docker

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// peerStarted returns when the process at the other end of a unix socket was
// started. Under socket activation that is init, and the answer is the boot.
func peerStarted(conn net.Conn) time.Time {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return time.Time{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return time.Time{}
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return time.Time{}
	}
	pid := int(cred.Pid)
	if pid <= 1 {
		if b, err := os.ReadFile("/run/docker.pid"); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				pid = n
			}
		}
	}
	return processStarted(pid)
}

// processStarted reads a process's start from /proc, good to a hundredth of a second.
func processStarted(pid int) time.Time {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return time.Time{}
	}
	i := bytes.LastIndexByte(stat, ')') // the name may hold anything
	f := strings.Fields(string(stat[i+1:]))
	const startTime = 19 // field 22 of stat, counted from the one after the name
	if i < 0 || len(f) <= startTime {
		return time.Time{}
	}
	ticks, err := strconv.ParseInt(f[startTime], 10, 64)
	if err != nil {
		return time.Time{}
	}
	const perSecond = 100 // USER_HZ is 100 on every Linux that Go runs on
	return booted().Add(time.Duration(ticks) * time.Second / perSecond)
}

// booted returns when this machine was booted, by its wall clock. The kernel's
// own btime has whole seconds: an engine that is killed and started again within
// one would seem older than the containers that ended with it.
func booted() time.Time {
	var now, up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &now) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return time.Time{}
	}
	return time.Unix(now.Unix()).Add(-time.Duration(up.Nano()))
}
