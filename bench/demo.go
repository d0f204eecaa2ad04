package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const demoData = "/var/lib/fairlead-demo" // as scripts/demo has it

// measureDemo times scripts/demo with what it needs built before, and on demand
// with nothing but Go, Docker and the machine's packages there.
func measureDemo(ctx context.Context, b *bench) error {
	if _, err := os.Stat(demoData); err == nil {
		return errors.New("the demo runs here; make demo-down first")
	}
	if b.demoCold {
		empty := filepath.Join(b.dir, "empty")
		defer func() { _ = os.RemoveAll(empty) }()
		took, err := b.demo(ctx,
			"XDG_CACHE_HOME="+filepath.Join(empty, "cache"), "GOCACHE="+filepath.Join(empty, "build"),
			"GOMODCACHE="+filepath.Join(empty, "mod"), "GOFLAGS=-modcacherw", "FAIRLEAD_TRAEFIK=", "PATH="+pathWithout("traefik"))
		if err != nil {
			return err
		}
		b.set("demo_cold_s", took.Seconds())
	}
	if _, err := b.demo(ctx); err != nil { // fills the caches
		return err
	}
	took, err := b.demo(ctx)
	if err != nil {
		return err
	}
	b.set("demo_warm_s", took.Seconds())
	return nil
}

// demo starts the demo, returns how long that took, and removes it.
func (b *bench) demo(ctx context.Context, env ...string) (time.Duration, error) {
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if out, err := b.script(ctx, "down", env).CombinedOutput(); err != nil {
			b.say("  scripts/demo down: %v\n%s", err, out)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 40*time.Minute)
	defer cancel()
	log, err := os.Create(filepath.Join(b.dir, "demo.log"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }()
	cmd := b.script(ctx, "up", env)
	cmd.Stdout, cmd.Stderr = log, log // a file: the server that stays must not hold a pipe open
	began := time.Now()
	if err := cmd.Run(); err != nil {
		out, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("scripts/demo up: %w\n%s", err, out)
	}
	return time.Since(began), nil
}

func (b *bench) script(ctx context.Context, what string, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.root, "scripts", "demo"), what)
	cmd.Dir = b.root
	cmd.Env = append(append(os.Environ(), "YES=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// pathWithout is PATH without the folders that hold a program.
func pathWithout(program string) string {
	dirs := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, program))
		return err == nil
	})
	return strings.Join(dirs, string(filepath.ListSeparator))
}
