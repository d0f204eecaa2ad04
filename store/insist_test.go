package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/fairlead/fairlead/cluster"
)

func TestInsist(t *testing.T) {
	lost := errors.New("nobody answers") // stands for a proposal that is never answered
	refused := cluster.Transientf("there is no leader")
	moved := cluster.Conflictf("the store moved on")
	forbidden := &cluster.Error{Kind: cluster.KindForbidden, Msg: "not yours"}
	full := &cluster.Error{Kind: cluster.KindTransient, Msg: "write", Err: rpctypes.ErrNoSpace}
	type proposal struct {
		after time.Duration // that the answer comes
		err   error
	}
	for name, c := range map[string]struct {
		proposals []proposal
		want      cluster.Kind
		made      bool
		after     time.Duration
	}{
		"made":      {proposals: []proposal{{after: time.Millisecond}}, made: true, after: time.Millisecond},
		"forbidden": {proposals: []proposal{{0, forbidden}}, want: cluster.KindForbidden},
		"no space":  {proposals: []proposal{{0, full}}, want: cluster.KindTransient},
		"conflict":  {proposals: []proposal{{0, moved}}, want: cluster.KindConflict},
		"the leader died with the first": {
			proposals: []proposal{{0, lost}, {time.Millisecond, nil}}, made: true, after: hedgeAfter + time.Millisecond,
		},
		"and the second came too early": {
			proposals: []proposal{{0, lost}, {0, refused}, {0, refused}, {0, nil}}, made: true, after: hedgeAfter + 2*refusedAgain,
		},
		"a slow disk: the first is made, the second refused for it": {
			proposals: []proposal{{2900 * time.Millisecond, nil}, {1600 * time.Millisecond, moved}}, made: true, after: 2900 * time.Millisecond,
		},
		"slow, and another was faster": {
			proposals: []proposal{{2900 * time.Millisecond, moved}, {1600 * time.Millisecond, moved}}, want: cluster.KindConflict, after: hedgeAfter + 1600*time.Millisecond,
		},
		"made or not, nobody knows": {
			proposals: []proposal{{0, refused}, {0, moved}}, want: cluster.KindTransient, after: refusedAgain,
		},
		"lost, and in conflict with itself or another": {
			proposals: []proposal{{0, lost}, {0, moved}}, want: cluster.KindTransient, after: 5 * time.Second,
		},
		"nobody answers": {
			proposals: []proposal{{0, lost}, {0, lost}, {0, lost}, {0, lost}}, want: cluster.KindTransient, after: 5 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				next := make(chan proposal, len(c.proposals))
				for _, p := range c.proposals {
					next <- p
				}
				rev, err := insist(ctx, "write", func(ctx context.Context) (int64, error) {
					var p proposal
					select {
					case p = <-next:
					default:
						t.Error("proposed once more")
					}
					if errors.Is(p.err, lost) {
						<-ctx.Done()
						return 0, cluster.Transientf("write: %w", ctx.Err())
					}
					select {
					case <-time.After(p.after):
						return 7, p.err
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				})
				if (err == nil) != c.made || c.made && rev != 7 || !c.made && cluster.KindOf(err) != c.want {
					t.Errorf("revision %d, %v", rev, err)
				}
				if took := time.Since(began); took != c.after {
					t.Errorf("after %s, want %s", took, c.after)
				}
				if len(next) > 0 {
					t.Errorf("%d proposals were not made", len(next))
				}
			})
		})
	}
}

// Only a write that a second proposal cannot make again is proposed again.
func TestOnce(t *testing.T) {
	put, gone := Op{Key: "a"}, Op{Key: "a", Delete: true}
	for name, c := range map[string]struct {
		txn  Txn
		want bool
	}{
		"made new":                     {Txn{If: []Cond{{Key: "a"}}, Then: []Op{put}}, true},
		"changed":                      {Txn{If: []Cond{{Key: "a", Rev: 3}}, Then: []Op{put}}, true},
		"removed":                      {Txn{If: []Cond{{Key: "a", Rev: 3}}, Then: []Op{gone}}, true},
		"removed, and was not there":   {Txn{If: []Cond{{Key: "a"}}, Then: []Op{gone}}, false},
		"whatever it was":              {Txn{Then: []Op{put}}, false},
		"whatever it was, by a leader": {Txn{If: []Cond{{Key: "leader", Rev: 1}}, Then: []Op{put}}, false},
		"one of two":                   {Txn{If: []Cond{{Key: "a", Rev: 3}}, Then: []Op{put, {Key: "b"}}}, false},
	} {
		if got := c.txn.once(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
