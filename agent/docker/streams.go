package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/fairlead/fairlead/cluster"
)

// Logs calls emit with the lines of a container's log, oldest first. With
// Follow it ends when the container does.
func (e *Engine) Logs(ctx context.Context, id string, tty bool, o cluster.LogOptions, emit func(cluster.LogLine) error) error {
	opts := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: o.Follow, Tail: "all"}
	if o.Tail >= 0 {
		opts.Tail = strconv.Itoa(o.Tail)
	}
	if !o.Since.IsZero() {
		opts.Since = o.Since.Format(time.RFC3339Nano)
	}
	body, err := e.cli.ContainerLogs(ctx, id, opts)
	if err != nil {
		return kind(err)
	}
	defer func() { _ = body.Close() }()
	out, errw := &lines{stream: "stdout", emit: emit}, &lines{stream: "stderr", emit: emit}
	if tty {
		_, err = io.Copy(out, body)
	} else {
		_, err = stdcopy.StdCopy(out, errw, body)
	}
	if ferr := errors.Join(out.flush(), errw.flush()); ferr != nil {
		return ferr
	}
	if out.err != nil || errw.err != nil {
		return errors.Join(out.err, errw.err) // the reader's own, not the engine's
	}
	return kind(err)
}

// lines cuts what is written to it into log lines.
type lines struct {
	stream string
	emit   func(cluster.LogLine) error
	buf    []byte
	err    error
}

// maxLine bounds a line without end, so that a program cannot fill memory.
const maxLine = 1 << 20

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.buf = append(l.buf, p...)
			if len(l.buf) > maxLine {
				if err := l.flush(); err != nil {
					return 0, err
				}
			}
			break
		}
		l.buf = append(l.buf, p[:i]...)
		p = p[i+1:]
		if err := l.line(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (l *lines) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	return l.line()
}

func (l *lines) line() error {
	text := strings.TrimSuffix(string(l.buf), "\r")
	l.buf = l.buf[:0]
	out := cluster.LogLine{Stream: l.stream, Text: text}
	if stamp, rest, ok := strings.Cut(text, " "); ok || stamp != "" {
		if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			out.Time, out.Text = t, rest
		}
	}
	if err := l.emit(out); err != nil {
		l.err = err
		return err
	}
	return nil
}

// Exec is a command to run in a container.
type Exec struct {
	cluster.ExecOptions
	In       io.Reader // nil: none
	Out, Err io.Writer
	// Resize carries the terminal's width and height.
	Resize <-chan [2]uint
}

// Exec runs a command in a container and returns its exit code.
func (e *Engine) Exec(ctx context.Context, id string, x Exec) (int, error) {
	env := make([]string, 0, len(x.Env))
	for _, k := range slices.Sorted(maps.Keys(x.Env)) {
		env = append(env, k+"="+x.Env[k])
	}
	size := &[2]uint{x.Height, x.Width}
	if !x.TTY || x.Height == 0 || x.Width == 0 {
		size = nil
	}
	r, err := e.cli.ContainerExecCreate(ctx, id, container.ExecOptions{
		User: x.User, Tty: x.TTY, ConsoleSize: size, AttachStdin: x.Stdin && x.In != nil, AttachStdout: true,
		AttachStderr: true, Env: env, WorkingDir: x.WorkingDir, Cmd: x.Command,
	})
	if err != nil {
		return 0, kind(err)
	}
	conn, err := e.cli.ContainerExecAttach(ctx, r.ID, container.ExecAttachOptions{Tty: x.TTY, ConsoleSize: size})
	if err != nil {
		return 0, kind(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, conn.Close) // reads from the connection know no context
	defer stop()
	if x.TTY {
		go e.resize(ctx, r.ID, size, x.Resize)
	}
	if x.Stdin && x.In != nil {
		go func() {
			_, _ = io.Copy(conn.Conn, x.In)
			_ = conn.CloseWrite()
		}()
	}
	if x.TTY {
		_, err = io.Copy(x.Out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(x.Out, x.Err, conn.Reader)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, kind(err)
	}
	res, err := e.cli.ContainerExecInspect(ctx, r.ID)
	return res.ExitCode, kind(err)
}

func (e *Engine) resize(ctx context.Context, exec string, first *[2]uint, sizes <-chan [2]uint) {
	if first != nil {
		// Engines before API 1.42 do not take the size when the command is made.
		_ = e.cli.ContainerExecResize(ctx, exec, container.ResizeOptions{Height: first[0], Width: first[1]})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			_ = e.cli.ContainerExecResize(ctx, exec, container.ResizeOptions{Width: s[0], Height: s[1]})
		}
	}
}

// CopyTo unpacks a tar stream into a directory of a container.
func (e *Engine) CopyTo(ctx context.Context, id, dir string, tar io.Reader) error {
	// Asked before anything is read: the engine would answer while it still reads.
	if err := e.notInMemory(ctx, id, dir); err != nil {
		return err
	}
	st, err := e.cli.ContainerStatPath(ctx, id, dir)
	if err == nil && !st.Mode.IsDir() && st.LinkTarget == "" {
		return cluster.Invalidf("%s in the container is not a directory", dir)
	}
	if cerrdefs.IsNotFound(err) {
		return cluster.NotFoundf("there is no %s in the container", dir)
	}
	if err != nil {
		return kind(err)
	}
	return pathKind(e.cli.CopyToContainer(ctx, id, dir, tar, container.CopyToContainerOptions{}), dir)
}

// CopyFrom returns a file or directory of a container as a tar stream.
func (e *Engine) CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, error) {
	if err := e.notInMemory(ctx, id, path); err != nil {
		return nil, err
	}
	r, _, err := e.cli.CopyFromContainer(ctx, id, path)
	return r, pathKind(err, path)
}

// notInMemory refuses paths on a tmpfs of the container: the engine copies to and
// from what lies below it, and says nothing.
func (e *Engine) notInMemory(ctx context.Context, id, p string) error {
	r, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return kind(err)
	}
	if r.ContainerJSONBase == nil || r.HostConfig == nil {
		return nil
	}
	if at := tmpfsOf(r.HostConfig, p); at != "" {
		return cluster.Invalidf("%s in the container is in memory (tmpfs at %s), where files cannot be copied: use `fairlead exec`", p, at)
	}
	return nil
}

// tmpfsOf returns the tmpfs that a path of a container is on; "" when on none.
func tmpfsOf(h *container.HostConfig, p string) string {
	targets := slices.Collect(maps.Keys(h.Tmpfs))
	for _, m := range h.Mounts {
		if m.Type == mount.TypeTmpfs {
			targets = append(targets, m.Target)
		}
	}
	p = path.Clean("/" + p)
	found, other := "", 0 // a mount within a tmpfs is none again
	for _, m := range h.Mounts {
		if t := path.Clean(m.Target); m.Type != mount.TypeTmpfs && (p == t || strings.HasPrefix(p, t+"/")) {
			other = max(other, len(t))
		}
	}
	for _, t := range targets {
		if t = path.Clean(t); (p == t || strings.HasPrefix(p, t+"/")) && len(t) > max(len(found), other) {
			found = t
		}
	}
	return found
}

// pathKind says in words for people that a path in the container is not there, or
// is no directory; the engine names the container by its ID.
func pathKind(err error, path string) error {
	switch {
	case err == nil:
		return nil
	case cerrdefs.IsNotFound(err) && strings.Contains(err.Error(), "Could not find the file"):
		return cluster.NotFoundf("there is no %s in the container", path)
	case strings.Contains(err.Error(), "not a directory"):
		return cluster.Invalidf("%s in the container is not a directory", path)
	}
	return kind(err)
}
