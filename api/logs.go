package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairlead/fairlead/cluster"
)

func (s *Server) registerLogs(api huma.API) {
	handleEvents[logsInput, cluster.LogLine](api, op(http.MethodGet, "/apps/{app}/logs", "logs", "apps", "Log lines of an app, a service, a slot or a task"), "line", s.logs)
}

type logsInput struct {
	AppPath
	AddressQuery
	Task   string    `query:"task" maxLength:"200" doc:"one task, whatever the address"`
	Follow bool      `query:"follow" doc:"go on with what is written from now on, also by tasks that start later"`
	Tail   int       `query:"tail" default:"-1" doc:"last lines of each task; negative means all"`
	Since  time.Time `query:"since"`
	After  []string  `query:"after,explode" doc:"TASK@TIME: of this task only what was written after that; tail and since are for the others. A client whose stream broke goes on with it"`
}

// logRequest is a request for logs that was read.
type logRequest struct {
	*logsInput
	after map[cluster.TaskID]time.Time
}

func (in *logsInput) request() (*logRequest, error) {
	r := &logRequest{in, map[cluster.TaskID]time.Time{}}
	for _, a := range in.After {
		task, text, _ := strings.Cut(a, "@")
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || task == "" {
			return nil, cluster.Invalidf("after=%q: write TASK@TIME, with a time such as 2024-01-31T08:00:00.123456789Z", a)
		}
		r.after[cluster.TaskID(task)] = at
	}
	return r, nil
}

// from is what is wanted of a task's log, at the first look at it.
func (in *logRequest) from(task cluster.TaskID) cluster.LogOptions {
	o := cluster.LogOptions{Follow: in.Follow, Timestamps: true, Tail: in.Tail, Since: in.Since}
	if at, known := in.after[task]; known {
		o.Since, o.Tail = behind(at), -1
	}
	return o
}

// behind is when the next line after one of that time can have been written.
func behind(at time.Time) time.Time { return at.Add(time.Nanosecond) }

// source is a task whose log can be read.
type source struct {
	task cluster.TaskID
	node cluster.NodeID
}

// sources are the tasks that the request is about and that a node knows of.
func (in *logsInput) sources(m *model) []source {
	var out []source
	for _, t := range m.tasks {
		if (in.Task != "" && string(t.ID) != in.Task) ||
			(in.Task == "" && in.Service != "" && string(t.Name) != in.Service) ||
			(in.Task == "" && in.Slot > 0 && t.Slot != in.Slot) || t.App != in.app() {
			continue
		}
		if n := m.nodeOf(t); n != "" && t.Outcome == nil {
			out = append(out, source{t.ID, n})
		}
	}
	return out
}

// nodeOf is the node that a task is on, "" when it is on none yet.
func (m *model) nodeOf(t cluster.Task) cluster.NodeID {
	if st, ok := m.statuses[t.ID]; ok && st.Container != "" {
		return st.Node
	}
	return ""
}

func (s *Server) logs(_ context.Context, in *logsInput) (func(context.Context, *events) error, error) {
	r, err := in.request()
	if err != nil {
		return nil, err
	}
	m := s.read(in.app())
	id := cluster.ServiceID{App: in.app(), Name: cluster.ServiceName(in.Service)}
	if len(in.sources(m)) == 0 {
		_, known := m.byID[id]
		switch {
		case len(m.servicesOf(in.app())) == 0:
			return nil, noApp(in.app())
		case in.Service != "" && !known:
			return nil, noService(m, id)
		case in.Task != "":
			return nil, cluster.NotFoundf("there is no task %q in app %s", in.Task, in.App)
		}
	}
	return func(ctx context.Context, e *events) error {
		if in.Follow {
			return s.follow(ctx, r, e)
		}
		return s.merge(ctx, r, in.sources(m), e)
	}, nil
}

// copyLogs sends a task's lines to out until its log ends. A task that is gone
// has no log: that is no error.
func (s *Server) copyLogs(ctx context.Context, src source, o cluster.LogOptions, out chan<- cluster.LogLine) error {
	h, err := s.Hosts.Tasks(src.node)
	if err == nil {
		err = h.Logs(ctx, src.task, o, func(l cluster.LogLine) error {
			l.Task = src.task
			select {
			case out <- l:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}
	if cluster.KindOf(err) == cluster.KindNotFound {
		return nil
	}
	return err
}

// logBuffer is small: a line may be of several MiB.
const logBuffer = 8

// merge sends the lines of several tasks in the order of their times.
func (s *Server) merge(ctx context.Context, in *logRequest, sources []source, e *events) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type stream struct {
		lines chan cluster.LogLine
		head  cluster.LogLine
		err   error
	}
	var open []*stream
	for _, src := range sources {
		st := &stream{lines: make(chan cluster.LogLine, logBuffer)}
		open = append(open, st)
		wg.Go(func() {
			defer close(st.lines)
			st.err = s.copyLogs(ctx, src, in.from(src.task), st.lines)
		})
	}
	var failure error
	next := func(st *stream) bool { // false: it has ended
		l, ok := <-st.lines
		if !ok && st.err != nil {
			failure = errors.Join(failure, st.err)
		}
		st.head = l
		return ok
	}
	open = slices.DeleteFunc(open, func(st *stream) bool { return !next(st) })
	for len(open) > 0 {
		first := 0
		for i, st := range open {
			if st.head.Time.Before(open[first].head.Time) {
				first = i
			}
		}
		if err := e.send("line", open[first].head); err != nil {
			return err
		}
		if !next(open[first]) {
			open = slices.Delete(open, first, first+1)
		}
	}
	return failure
}

// follower follows the tasks of one request.
type follower struct {
	server  *Server
	in      *logRequest
	out     *events
	lines   chan cluster.LogLine
	ended   chan source
	reading map[source]bool
	last    map[source]time.Time // the time of the last line sent of a source
}

// follow sends lines as they arrive, and takes up tasks that appear, until what is
// followed is gone.
func (s *Server) follow(ctx context.Context, in *logRequest, e *events) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	f := &follower{
		server: s, in: in, out: e,
		lines: make(chan cluster.LogLine, logBuffer), ended: make(chan source),
		reading: map[source]bool{}, last: map[source]time.Time{},
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		changed := s.Mirror.Changed()
		m := s.read(in.app())
		sources := in.sources(m)
		for _, src := range sources {
			if !f.reading[src] {
				f.reading[src] = true
				from := f.from(src)
				wg.Go(func() { f.read(ctx, src, from) })
			}
		}
		if len(sources) == 0 && len(f.reading) == 0 && in.over(m) {
			return nil
		}
		if err := f.pump(ctx, changed, ping.C); err != nil {
			return err
		}
	}
}

// over reports whether nothing more can come, once no task is left: of one task, of a
// service that was removed, or of an app.
func (in *logsInput) over(m *model) bool {
	if in.Task != "" {
		return true
	}
	for _, svc := range m.servicesOf(in.app()) {
		if in.Service == "" || string(svc.Name) == in.Service {
			return false
		}
	}
	return true
}

// from says where to begin: behind the last line, when the stream broke or the
// container was started again.
func (f *follower) from(src source) cluster.LogOptions {
	o := f.in.from(src.task)
	if at, again := f.last[src]; again {
		o.Since, o.Tail = behind(at), -1
	}
	return o
}

const reread = time.Second

func (f *follower) read(ctx context.Context, src source, o cluster.LogOptions) {
	if err := f.server.copyLogs(ctx, src, o, f.lines); err != nil && ctx.Err() == nil {
		f.server.Log.Debug("a log stream broke", "task", src.task, "error", err)
	}
	t := time.NewTimer(reread) // a container that keeps ending must not spin this
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return
	}
	select {
	case f.ended <- src:
	case <-ctx.Done():
	}
}

// pump sends lines until it is time to look at the tasks again.
func (f *follower) pump(ctx context.Context, changed <-chan struct{}, ping <-chan time.Time) error {
	due := time.NewTimer(time.Hour)
	due.Stop()
	defer due.Stop()
	for {
		select {
		case l := <-f.lines:
			if err := f.send(l); err != nil {
				return err
			}
			continue
		default:
		}
		if err := f.out.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case l := <-f.lines:
			if err := f.send(l); err != nil {
				return err
			}
		case src := <-f.ended:
			delete(f.reading, src)
			return nil
		case <-changed:
			changed = nil
			due.Reset(gather) // a busy store must not make this look all the time
		case <-due.C:
			return nil
		case <-ping:
			if err := f.out.ping(); err != nil {
				return err
			}
		}
	}
}

func (f *follower) send(l cluster.LogLine) error {
	for src := range f.reading {
		if src.task == l.Task {
			f.last[src] = l.Time
		}
	}
	return f.out.send("line", l)
}
