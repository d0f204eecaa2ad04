package work

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"

	"github.com/fairlead/fairlead/cluster"
)

// What it may cost to see whether a branch's history was replaced: that is news, and no reason
// for a look to fail, or to take long.
const (
	historyTime  = 15 * time.Second // or a quarter of the delivery's deadline
	historyBytes = 16 << 20         // of what a host sends
	commitsBytes = 64 << 20         // of the commits in that
	commitBytes  = 1 << 20          // of one
)

// replaced reports whether the commit that was seen is not in the history of commit. What
// cannot be told was not.
func (r *repository) replaced(ctx context.Context, t Task, commit *object.Commit) bool {
	was := t.Seen.Revision
	if r.lost == nil || !plumbing.IsHash(was) {
		return false
	}
	seen := plumbing.NewHash(was)
	if slices.Contains(commit.ParentHashes, seen) { // as mostly, and nobody need be asked
		return false
	}
	lost, err := within(ctx, min(historyTime, t.Delivery.Filled().Timeout.D()/4), t.Delivery.Source.URL, func(ctx context.Context) (bool, error) {
		return r.lost(ctx, commit.Hash, seen)
	})
	return err == nil && lost
}

// lostHere looks for a commit in the history of another one, all of which is here.
func lostHere(st storer.EncodedObjectStorer) func(ctx context.Context, of, seen plumbing.Hash) (bool, error) {
	return func(ctx context.Context, of, seen plumbing.Hash) (bool, error) {
		met := map[plumbing.Hash]bool{of: true}
		for todo := []plumbing.Hash{of}; len(todo) > 0; todo = todo[1:] {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			c, err := object.GetCommit(st, todo[0])
			if err != nil { // it is a shallow clone: nobody knows
				return false, err
			}
			for _, p := range c.ParentHashes {
				if p == seen {
					return false, nil
				}
				if !met[p] {
					met[p] = true
					todo = append(todo, p)
				}
			}
		}
		return true, nil
	}
}

// lostThere asks a host for a commit as one who has the commit that was seen: then it sends
// those between, and the oldest of them name it as their parent. Where none does, it is not
// in their history, however long that is.
func lostThere(src cluster.SourceSpec, auth transport.AuthMethod) func(ctx context.Context, of, seen plumbing.Hash) (bool, error) {
	return func(ctx context.Context, of, seen plumbing.Hash) (_ bool, err error) {
		ep, err := transport.NewEndpoint(src.URL)
		if err != nil {
			return false, err
		}
		ep.CaBundle = []byte(src.CA)
		c, err := client.NewClient(ep)
		if err != nil {
			return false, err
		}
		s, err := c.NewUploadPackSession(ep, auth)
		if err != nil {
			return false, err
		}
		defer func() { _ = s.Close() }() // nothing was written
		says, err := s.AdvertisedReferencesContext(ctx)
		if err != nil {
			return false, err
		}
		req := packp.NewUploadPackRequestFromCapabilities(says.Capabilities)
		req.Wants, req.Haves = []plumbing.Hash{of}, []plumbing.Hash{seen}
		more := []capability.Capability{capability.NoProgress}
		if says.Capabilities.Supports(capability.Filter) {
			more, req.Filter = append(more, capability.Filter), packp.FilterBlobNone()
		}
		for _, m := range more {
			if says.Capabilities.Supports(m) {
				err = errors.Join(err, req.Capabilities.Set(m))
			}
		}
		if err != nil {
			return false, err
		}
		res, err := s.UploadPack(ctx, req)
		if err != nil {
			return false, err
		}
		defer func() { _ = res.Close() }()
		l := lineage{seen: seen, known: slices.Contains(res.ACKs, seen)}
		if err := l.read(io.LimitReader(unmixed(req.Capabilities, res), historyBytes)); err != nil {
			return false, err
		}
		return l.lost(of)
	}
}

// unmixed is what a host sends but its messages.
func unmixed(asked *capability.List, r io.Reader) io.Reader {
	switch {
	case asked.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case asked.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// lineage is what is known of a history, of which a pack has what is new since a commit was seen.
type lineage struct {
	seen  plumbing.Hash
	known bool // the host has that commit too

	commits map[plumbing.Hash]bool
	parents []plumbing.Hash
	none    bool // nothing is new: the history ends before what was seen
	found   bool // the commit is a parent, or there
	unclear bool // something in the pack could be a commit
}

func (l *lineage) lost(of plumbing.Hash) (bool, error) {
	whole := !l.unclear && (l.commits[of] || l.known && l.none)
	if !l.known { // it came from the first commit on
		whole = whole && !slices.ContainsFunc(l.parents, func(p plumbing.Hash) bool { return !l.commits[p] })
	}
	if !l.found && !whole {
		return false, errors.New("the host did not send all of the history")
	}
	return !l.found, nil
}

// read takes in the commits of a pack, until one is found that says enough. Files are passed
// over as they come, of whatever size.
func (l *lineage) read(pack io.Reader) error {
	l.commits = map[plumbing.Hash]bool{}
	s := packfile.NewScanner(pack)
	_, n, err := s.Header()
	if err != nil {
		return err
	}
	l.none = n == 0
	at, by, room := map[int64][]byte{}, map[plumbing.Hash][]byte{}, commitsBytes
	for range n {
		h, err := s.NextObjectHeader()
		if err != nil {
			return err
		}
		base, is := []byte(nil), h.Type == plumbing.CommitObject
		switch h.Type {
		case plumbing.OFSDeltaObject: // a commit, as what differs from another one
			base, is = at[h.OffsetReference]
		case plumbing.REFDeltaObject:
			base, is = by[h.Reference]
			l.unclear = l.unclear || !is
		}
		if !is {
			continue
		}
		content, err := commitOf(s, h, base)
		if err != nil {
			return err
		}
		if room -= len(content); room < 0 {
			return errors.New("too many commits")
		}
		c, err := parsed(content)
		if err != nil {
			return err
		}
		at[h.Offset], by[c.Hash] = content, content
		l.commits[c.Hash] = true
		l.parents = append(l.parents, c.ParentHashes...)
		if l.found = c.Hash == l.seen || slices.Contains(c.ParentHashes, l.seen); l.found {
			return nil
		}
	}
	return nil
}

// commitOf reads a commit that is there, or how it differs from base.
func commitOf(s *packfile.Scanner, h *packfile.ObjectHeader, base []byte) ([]byte, error) {
	tooLarge := fmt.Errorf("a commit of more than %d MiB", commitBytes>>20)
	if h.Length > commitBytes {
		return nil, tooLarge
	}
	var b bytes.Buffer
	if _, _, err := s.NextObject(&b); err != nil || base == nil {
		return b.Bytes(), err
	}
	_, from := binary.Uvarint(b.Bytes()) // the size of base, then that of the commit
	if size, _ := binary.Uvarint(b.Bytes()[max(from, 0):]); size > commitBytes {
		return nil, tooLarge
	}
	return packfile.PatchDelta(base, b.Bytes())
}

func parsed(content []byte) (*object.Commit, error) {
	o := &plumbing.MemoryObject{}
	o.SetType(plumbing.CommitObject)
	if _, err := o.Write(content); err != nil {
		return nil, err
	}
	c := &object.Commit{}
	return c, c.Decode(o)
}
