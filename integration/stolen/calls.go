package stolen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/fairlead/fairlead/store"
)

// leases tries to use those of others, which are given with a key under each.
func (w *Walked) leases(ctx context.Context, others map[clientv3.LeaseID]string) error {
	mine := store.StatusPrefix(w.thief.Node) + "stolen"
	for id, of := range others {
		w.Calls++
		what := "the lease of " + of
		err := errors.Join(
			w.try("put a key under "+what, false, w.change(ctx, clientv3.OpPut(mine, "{}", clientv3.WithLease(id)))),
			w.try("ask how long is left of "+what, false, func() error { _, err := w.as.TimeToLive(ctx, id); return err }),
			w.try("ask which keys are under "+what, false, func() error { _, err := w.as.TimeToLive(ctx, id, clientv3.WithAttachedKeys()); return err }),
			w.try("keep "+what, false, func() error { _, err := w.as.KeepAliveOnce(ctx, id); return err }),
			w.try("end "+what, false, func() error { _, err := w.as.Revoke(ctx, id); return err }),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// calls tries what is done to etcd itself, with arguments that it would be worth it with.
func (w *Walked) calls(ctx context.Context) error {
	as, me := w.as, "thief"
	for what, call := range map[string]func() error{
		"list the leases":   func() error { _, err := as.Leases(ctx); return err },
		"list users":        func() error { _, err := as.UserList(ctx); return err },
		"list roles":        func() error { _, err := as.RoleList(ctx); return err },
		"look at root":      func() error { _, err := as.UserGet(ctx, "root"); return err },
		"add a user":        func() error { _, err := as.UserAdd(ctx, me, "x"); return err },
		"change a password": func() error { _, err := as.UserChangePassword(ctx, "root", "x"); return err },
		"grant a role":      func() error { _, err := as.UserGrantRole(ctx, me, "root"); return err },
		"grant a permission": func() error {
			_, err := as.RoleGrantPermission(ctx, me, store.Root, clientv3.GetPrefixRangeEnd(store.Root), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		"open the store":            func() error { _, err := as.AuthDisable(ctx); return err },
		"list the members":          func() error { _, err := as.MemberList(ctx); return err },
		"add a member":              func() error { _, err := as.MemberAdd(ctx, []string{"https://10.99.0.9:7422"}); return err },
		"add a learner":             func() error { _, err := as.MemberAddAsLearner(ctx, []string{"https://10.99.0.9:7422"}); return err },
		"remove a member":           func() error { _, err := as.MemberRemove(ctx, 1); return err },
		"promote a member":          func() error { _, err := as.MemberPromote(ctx, 1); return err },
		"move a member":             func() error { _, err := as.MemberUpdate(ctx, 1, []string{"https://10.99.0.9:7422"}); return err },
		"move the leader":           func() error { _, err := as.MoveLeader(ctx, 1); return err },
		"ask a member how it is":    func() error { _, err := as.Status(ctx, w.way.URL); return err },
		"ask for alarms":            func() error { _, err := as.AlarmList(ctx); return err },
		"silence alarms":            func() error { _, err := as.AlarmDisarm(ctx, &clientv3.AlarmMember{}); return err },
		"ask for the keys' hash":    func() error { _, err := as.HashKV(ctx, w.way.URL, 0); return err },
		"forget history":            func() error { _, err := as.Compact(ctx, 1); return err },
		"defragment":                func() error { _, err := as.Defragment(ctx, w.way.URL); return err },
		"go back to a version":      func() error { _, err := as.Downgrade(ctx, clientv3.DowngradeValidate, "3.6.0"); return err },
		"take a snapshot":           func() error { return drain(as.Snapshot(ctx)) },
		"take a versioned snapshot": func() error { r, err := as.SnapshotWithVersion(ctx); return drain(bodyOf(r), err) },
		"be elected": func() error {
			name := []byte(store.StatusPrefix(w.thief.Node) + "elected")
			_, err := v3electionpb.NewElectionClient(as.ActiveConnection()).Campaign(ctx, &v3electionpb.CampaignRequest{Name: name})
			return err
		},
		"lock": func() error {
			name := []byte(store.StatusPrefix(w.thief.Node) + "locked")
			_, err := v3lockpb.NewLockClient(as.ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: name})
			return err
		},
	} {
		w.Calls++
		if err := w.try(what, false, call); err != nil {
			return err
		}
	}
	return w.try("an empty transaction", !w.thief.Removed, func() error { _, err := as.Txn(ctx).Commit(); return err })
}

func bodyOf(r *clientv3.SnapshotResponse) io.ReadCloser {
	if r == nil {
		return nil
	}
	return r.Snapshot
}

func drain(r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// methods tries every method of every service that etcd has, by their descriptions,
// but for those that nodes use, which were tried with arguments.
func (w *Walked) methods(ctx context.Context) error {
	used := map[string]bool{
		pb.KV_Range_FullMethodName: true, pb.KV_Put_FullMethodName: true, pb.KV_DeleteRange_FullMethodName: true, pb.KV_Txn_FullMethodName: true,
		pb.Watch_Watch_FullMethodName: true, pb.Lease_LeaseGrant_FullMethodName: true, pb.Lease_LeaseRevoke_FullMethodName: true,
		pb.Lease_LeaseKeepAlive_FullMethodName: true, pb.Lease_LeaseTimeToLive_FullMethodName: true,
	}
	for _, f := range []protoreflect.FileDescriptor{
		pb.File_rpc_proto, v3electionpb.File_v3election_proto, v3lockpb.File_v3lock_proto, healthpb.File_grpc_health_v1_health_proto,
	} {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				name := fmt.Sprintf("/%s/%s", s.FullName(), m.Name())
				if used[name] && !w.thief.Removed {
					continue
				}
				w.Calls++
				if err := w.try("call "+name, false, func() error { return w.invoke(ctx, name, m) }); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// invoke calls a method with an empty message.
func (w *Walked) invoke(ctx context.Context, name string, m protoreflect.MethodDescriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return w.as.ActiveConnection().Invoke(ctx, name, in, out)
	}
	s, err := w.as.ActiveConnection().NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}, name)
	if err != nil {
		return err
	}
	if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return s.RecvMsg(out)
}

// pages asks for what etcd tells by plain HTTP.
func (w *Walked) pages(ctx context.Context) error {
	tr := &http.Transport{TLSClientConfig: w.way.TLS.Clone(), DisableKeepAlives: true}
	if w.way.Dial != nil {
		tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return w.way.Dial(ctx, addr) }
	}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: dialTimeout}
	for _, path := range []string{"/metrics", "/debug/vars", "/debug/pprof/", "/health", "/livez", "/readyz", "/version", "/members", "/v3/kv/range"} {
		w.Calls++
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.way.URL+path, nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			continue // what answers nodes for an operator's etcd speaks no HTTP
		}
		_ = resp.Body.Close()
		if resp.StatusCode < http.StatusBadRequest {
			w.Reached = append(w.Reached, "the page "+path)
		}
	}
	return nil
}
