package embedded

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

const (
	defaultCheck = 10 * time.Second
	// mostSteps bounds one round: compact, defragment, disarm.
	mostSteps = 4
	sayEvery  = 10 * time.Minute
	// stepTimeout bounds a compaction; that of a large history takes a while.
	stepTimeout = time.Minute
)

// Alarm says in words what is wrong with the store, "" when nothing is.
func (s *Server) Alarm() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alarm
}

// keeper makes room in one member's database, round by round.
type keeper struct {
	*Server
	etcd  *etcdserver.EtcdServer
	last  time.Time // of the last defragmentation
	tried bool
	first int64     // the first revision there was at the last defragmentation, or at the start
	said  time.Time // when a full store was last logged
}

// keepRoom makes room in the database whenever it is needed, until ctx ends.
func (s *Server) keepRoom(ctx context.Context, e *etcdserver.EtcdServer) {
	k := &keeper{Server: s, etcd: e, first: e.KV().FirstRev()}
	tick := time.NewTicker(orCheck(s.cfg.Check))
	defer tick.Stop()
	for {
		if err := k.round(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("could not make room in the store; will retry", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func orCheck(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultCheck
	}
	return d
}

func (k *keeper) round(ctx context.Context) error {
	k.tried = false
	for range mostSteps {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // etcd is being stopped: nothing is to be begun
		}
		s := k.look()
		text := s.trouble()
		k.mu.Lock()
		k.alarm = text
		k.mu.Unlock()
		if err := k.do(ctx, s, text); err != nil {
			return err
		}
		if n := s.next(); n == rest || n == giveUp {
			return nil
		}
	}
	return nil
}

func (k *keeper) look() space {
	b, kv := k.etcd.Backend(), k.etcd.KV()
	s := space{
		Size: b.Size(), InUse: b.SizeInUse(), Quota: k.cfg.quota(),
		History: kv.FirstRev() < kv.Rev(), Compacted: kv.FirstRev() != k.first, Now: k.cfg.Now(), Last: k.last, Tried: k.tried,
	}
	for _, a := range k.etcd.Alarms() {
		if a.GetMemberID() == uint64(k.etcd.MemberID()) && a.GetAlarm() == etcdserverpb.AlarmType_NOSPACE {
			s.Alarm = true
		}
	}
	return s
}

// do takes one step.
func (k *keeper) do(ctx context.Context, s space, text string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch s.next() {
	case rest:
	case compact:
		k.log.Warn("the store is full: making room", "size", s.Size, "in_use", s.InUse, "quota", s.Quota)
		_, err := k.etcd.Compact(ctx, &etcdserverpb.CompactionRequest{Revision: k.etcd.KV().Rev(), Physical: true})
		if errors.Is(err, mvcc.ErrCompacted) {
			return nil // etcd's own came first
		}
		return err
	case defragment:
		k.last, k.tried, k.first = s.Now, s.Alarm, k.etcd.KV().FirstRev()
		err := k.etcd.Defragment()
		if err == nil {
			k.log.Info("defragmented the store", "size_before", s.Size, "size_after", k.etcd.Backend().Size())
		}
		return err
	case disarm:
		_, err := k.etcd.Alarm(ctx, &etcdserverpb.AlarmRequest{
			Action: etcdserverpb.AlarmRequest_DEACTIVATE, MemberID: uint64(k.etcd.MemberID()), Alarm: etcdserverpb.AlarmType_NOSPACE,
		})
		if err == nil {
			k.log.Info("the store has room again", "size", s.Size, "quota", s.Quota)
		}
		return err
	case giveUp:
		if k.said.IsZero() || s.Now.Sub(k.said) >= sayEvery {
			k.said = s.Now
			k.log.Error(text)
		}
	}
	return nil
}
