package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/proc"
)

// traefikGroup tells Traefik's connections from all others of this machine, for a
// rule of the table. It needs no name, and gives Traefik, which is root, nothing.
const traefikGroup = 63210

// process is one Traefik process: what is kept of it on disk, so that the next
// Fairlead can take it over.
type process struct {
	proc.ID
	Generation int            `json:"generation"`
	Layout     layout         `json:"layout"`
	Ports      map[string]int `json:"ports"` // private port by entry point
	APIPort    int            `json:"api_port"`
	Program    string         `json:"program"`    // path
	ProgramID  string         `json:"program_id"` // changes with the file
	Version    string         `json:"version"`

	api    *api
	exited <-chan struct{} // closed when it has ended; nil until it was started or taken over
	born   time.Time       // zero when it was taken over
	shown  shown
}

func (p *process) dir(c Config) string {
	return filepath.Join(c.runDir(), "traefik-"+strconv.Itoa(p.Generation))
}

func (p *process) logFile(c Config) string {
	return filepath.Join(c.dataDir(), "traefik-"+strconv.Itoa(p.Generation)+".log")
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// prepare gives a Traefik for a layout its ports. Nothing is started yet.
func prepare(ctx context.Context, c Config, prog program, l layout, generation int, taken map[int]bool) (*process, error) {
	p := &process{
		Generation: generation, Layout: l, Ports: map[string]int{}, Program: prog.path, ProgramID: prog.id, Version: prog.version,
	}
	// Ports are taken round robin: a process never gets those of the one before.
	next := c.PrivateFrom + (generation*16)%(c.PrivateTo-c.PrivateFrom+1)
	for _, e := range append([]string{""}, l.Entries...) {
		proto, _ := c.public(e)
		port, err := freePort(ctx, c, proto, next, taken)
		if err != nil {
			return nil, err
		}
		taken[port] = true
		next = port + 1
		if e == "" {
			p.APIPort = port
		} else {
			p.Ports[e] = port
		}
	}
	return p, nil
}

// launch starts a prepared Traefik. The process is in its own session and writes
// to files: it needs nothing of this process to live on.
func (p *process) launch(c Config) error {
	l, dir := p.Layout, p.dir(c)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start Traefik: %w", err)
	}
	b, err := json.MarshalIndent(c.static(l.Entries, p.Ports, p.APIPort, l.Etcd, p.logFile(c)), "", "  ")
	if err != nil {
		return fmt.Errorf("write Traefik's static configuration: %w", err)
	}
	conf := filepath.Join(dir, "traefik.yaml")
	if err := atomicfile.Write(conf, append(b, '\n')); err != nil {
		return fmt.Errorf("write Traefik's static configuration: %w", err)
	}
	out, err := os.OpenFile(filepath.Join(dir, "output"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // a path of ours
	if err != nil {
		return fmt.Errorf("start Traefik: %w", err)
	}
	defer func() { _ = out.Close() }()
	// Not CommandContext: it is meant to outlive this process.
	cmd := exec.Command(p.Program, "--configFile="+conf) //nolint:gosec,noctx // the operator's program; it must outlive us
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	if os.Geteuid() == 0 { // as in each gateway; not in each test
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: traefikGroup, NoSetGroups: true}}
	}
	if p.ID, p.exited, err = proc.Start(cmd); err != nil {
		return fmt.Errorf("start Traefik: %w", err)
	}
	p.api = newAPI(p.APIPort)
	return nil
}

// adopt takes over a process that an earlier Fairlead started; false when it is gone.
func (p *process) adopt(ctx context.Context) bool {
	exited, ok := proc.Adopt(ctx, p.ID)
	if ok {
		p.exited, p.api = exited, newAPI(p.APIPort)
	}
	return ok
}

// strays finds Traefik processes that were started from our run directory, by
// their command line.
func strays(c Config, known []*process) []*process {
	prefix := "--configFile=" + filepath.Join(c.runDir(), "traefik-")
	found := proc.Find(func(args []string) bool { return len(args) > 1 && strings.HasPrefix(args[1], prefix) })
	var out []*process
	for _, f := range found {
		if !slices.ContainsFunc(known, func(p *process) bool { return p.PID == f.PID }) {
			gen, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(f.Args[1])), "traefik-"))
			out = append(out, &process{ID: f.ID, Generation: gen})
		}
	}
	return out
}

// stop ends the process: gently, then after grace by force. It returns once it is gone.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	if p.api != nil {
		defer p.api.close()
	}
	return proc.Stop(ctx, p.ID, p.exited, "Traefik", grace+2*time.Second)
}

// freePort finds a port that nothing listens on, from next on round the range.
func freePort(ctx context.Context, c Config, proto string, next int, taken map[int]bool) (int, error) {
	size := c.PrivateTo - c.PrivateFrom + 1
	for i := range size {
		port := c.PrivateFrom + (next-c.PrivateFrom+i)%size
		if !taken[port] && listens(ctx, proto, port) == nil {
			return port, nil
		}
	}
	return 0, cluster.Transientf("gateway: no free port from %d to %d", c.PrivateFrom, c.PrivateTo)
}

// listens tells whether a port can be listened on.
func listens(ctx context.Context, proto string, port int) error {
	addr := ":" + strconv.Itoa(port)
	var lc net.ListenConfig
	if proto == "udp" {
		pc, err := lc.ListenPacket(ctx, "udp", addr)
		if err != nil {
			return err
		}
		return pc.Close()
	}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// lastWords returns the last error in a process's log, for a message.
func lastWords(c Config, p *process) string {
	words := "its log has no error"
	for _, path := range []string{p.logFile(c), filepath.Join(p.dir(c), "output")} {
		b, err := os.ReadFile(path) //nolint:gosec // a path of ours
		if err != nil {
			continue
		}
		b = b[max(0, len(b)-64<<10):]
		for line := range bytes.Lines(b) {
			if bytes.Contains(line, []byte(" ERR ")) || bytes.Contains(line, []byte(" FTL ")) || bytes.HasPrefix(line, []byte("panic:")) {
				words = string(bytes.TrimSpace(line[:min(len(line), 500)]))
			}
		}
	}
	return words
}
