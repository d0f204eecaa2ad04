package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Engine renders templates. Where nobody knows what they are, it is a Renderer.
type Engine interface {
	Render(ctx context.Context, r Request) (*Rendered, error)
}

// Renderer renders in a process of its own: a template can loop without calling
// anything, and nothing but the end of its process ends it.
type Renderer struct {
	// Command is a program that calls Serve, with its arguments.
	Command []string
	Timeout time.Duration // 0: RenderTimeout
	Memory  uint64        // bytes; 0: 1 GiB
	Output  int64         // bytes; 0: 32 MiB
}

// RenderTimeout is how long templates may take.
const RenderTimeout = 30 * time.Second

const (
	renderMemory = 1 << 30
	renderOutput = 32 << 20
)

func (r Renderer) bounded() Renderer {
	if r.Timeout <= 0 {
		r.Timeout = RenderTimeout
	}
	if r.Memory == 0 {
		r.Memory = renderMemory
	}
	if r.Output <= 0 {
		r.Output = renderOutput
	}
	return r
}

// task is what the process is told, answer what it says.
type task struct {
	Request Request `json:"request"`
	Memory  uint64  `json:"memory"`
	Output  int64   `json:"output"`
}

type answer struct {
	Rendered *Rendered `json:"rendered,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Render renders a chart, within bounds. Errors are of KindInvalid where the chart
// or the values are why.
func (r Renderer) Render(ctx context.Context, req Request) (*Rendered, error) {
	r = r.bounded()
	in, err := json.Marshal(task{Request: req, Memory: r.Memory, Output: r.Output})
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, NotDone(r.Timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...) //nolint:gosec // this program itself
	cmd.Env = []string{}                                            // templates have no env function, and shall have nothing to find
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = time.Second
	out := &capped{most: int(r.Output)*6 + 1<<20} // a byte is up to six as JSON
	said := &capped{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var a answer
	if jerr := json.Unmarshal(out.buf.Bytes(), &a); err == nil && jerr == nil && !out.full {
		if a.Error != "" {
			return nil, cluster.Invalidf("%s", a.Error)
		}
		if a.Rendered != nil {
			return a.Rendered, nil
		}
	}
	if out.full {
		return nil, tooMuch(r.Output)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(said.buf.String()), "\n")
	return nil, cluster.Invalidf("the templates ended the program that renders them (%v): %s", err, first)
}

// Unrepeated is what Helm's engine says went wrong, with each call of a template once. One
// that includes itself is told of a thousand times, and the reason at the end alone.
func Unrepeated(text string) string {
	const call = "error calling include: "
	seen := map[string]bool{}
	return strings.Join(slices.DeleteFunc(strings.Split(text, call), func(c string) bool {
		again := seen[c]
		seen[c] = true
		return again
	}), call)
}

// NotDone says that templates took too long.
func NotDone(after time.Duration) error {
	return cluster.Invalidf("the templates were not done after %s: do they loop?", after)
}

func tooMuch(bytes int64) error {
	return cluster.Invalidf("the templates make more than %d MiB", bytes>>20)
}

// capped keeps so much of what is written to it. It is no bytes.Buffer itself: that
// would be read into, past Write.
type capped struct {
	buf  bytes.Buffer
	most int
	full bool
}

func (c *capped) Write(p []byte) (int, error) {
	if c.buf.Len()+len(p) > c.most {
		c.full = true
		return 0, errors.New("too much output")
	}
	return c.buf.Write(p)
}

// Serve is the process of a Renderer: it reads one task from in, and answers on out.
// exit ends it when memory is used up, which no template can be told.
func Serve(ctx context.Context, in io.Reader, out io.Writer, exit func(code int)) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	var once sync.Mutex // one answer
	say := func(a answer) error {
		once.Lock() // and never unlocked: the first answer is the only one
		return json.NewEncoder(out).Encode(a)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watchMemory(ctx, t.Memory, func() {
		if once.TryLock() {
			_ = json.NewEncoder(out).Encode(answer{Error: tooLarge(t.Memory)})
			exit(0)
		}
	})
	warnings := listen()
	r, err := Render(ctx, t.Request)
	switch {
	case err != nil:
		return say(answer{Error: Unrepeated(err.Error())})
	case peak() > t.Memory: // and gone again between two looks
		return say(answer{Error: tooLarge(t.Memory)})
	case size(r) > t.Output:
		return say(answer{Error: tooMuch(t.Output).Error()})
	}
	r.Warnings = warnings()
	return say(answer{Rendered: r})
}

func tooLarge(most uint64) string {
	return fmt.Sprintf("the templates need more than %d MiB of memory: do they loop?", most>>20)
}

// peak is the most memory in bytes that this process has had, but for its program's; 0
// where the system does not say.
func peak() uint64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	kb := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err == nil {
			kb[name] = n
		}
	}
	return (max(kb["VmHWM"], kb["RssFile"]) - kb["RssFile"]) << 10
}

func size(r *Rendered) (n int64) {
	for _, s := range r.Files {
		n += int64(len(s))
	}
	return n
}

// watchMemory calls over when the process uses more than most bytes.
func watchMemory(ctx context.Context, most uint64, over func()) {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if sample[0].Value.Uint64()-sample[1].Value.Uint64() > most {
			over()
			return
		}
	}
}

// listen collects what Helm's library logs, which it does to nobody in particular.
func listen() func() []string {
	var l lines
	slog.SetDefault(slog.New(slog.NewTextHandler(&l, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})))
	log.SetFlags(0) // after slog, which took it over
	log.SetOutput(&l)
	return l.list
}

type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < 100 {
		l.all = append(l.all, strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}
