package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/fairlead/fairlead/cluster"
)

// Errors of changing members that are waited out.
var (
	ErrLearnerBusy = &cluster.Error{Kind: cluster.KindTransient, Msg: "another server is joining, and etcd takes one at a time"}
	ErrNotCaughtUp = &cluster.Error{Kind: cluster.KindTransient, Msg: "it has not caught up yet"}
	// ErrIncomplete: of those that vote one is away, or has not been back for five seconds.
	ErrIncomplete = &cluster.Error{Kind: cluster.KindTransient, Msg: "etcd takes no further server while one of them is away, nor some seconds after: `fairlead server ls` on another shows which; bring it back, or `fairlead server rm` it"}
	// ErrUnsettled: a majority answers, and has not for five seconds.
	ErrUnsettled = &cluster.Error{Kind: cluster.KindTransient, Msg: "etcd changes its members only when a majority of them has been connected for some seconds"}
)

// Member is one etcd of the cluster.
type Member struct {
	ID      uint64
	Name    string // the node's; "" when it never started
	Peer    string // URL for other members
	Client  string // URL for clients; "" when it never started
	Learner bool   // it follows, and does not vote
}

// Members lists the etcd cluster's members, as a quorum has them.
func (e *Etcd) Members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.client.MemberList(ctx)
	if err != nil {
		return nil, wrap(err, "list etcd's members")
	}
	return membersOf(r.Members), nil
}

func membersOf(list []*etcdserverpb.Member) []Member {
	var out []Member
	for _, m := range list {
		x := Member{ID: m.ID, Name: m.Name, Learner: m.IsLearner}
		if len(m.PeerURLs) > 0 {
			x.Peer = m.PeerURLs[0]
		}
		if len(m.ClientURLs) > 0 {
			x.Client = m.ClientURLs[0]
		}
		out = append(out, x)
	}
	return out
}

// AddLearner makes room for a member that is to start at this peer URL, and returns
// all members with it. ErrLearnerBusy while another one has not caught up, ErrIncomplete
// while one that votes is away.
func (e *Etcd) AddLearner(ctx context.Context, peer string) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.client.MemberAddAsLearner(ctx, []string{peer})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrTooManyLearners) {
		return nil, ErrLearnerBusy
	}
	if errors.Is(rpctypes.Error(err), rpctypes.ErrUnhealthy) {
		return nil, ErrIncomplete
	}
	if err != nil {
		return nil, wrap(err, "add a member to etcd")
	}
	return membersOf(r.Members), nil
}

// Promote lets a learner vote. ErrNotCaughtUp while it lags. The member that leads is
// asked itself: another one would ask it without saying for whom, and be refused.
func (e *Etcd) Promote(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	url, err := e.leaderURL(ctx)
	if err != nil {
		return err
	}
	conn, err := e.client.Dial(url)
	if err != nil {
		return wrap(err, "connect to the etcd that leads, at "+url)
	}
	defer conn.Close() //nolint:errcheck // it was asked
	_, err = etcdserverpb.NewClusterClient(conn).MemberPromote(ctx, &etcdserverpb.MemberPromoteRequest{ID: id})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrMemberLearnerNotReady) {
		return ErrNotCaughtUp
	}
	return wrap(err, fmt.Sprintf("let etcd's member %x vote", id))
}

// leaderURL is where the member that leads serves clients.
func (e *Etcd) leaderURL(ctx context.Context) (string, error) {
	all, err := e.Members(ctx)
	if err != nil {
		return "", err
	}
	for _, url := range e.client.Endpoints() {
		state, serr := e.Ask(ctx, Member{Client: url})
		if err = serr; err != nil {
			continue
		}
		for _, m := range all {
			if m.ID == state.Leader && m.Client != "" {
				return m.Client, nil
			}
		}
	}
	return "", cmp.Or(err, error(cluster.Transientf("no etcd leads now")))
}

// RemoveMember takes a member out of etcd; its process ends. ErrUnsettled right after
// another member came back.
func (e *Etcd) RemoveMember(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	_, err := e.client.MemberRemove(ctx, id)
	switch {
	case errors.Is(rpctypes.Error(err), rpctypes.ErrMemberNotFound):
		return nil
	case errors.Is(rpctypes.Error(err), rpctypes.ErrUnhealthy):
		return ErrUnsettled
	}
	return wrap(err, fmt.Sprintf("remove etcd's member %x", id))
}

// MemberState is what one member says of itself.
type MemberState struct {
	Leader uint64 // ID of the member that leads, 0 when none does
	Size   int64  // of its database, in bytes
}

// Ask asks one member how it is, by its client URL.
func (e *Etcd) Ask(ctx context.Context, m Member) (MemberState, error) {
	if m.Client == "" {
		return MemberState{}, cluster.Transientf("it never started")
	}
	r, err := e.client.Status(ctx, m.Client)
	if err != nil {
		return MemberState{}, wrap(err, "ask "+m.Client)
	}
	return MemberState{Leader: r.Leader, Size: r.DbSize}, nil
}

// SetEndpoints changes which servers are asked, without ending what is under way.
func (e *Etcd) SetEndpoints(urls []string) {
	if len(urls) > 0 {
		e.client.SetEndpoints(urls...)
	}
}
