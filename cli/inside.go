package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func (a *app) logsCommand() *cobra.Command {
	var follow, timestamps bool
	var tail, since string
	c := &cobra.Command{
		Use: "logs [APP | ADDRESS]", Short: "Print what the tasks of an app, a service or a slot have written",
		Long: `Prints what the containers there have written. Where there is no container any
more, of a job that is done or a task that failed, it prints the last lines that
were kept of it, and says so on standard error.

With -f it goes on, without a line lost or repeated, when the server that it asks
restarts or dies: through another one, where the context knows several, or the
same. It ends when what it follows is removed.`,
		Example:           "  fairlead logs -f web\n  fairlead logs shop/web.2 --tail 50\n  fairlead logs --since 10m   # the whole app here",
		Args:              rangeArgs(0, 1, ""),
		ValidArgsFunction: a.withTasks(1, a.completeTargets(1)),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			lines, err := lastLines(tail)
			if err != nil {
				return err
			}
			from, err := sinceTime(since, a.now())
			if err != nil {
				return err
			}
			addr, err := a.appOrAddress(cmd.Context(), cl, args)
			if err != nil {
				return err
			}
			if err := slotExists(cmd.Context(), cl, addr); err != nil {
				return err
			}
			return a.logs(cmd.Context(), cl, addr, cluster.LogOptions{Follow: follow, Timestamps: timestamps, Tail: lines, Since: from})
		}),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes, also from new tasks")
	c.Flags().BoolVarP(&timestamps, "timestamps", "t", false, "show when each line was written")
	c.Flags().BoolVar(&a.bareLogs, "no-log-prefix", false, "print the lines alone, without the task's name before each")
	c.Flags().StringVarP(&tail, "tail", "n", "all", "begin with the last `lines` of each task; all, or -1, is all")
	c.Flags().StringVar(&since, "since", "", "only lines from this `time` on: 10m, 36h or 2d ago, or a date such as 2024-01-31T08:00")
	return c
}

// logs prints what the containers at an address have written, and of those that
// are gone what their tasks' statuses kept.
func (a *app) logs(ctx context.Context, cl *client.Client, addr cluster.Address, o cluster.LogOptions) error {
	heard := map[cluster.TaskID]bool{}
	if o.Follow {
		if _, err := a.lastWords(ctx, cl, addr, o, heard); err != nil {
			return err
		}
	}
	broken := func(err error) { a.note("%v; going on where it was as soon as a server answers", err) }
	err := cl.Logs(ctx, addr, client.LogQuery{LogOptions: o, Broken: broken}, func(l cluster.LogLine) error {
		heard[l.Task] = true
		return a.logLine(l, o.Timestamps)
	})
	if o.Follow && ctx.Err() != nil {
		return nil // the user has seen enough
	}
	if o.Follow && err == nil && a.human() {
		a.note("%s was removed: its log ends", strings.TrimSuffix(addr.String(), "/"))
	}
	if err != nil || o.Follow {
		return err
	}
	said, err := a.lastWords(ctx, cl, addr, o, heard)
	if err == nil && !said && len(heard) == 0 && a.human() {
		a.note("nothing is there to print; `fairlead ps %s -a` says what runs and what has ended", addr.App)
	}
	return err
}

func (a *app) logLine(l cluster.LogLine, timestamps bool) error {
	switch a.output {
	case formatYAML:
		if _, err := io.WriteString(a.out, "---\n"); err != nil {
			return err
		}
		return a.print(l, nil)
	case formatJSON:
		return json.NewEncoder(a.out).Encode(l) // an object a line
	}
	name := string(l.Task)
	if i := strings.LastIndex(name, "."); i > 0 {
		name = name[:i] // app_service.slot
	}
	if f, ok := a.out.(*os.File); ok && isTerminal(f) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(name))
		name = fmt.Sprintf("\x1b[%dm%s\x1b[0m", 31+h.Sum32()%6, name)
	}
	stamp := ""
	if timestamps && !l.Time.IsZero() {
		stamp = l.Time.Format(time.RFC3339Nano) + " "
	}
	if name += " | "; a.bareLogs {
		name = ""
	}
	_, err := fmt.Fprintf(a.out, "%s%s%s\n", name, stamp, l.Text)
	return err
}

func (a *app) execCommand() *cobra.Command {
	var opts cluster.ExecOptions
	var stdin bool
	var env []string
	c := &cobra.Command{
		Use: "exec ADDRESS -- COMMAND [ARG...]", Short: "Run a command in a task's container",
		Long:              "Runs a command in a container of the service: in the named slot, else in one that runs. Exits\nwith the command's exit code.",
		Example:           "  fairlead exec -it shop/web.2 -- sh\n  echo 'select 1' | fairlead exec -i db -- psql -U postgres",
		Args:              rangeArgs(2, -1, "ADDRESS and COMMAND"),
		ValidArgsFunction: a.withTasks(1, a.completeServices(1)),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			addr, err := a.address(args[0])
			if err != nil {
				return err
			}
			opts.Command, opts.Env = args[1:], map[string]string{}
			if opts.Command[0] == "--" {
				opts.Command = opts.Command[1:]
			}
			if len(opts.Command) == 0 {
				return usagef("COMMAND is missing. Usage: %s", cmd.UseLine())
			}
			for _, e := range env {
				k, v, ok := strings.Cut(e, "=")
				if !ok || k == "" {
					return usagef("-e %q: write NAME=VALUE", e)
				}
				opts.Env[k] = v
			}
			code, err := a.exec(cmd.Context(), cl, addr, opts, stdin)
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		}),
	}
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVarP(&stdin, "interactive", "i", false, "pass standard input on")
	c.Flags().BoolVarP(&opts.TTY, "tty", "t", false, "give the command a terminal")
	c.Flags().StringVarP(&opts.User, "user", "u", "", "user to run it as")
	c.Flags().StringVarP(&opts.WorkingDir, "workdir", "w", "", "directory to run it in")
	c.Flags().StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE for the command")
	return c
}

func (a *app) exec(ctx context.Context, cl *client.Client, addr cluster.Address, opts cluster.ExecOptions, stdin bool) (int, error) {
	s := client.ExecStreams{Stdout: a.out, Stderr: a.errw}
	if stdin {
		s.Stdin = a.in
	}
	if opts.TTY {
		f, ok := a.in.(*os.File)
		if !ok || !isTerminal(f) {
			return 0, usagef("-t needs a terminal; leave it out in scripts")
		}
		fd := int(f.Fd())
		if w, h, err := term.GetSize(fd); err == nil {
			opts.Width, opts.Height = uint(w), uint(h)
		}
		old, err := term.MakeRaw(fd)
		if err != nil {
			return 0, err
		}
		defer term.Restore(fd, old) //nolint:errcheck // nothing better to do with it
		rctx, stop := context.WithCancel(ctx)
		defer stop()
		s.Resize = sizes(rctx, fd)
	}
	return cl.Exec(ctx, addr, opts, s)
}

// sizes delivers the terminal's size whenever it changes.
func sizes(ctx context.Context, fd int) <-chan [2]uint {
	out := make(chan [2]uint)
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, syscall.SIGWINCH)
	go func() {
		defer signal.Stop(winch)
		for {
			select {
			case <-ctx.Done():
				return
			case <-winch:
				w, h, err := term.GetSize(fd)
				if err != nil {
					continue
				}
				select {
				case out <- [2]uint{uint(w), uint(h)}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (a *app) portForwardCommand() *cobra.Command {
	var bind string
	c := &cobra.Command{
		Use: "port-forward ADDRESS [LOCAL:]PORT...", Short: "Make ports of a task reachable on this machine",
		Long: `Listens on a port of this machine for each port of the task: on one of the same
number, on LOCAL, or with nothing before the colon on one that is free, and says
which.`,
		Example:           "  fairlead port-forward shop/db 15432:5432\n  fairlead port-forward shop/db :5432   # a free port here",
		Args:              rangeArgs(2, -1, "ADDRESS and PORT"),
		ValidArgsFunction: a.withTasks(1, a.completeServices(1)),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			addr, err := a.address(args[0])
			if err != nil {
				return err
			}
			var pairs []pair
			for _, p := range args[1:] {
				one, err := portPair(p)
				if err != nil {
					return err
				}
				pairs = append(pairs, one)
			}
			// Better said now than when the first program connects.
			if _, err := cl.Service(cmd.Context(), cluster.ServiceID{App: addr.App, Name: addr.Service}); err != nil {
				return err
			}
			if err := slotExists(cmd.Context(), cl, addr); err != nil {
				return err
			}
			ctx, cancel := context.WithCancelCause(cmd.Context())
			defer cancel(nil)
			for _, p := range pairs {
				var lc net.ListenConfig
				l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(bind, p.local))
				if err != nil {
					return failedf("listen on port %s here: %w; name another one: LOCAL:%d", p.local, errors.Unwrap(err), p.remote)
				}
				a.note("%s → %s port %d", l.Addr(), addr, p.remote)
				go func() { cancel(a.forward(ctx, l, cl, addr, p.remote)) }()
			}
			<-ctx.Done()
			if cmd.Context().Err() != nil {
				return nil
			}
			return context.Cause(ctx)
		}),
	}
	c.Flags().StringVar(&bind, "address", "127.0.0.1", "address to listen on here")
	return c
}

// pair is a port here and one of the task. The local one may be 0: any.
type pair struct {
	local  string
	remote int
}

func portPair(p string) (pair, error) {
	local, r, ok := strings.Cut(p, ":")
	if !ok {
		local, r = p, p
	} else if local == "" {
		local = "0"
	}
	remote, err := strconv.Atoi(r)
	l, lerr := strconv.Atoi(local)
	if err != nil || lerr != nil || remote < 1 || remote > 65535 || l < 0 || l > 65535 {
		return pair{}, usagef("%q: write PORT, LOCAL:PORT such as 15432:5432, or :PORT for any free one here", p)
	}
	return pair{local, remote}, nil
}

func (a *app) forward(ctx context.Context, l net.Listener, cl *client.Client, addr cluster.Address, port int) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close() //nolint:errcheck // its end is all there is to it
			remote, err := cl.Dial(ctx, addr, port)
			if err != nil {
				a.note("%s port %d: %v", addr, port, err)
				return
			}
			defer remote.Close() //nolint:errcheck // its end is all there is to it
			pipe(conn, remote)
		}()
	}
}

// pipe copies both ways, and passes the end of one side on to the other.
func pipe(x, y net.Conn) {
	done := make(chan struct{}, 2)
	one := func(dst, src net.Conn) {
		_, _ = io.Copy(dst, src)
		if c, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		done <- struct{}{}
	}
	go one(x, y)
	go one(y, x)
	<-done
	<-done
}

// remotePath splits ADDRESS:PATH. What starts with a slash or a dot is a path
// here, whatever follows.
func remotePath(s string) (address, path string, remote bool) {
	if s == "" || s[0] == '/' || s[0] == '.' {
		return "", s, false
	}
	return strings.Cut(s, ":")
}

// copyInto copies below a directory of a container or, when there is none of that
// name, to that name, as docker cp does.
func copyInto(ctx context.Context, cl *client.Client, from string, to cluster.Address, dir string) error {
	send := func(dir, name string) error {
		tar, err := pack(from, name)
		if errors.Is(err, os.ErrNotExist) {
			return usagef("there is no %s here", from)
		}
		if err != nil {
			return err
		}
		return errors.Join(cl.CopyTo(ctx, to, dir, tar), tar.Close())
	}
	err := send(dir, "")
	kind := cluster.KindOf(err)
	if kind != cluster.KindNotFound && kind != cluster.KindInvalid || strings.HasSuffix(dir, "/") || !path.IsAbs(dir) {
		return err
	}
	if again := send(path.Dir(dir), path.Base(dir)); again == nil {
		return nil
	}
	return err
}

// stream is what cp takes for standard input or output in place of a path.
const stream = "-"

func (a *app) cpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cp FROM TO", Short: "Copy files into or out of a container",
		Long:              "One of FROM and TO is ADDRESS:PATH. A directory is copied with all that is in it; where TO is\none, into it, else to that name. TO - is a tar on standard output, FROM - one on standard input that\nis unpacked below the directory TO; ./- is a file of that name.",
		Example:           "  fairlead cp shop/db:/var/lib/postgresql/data/postgresql.conf .\n  fairlead cp ./seed.sql shop/db:/tmp\n  fairlead cp shop/db:/etc - | tar t",
		Args:              rangeArgs(2, 2, "FROM and TO"),
		ValidArgsFunction: a.completeCopy(),
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			from, fromPath, fromRemote := remotePath(args[0])
			to, toPath, toRemote := remotePath(args[1])
			if fromRemote == toRemote {
				return usagef("one of FROM and TO must be ADDRESS:PATH, the other a path here")
			}
			if fromRemote {
				addr, err := a.address(from)
				if err != nil {
					return err
				}
				if f, ok := a.out.(*os.File); ok && args[1] == stream && isTerminal(f) {
					return usagef("a tar is not for a terminal: send it into a file or a program, or name a path here")
				}
				tar, err := cl.CopyFrom(cmd.Context(), addr, fromPath)
				if err != nil {
					return err
				}
				if args[1] == stream {
					_, err = io.Copy(a.out, tar)
					return errors.Join(err, tar.Close())
				}
				return errors.Join(unpack(tar, args[1]), tar.Close())
			}
			addr, err := a.address(to)
			if err != nil {
				return err
			}
			if args[0] == stream {
				return cl.CopyTo(cmd.Context(), addr, toPath, a.in)
			}
			return copyInto(cmd.Context(), cl, args[0], addr, toPath)
		}),
	}
}
