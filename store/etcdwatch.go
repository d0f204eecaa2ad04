package store

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/cluster"
)

// Watch implements Store. Batches without events tell how far there are none.
//
// It ends with an Err, rather than staying silent, when the server does not
// answer within the request timeout or has lost its leader. A lost connection
// alone does not end it: the client connects again and goes on where it was. Of a
// store that was put back meanwhile it says nothing; AwaitPutBack does.
func (e *Etcd) Watch(ctx context.Context, prefix string, rev int64) <-chan Batch {
	out := make(chan Batch)
	go func() {
		defer close(out)
		err := e.watch(ctx, prefix, rev, out)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
		case out <- Batch{Err: err}:
		}
	}()
	return out
}

func (e *Etcd) watch(ctx context.Context, prefix string, rev int64, out chan<- Batch) error {
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// The client's Watch returns once the server has made the watch, or never.
	late := time.AfterFunc(e.timeout, cancel)
	from, opts := prefix, []clientv3.OpOption{
		clientv3.WithRev(rev + 1), clientv3.WithProgressNotify(), clientv3.WithFragment(),
	}
	if prefix == "" {
		from, opts = "\x00", append(opts, clientv3.WithFromKey())
	} else {
		opts = append(opts, clientv3.WithPrefix())
	}
	responses := e.client.Watch(wctx, from, opts...)
	if !late.Stop() {
		return cluster.Transientf("watch %s: etcd did not answer within %s", prefix, e.timeout)
	}
	for r := range responses {
		if err := r.Err(); err != nil {
			return wrap(err, "watch "+prefix)
		}
		b := batch(r)
		if len(b.Events) == 0 && !r.IsProgressNotify() {
			continue
		}
		e.past.heard(b.Rev)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case out <- b:
		}
	}
	return wrap(errors.New("the watch was closed"), "watch "+prefix)
}

func batch(r clientv3.WatchResponse) Batch {
	// The header's revision may be newer than the last event while the server catches up.
	b := Batch{Rev: r.Header.Revision}
	if n := len(r.Events); n > 0 {
		b.Events = make([]Event, n)
		b.Rev = r.Events[n-1].Kv.ModRevision
	}
	for i, ev := range r.Events {
		b.Events[i] = Event{Entry: Entry{Key: string(ev.Kv.Key), Rev: ev.Kv.ModRevision}, Deleted: ev.Type == clientv3.EventTypeDelete}
		if !b.Events[i].Deleted {
			b.Events[i].Value, b.Events[i].Created = ev.Kv.Value, ev.Kv.CreateRevision
		}
	}
	return b
}
