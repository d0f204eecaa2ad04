package client

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// silence is how long nothing may come of a stream that goes on when it breaks: servers say each
// 15 s that they are there.
const silence = 50 * time.Second

// Logs calls emit with the log lines of an app (empty service), a service or a
// slot. Without Follow the lines of all tasks come in the order of their times;
// with Follow as they arrive, also from tasks that start later, until what is followed
// is gone.
func (c *Client) Logs(ctx context.Context, a cluster.Address, o LogQuery, emit func(cluster.LogLine) error) error {
	r := request{path: path("apps", string(a.App), "logs"), event: "line"}
	if !o.Follow || o.Broken == nil {
		r.query = logQuery(a, o, nil)
		return stream(ctx, c, r, emit)
	}
	f := &followed{LogQuery: o, broken: broken{told: o.Broken, pause: firstPause}, last: map[cluster.TaskID]time.Time{}}
	r.silence = silence
	r.began = func(at time.Time) {
		if f.began.IsZero() {
			f.began = at
		}
		f.said = false
	}
	for {
		r.query = logQuery(a, f.rest(), f.last)
		err := stream(ctx, c, r, func(l cluster.LogLine) error {
			f.saw(l)
			if err := emit(l); err != nil {
				f.refused = err
				return err
			}
			return nil
		})
		switch {
		case err == nil || ctx.Err() != nil || f.refused != nil:
			return err
		case cluster.KindOf(err) == cluster.KindNotFound && !f.began.IsZero():
			return nil // what was followed was removed meanwhile
		case cluster.KindOf(err) != cluster.KindTransient || f.began.IsZero():
			return err
		}
		if err := f.wait(ctx, err); err != nil {
			return err
		}
	}
}

// followed is a log that goes on when its stream breaks.
type followed struct {
	LogQuery
	broken
	began   time.Time                    // when the first stream did, by the server's clock
	last    map[cluster.TaskID]time.Time // of each task's newest line
	refused error                        // what emit returned
}

func (f *followed) saw(l cluster.LogLine) {
	f.pause = firstPause
	if l.Time.After(f.last[l.Task]) {
		f.last[l.Task] = l.Time
	}
}

// rest is what is to be asked for of tasks that nothing was heard of yet. Once something
// was heard the first lines of all have come: such a task has written nothing then, or was
// not there.
func (f *followed) rest() LogQuery {
	o := f.LogQuery
	switch {
	case f.began.IsZero() || o.Tail < 0:
	case o.Tail == 0:
		if o.Tail = -1; o.Since.Before(f.began) {
			o.Since = f.began
		}
	case len(f.last) > 0:
		o.Tail = -1
	}
	return o
}

// logQuery asks for logs; of the tasks in last only for what is newer.
func logQuery(a cluster.Address, o LogQuery, last map[cluster.TaskID]time.Time) url.Values {
	q := addressQuery(a)
	q.Set("tail", strconv.Itoa(o.Tail))
	if o.Follow {
		q.Set("follow", "true")
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if o.Task != "" {
		q.Set("task", string(o.Task))
	}
	for _, task := range slices.Sorted(maps.Keys(last)) {
		q.Add("after", string(task)+"@"+last[task].UTC().Format(time.RFC3339Nano))
	}
	return q
}
