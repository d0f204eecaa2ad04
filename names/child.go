package names

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/dns"
	"github.com/fairlead/fairlead/proc"
)

// Command is the program's argument that asks for the process; the other is its
// directory.
const Command = "names"

// listenFD is where the process finds the socket that it is fed through.
const listenFD = 3

// record is what is kept of a process on disk, so that the next server finds it.
type record struct {
	proc.ID
	Generation int    `json:"generation"`
	Program    string `json:"program"` // changes with the file
}

func recordFile(dir string) string { return filepath.Join(dir, "process.json") }

func readRecord(dir string) (r record, ok bool) {
	b, err := os.ReadFile(recordFile(dir))
	return r, err == nil && json.Unmarshal(b, &r) == nil
}

func (r record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.Write(recordFile(dir), b)
}

// strays finds processes by their command line.
func strays(dir string) []proc.Found {
	return proc.Find(func(args []string) bool { return len(args) == 3 && args[1] == Command && args[2] == dir })
}

func logFile(dir string) string { return filepath.Join(dir, "log") }

// lastWords returns the end of what a process said.
func lastWords(dir string) string {
	b, err := os.ReadFile(logFile(dir))
	b = bytes.TrimSpace(b)
	if err != nil || len(b) == 0 {
		return "it said nothing"
	}
	if i := bytes.Index(b, []byte("panic:")); i >= 0 {
		b = b[i:min(len(b), i+300)]
	}
	line := b[bytes.LastIndexByte(b[:max(0, len(b)-1)], '\n')+1:]
	return string(line[:min(len(line), 300)])
}

// child is a process that answers names, as the server sees it.
type child struct {
	record
	now    func() time.Time
	exited <-chan struct{}
	born   time.Time // zero when it was taken over
	conn   *net.UnixConn
}

func (r record) socket(dir string) string {
	return filepath.Join(dir, strconv.Itoa(r.Generation)+".sock")
}

// start starts the program. The process is in its own session and writes to a
// file: it needs nothing of this process to live on.
func (c *child) start(dir, program string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	old, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, path := range old {
		if r, ok := readRecord(dir); !ok || path != r.socket(dir) {
			_ = os.Remove(path)
		}
	}
	// The socket is made here, so that it can be connected to at once.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.socket(dir), Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close() //nolint:errcheck // the process has a copy
	f, err := l.File()
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the process has a copy
	out, err := os.OpenFile(logFile(dir), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the process has a copy
	// Not CommandContext: it is meant to outlive this process.
	cmd := exec.Command(program) //nolint:noctx // this very program; it must outlive us
	cmd.Args = []string{"fairlead", Command, dir}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = dir, out, out, []*os.File{f}
	// Few questions a second and a small heap: memory is worth more than time here.
	cmd.Env = []string{"GOGC=50", "GOMAXPROCS=2"}
	if c.ID, c.exited, err = proc.Start(cmd); err != nil {
		return fmt.Errorf("start the process that answers names: %w", err)
	}
	return nil
}

func (c *child) connect(dir string) (err error) {
	c.conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: c.socket(dir), Net: "unix"})
	return err
}

func (c *child) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// answerWithin bounds one request; a start on a busy machine is in it.
const answerWithin = 15 * time.Second

// exchange has the process do one thing. An error is of the way there and back;
// what the process says is in the reply.
func (c *child) exchange(ctx context.Context, req request, socks []dns.Socket) (r reply, back []dns.Socket, err error) {
	if c.conn == nil {
		return r, nil, errors.New("it is not connected")
	}
	if err := c.conn.SetDeadline(c.now().Add(answerWithin)); err != nil {
		return r, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req.Given = addrs(socks)
	if err := send(c.conn, req, socks); err != nil {
		return r, nil, err
	}
	fds, err := receive(c.conn, &r)
	if err != nil {
		return r, nil, err
	}
	back, err = sockets(r.Given, fds)
	return r, back, err
}

// ask is an exchange that must go well and brings nothing back.
func (c *child) ask(ctx context.Context, req request, socks []dns.Socket) error {
	r, _, err := c.exchange(ctx, req, socks)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return err
}
