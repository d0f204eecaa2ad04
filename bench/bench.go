package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is what the groups share in one run.
type bench struct {
	options
	root     string // of the repository
	dir      string // everything made is in here or carries its name
	machine  string // on which it is measured
	measured map[string]float64
	image    string // of the test application, once built
	engine   *engine
	left     []error // what could not be removed
}

const dirPrefix = "fairlead-bench-"

func newBench(o options) (*bench, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output() //nolint:noctx // at once
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	b := &bench{options: o, root: strings.TrimSpace(string(out)), engine: newEngine()}
	b.machine = machine(b.engine.version())
	sweep()
	if b.dir, err = os.MkdirTemp("", dirPrefix+strconv.Itoa(os.Getpid())+"-"); err != nil {
		return nil, err
	}
	return b, nil
}

// close removes what was made outside the groups.
func (b *bench) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if b.image != "" {
		_ = exec.CommandContext(ctx, "docker", "rmi", "-f", b.image).Run()
	}
	if len(b.left) == 0 {
		_ = os.RemoveAll(b.dir)
	}
}

// sweep removes what a run that was killed left behind.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if n, err := strconv.Atoi(pid); err != nil || syscall.Kill(n, 0) == nil {
			continue
		}
		left, _ := filepath.Glob(filepath.Join(dir, "n*", "data"))
		var err error
		for _, data := range left {
			n := &node{bin: filepath.Join(dir, "fairlead"), dir: filepath.Dir(data)}
			err = errors.Join(err, n.uninstall())
		}
		if err != nil { // its data is what a further attempt needs
			fmt.Fprintf(os.Stderr, "warning: left by an earlier run in %s: %v\n", dir, err)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		err = newEngine().clean(ctx, filepath.Base(dir))
		_ = exec.CommandContext(ctx, "docker", "rmi", "-f", imageOf(dir)).Run()
		cancel()
		if err != nil {
			fmt.Fprintf(os.Stderr, "warning: left by an earlier run in %s: %v\n", dir, err)
			continue
		}
		_ = os.RemoveAll(dir)
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Printf("%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// set keeps a figure with three digits after the point: more is noise.
func (b *bench) set(key string, v float64) {
	v = math.Round(v*1000) / 1000
	b.measured[key] = v
	b.say("  %s = %v", key, v)
}

// binary builds the program as releases are built, once a run.
func (b *bench) binary(ctx context.Context) (string, error) {
	path := filepath.Join(b.dir, "fairlead")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, b.build(ctx, path, "./cmd/fairlead")
}

func (b *bench) build(ctx context.Context, to, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

func imageOf(dir string) string { return "fairlead-bench:" + filepath.Base(dir) }

// app builds the image of the test application, once a run.
func (b *bench) app(ctx context.Context) (string, error) {
	if b.image != "" {
		return b.image, nil
	}
	dir := filepath.Join(b.dir, "image")
	dockerfile := "FROM scratch\nCOPY app /app\nEXPOSE 8080\nENTRYPOINT [\"/app\"]\n"
	err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600))
	if err != nil {
		return "", err
	}
	if err := b.build(ctx, filepath.Join(dir, "app"), "./integration/e2e/app"); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "docker", "build", "-q", "-t", imageOf(b.dir), dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("docker build: %w\n%s", err, out)
	}
	b.image = imageOf(b.dir)
	return b.image, nil
}

// machine says where figures are measured, and how busy it was before.
func machine(engine string) string {
	model, mem, kernel := "unknown processor", "", ""
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if k, v, _ := strings.Cut(l, ":"); strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	if kb, err := procField("/proc/meminfo", "MemTotal"); err == nil {
		mem = fmt.Sprintf(", %.0f GiB", kb/(1<<20))
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		major := strings.SplitN(strings.TrimSpace(string(b)), ".", 3)
		kernel = ", Linux " + strings.Join(major[:min(2, len(major))], ".")
	}
	return fmt.Sprintf("%d × %s%s%s, Docker %s; load before: %s", runtime.NumCPU(), model, mem, kernel, engine, loadAverage())
}

// loadAverage is the number of runnable threads, averaged over one and five minutes.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	return strings.Join(f[:min(2, len(f))], ", ")
}

// procField reads "Name:  123 kB" from a file of /proc.
func procField(path, name string) (float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, name+":"); ok {
			return strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// quantile is the smallest value that at least q of all values do not exceed.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// median is the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	switch n := len(s); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return s[n/2]
	default:
		return (s[n/2-1] + s[n/2]) / 2
	}
}

// pause waits, or returns why it cannot.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
