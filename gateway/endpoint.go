package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endpoint serves the tree by etcd's protocol, as much of it as Traefik's
// provider uses: Range and Watch. It takes no writes.
type endpoint struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	tree *tree
	// watchers counts open watches: a Traefik that lost the endpoint is not among them.
	watchers atomic.Int64
}

// serve answers on l until ctx ends.
func (e *endpoint) serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer()
	pb.RegisterKVServer(s, e)
	pb.RegisterWatchServer(s, e)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	return s.Serve(l)
}

func header(rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: 1, RaftTerm: 1, Revision: rev}
}

// Range implements etcd's KV.Range on the current revision.
func (e *endpoint) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	pairs, rev := e.tree.read(string(r.Key), string(r.RangeEnd))
	if r.Revision > rev {
		return nil, status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	}
	if r.Revision > 0 && r.Revision < rev {
		return nil, status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	}
	out := &pb.RangeResponse{Header: header(rev), Count: int64(len(pairs))}
	if r.CountOnly {
		return out, nil
	}
	out.Kvs = make([]*mvccpb.KeyValue, len(pairs))
	for i, p := range pairs {
		at := i
		if r.SortOrder == pb.RangeRequest_DESCEND {
			at = len(pairs) - 1 - i
		}
		kv := keyValue(p)
		if r.KeysOnly {
			kv.Value = nil
		}
		out.Kvs[at] = kv
	}
	if r.Limit > 0 && int64(len(out.Kvs)) > r.Limit {
		out.Kvs, out.More = out.Kvs[:r.Limit], true
	}
	return out, nil
}

func keyValue(p pair) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(p.key), Value: []byte(p.value), ModRevision: p.mod, CreateRevision: p.create, Version: 1}
}

// watch is one watch of a stream.
type watch struct {
	key, end string
	next     int64
}

// Watch implements etcd's Watch.Watch. Changes that come while a watcher is busy
// reach it together: Traefik reads the whole tree at each response.
func (e *endpoint) Watch(stream pb.Watch_WatchServer) error {
	requests := make(chan *pb.WatchRequest)
	ended := make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	watches := map[int64]*watch{}
	defer func() { e.watchers.Add(-int64(len(watches))) }()
	var lastID int64
	for {
		changed := e.tree.next()
		for id, w := range watches {
			if err := e.send(stream, id, w); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-changed:
		case r := <-requests:
			if err := e.request(stream, r, watches, &lastID); err != nil {
				return err
			}
		}
	}
}

func (e *endpoint) request(stream pb.Watch_WatchServer, r *pb.WatchRequest, watches map[int64]*watch, lastID *int64) error {
	rev := e.tree.now()
	switch {
	case r.GetCreateRequest() != nil:
		c := r.GetCreateRequest()
		id := c.WatchId
		if id == 0 {
			*lastID++
			id = *lastID
		}
		next := c.StartRevision
		if next == 0 {
			next = rev + 1
		}
		watches[id] = &watch{key: string(c.Key), end: string(c.RangeEnd), next: next}
		e.watchers.Add(1)
		return stream.Send(&pb.WatchResponse{Header: header(rev), WatchId: id, Created: true})
	case r.GetCancelRequest() != nil:
		id := r.GetCancelRequest().WatchId
		if watches[id] == nil {
			return nil
		}
		delete(watches, id)
		e.watchers.Add(-1)
		return stream.Send(&pb.WatchResponse{Header: header(rev), WatchId: id, Canceled: true})
	case r.GetProgressRequest() != nil:
		return stream.Send(&pb.WatchResponse{Header: header(rev), WatchId: -1})
	}
	return nil
}

func (e *endpoint) send(stream pb.Watch_WatchServer, id int64, w *watch) error {
	changes, rev := e.tree.since(w.key, w.end, w.next)
	w.next = rev + 1
	if len(changes) == 0 {
		return nil
	}
	events := make([]*mvccpb.Event, 0, len(changes))
	for _, c := range changes {
		ev := &mvccpb.Event{Kv: keyValue(c.pair), Type: mvccpb.Event_PUT}
		if c.gone {
			ev.Type = mvccpb.Event_DELETE
			ev.Kv = &mvccpb.KeyValue{Key: []byte(c.key), ModRevision: c.mod}
		}
		events = append(events, ev)
	}
	return stream.Send(&pb.WatchResponse{Header: header(rev), WatchId: id, Events: events})
}
