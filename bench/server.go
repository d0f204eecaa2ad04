package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// settle is how long a server is left alone before its memory is read.
const settle = 20 * time.Second

// MB are 10⁶ bytes in every figure.
const mb = 1e6

func measureBinary(ctx context.Context, b *bench) error {
	path, err := b.binary(ctx)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	b.set("binary_mb", float64(st.Size())/mb)
	return nil
}

// measureIdle reads the memory and the processor time of a server that has nothing to do.
func measureIdle(ctx context.Context, b *bench) error {
	return b.with(ctx, func(n *node) error {
		if err := pause(ctx, settle); err != nil {
			return err
		}
		const window = 30 * time.Second
		before, err := cpuTime(n.pid())
		if err != nil {
			return err
		}
		began := time.Now()
		if err := pause(ctx, window); err != nil {
			return err
		}
		after, err := cpuTime(n.pid())
		if err != nil {
			return err
		}
		b.set("server_idle_cpu_percent", 100*(after-before).Seconds()/time.Since(began).Seconds())
		private, resident, err := memory(n.pid())
		if err != nil {
			return err
		}
		b.set("server_rss_mb", private)
		b.set("server_vmrss_mb", resident)
		return nil
	})
}

// memory is what a process has for itself (RssAnon and RssShmem), and all that is
// resident, in MB.
func memory(pid int) (private, resident float64, err error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	var kb [3]float64
	for i, name := range []string{"RssAnon", "RssShmem", "VmRSS"} {
		if kb[i], err = procField(path, name); err != nil {
			return 0, 0, err
		}
	}
	return (kb[0] + kb[1]) * 1024 / mb, kb[2] * 1024 / mb, nil
}

// cpuTime is the processor time that a process has used, familyTime that of its ended
// children too.
func cpuTime(pid int) (time.Duration, error)    { return used(pid, 2) }
func familyTime(pid int) (time.Duration, error) { return used(pid, 4) }

func used(pid, fields int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// After the name, which may hold blanks, fields 12 to 15 are utime, stime, cutime and cstime.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	var ticks int64
	for _, s := range f[11 : 11+fields] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 on every Linux
}
