package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	// Fields 12 to 15 after the name are utime, stime, cutime and cstime.
	for _, s := range f[11 : 11+fields] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 on every Linux
}

// stat are the fields of /proc/PID/stat after the name, which may hold blanks.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	return f, nil
}

// familyMemory is the private memory of a process and of all that it started, but Traefik.
func familyMemory(pid int) (private float64, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	children := map[int][]int{}
	for _, d := range dirs {
		child, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		f, err := stat(child)
		if err != nil {
			continue // it has ended
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	if private, _, err = memory(pid); err != nil {
		return 0, err
	}
	for todo := children[pid]; len(todo) > 0; todo = todo[1:] {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", todo[0]))
		if err != nil || strings.HasPrefix(string(name), "traefik") {
			continue
		}
		if p, _, err := memory(todo[0]); err == nil { // else it has ended
			private += p
		}
		todo = append(todo, children[todo[0]]...)
	}
	return private, nil
}
