// Package nftwatch tells when somebody deletes nftables rules: a firewall that is
// loaded anew flushes all there is, other programs' tables too.
//
// Invariant: who is told looks for himself. A message says that something was
// deleted, by anyone, the receiver included; not that anything is missing.
package nftwatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// gather is how long after a deletion it is told: a firewall that is loaded
// deletes and adds many times.
const gather = 200 * time.Millisecond

// The kernel's numbers; golang.org/x/sys/unix has the types, not the group's.
const groupNFTables = 7 // NFNLGRP_NFTABLES

// Watched is a table, and the chains of it whose rules matter; none means all.
type Watched struct {
	Table  string
	Chains []string
}

// Deletions calls told after the table, one of the chains or rules of theirs were
// deleted in this network namespace, at most every 200 ms, until ctx ends; it returns
// the context's cause then. It may call told when nothing was deleted, never too
// seldom. What other tables lose is not told: the engine deletes rules of its own at
// each start of a container.
func Deletions(ctx context.Context, w Watched, told func()) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER, groupNFTables)
	if err != nil {
		return fmt.Errorf("watch for changes of nftables: %w", err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	for {
		messages, _, err := s.Receive()
		deleted := err == nil
		if err == nil {
			deleted = slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return w.deletes(m.Header.Type, m.Data) })
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, unix.ENOBUFS): // that one: more messages than there was room for
			return fmt.Errorf("watch for changes of nftables: %w", err)
		case !deleted && err == nil:
			continue
		}
		t := time.NewTimer(gather)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		told()
	}
}

// deletes reports whether a message says that something watched is gone. One that
// cannot be read may say so.
func (w Watched) deletes(kind uint16, data []byte) bool {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	const header = 4 // struct nfgenmsg
	var table, chain uint16
	switch kind & 0xff {
	case unix.NFT_MSG_DELTABLE:
		table = unix.NFTA_TABLE_NAME
	case unix.NFT_MSG_DELCHAIN:
		table, chain = unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_DELRULE:
		table, chain = unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN
	default:
		return false
	}
	if len(data) < header {
		return true
	}
	attrs, err := nl.ParseRouteAttr(data[header:])
	if err != nil {
		return true
	}
	for _, a := range attrs {
		value := strings.TrimRight(string(a.Value), "\x00")
		switch {
		case a.Attr.Type == table && value != w.Table:
			return false
		case chain != 0 && a.Attr.Type == chain && len(w.Chains) > 0 && !slices.Contains(w.Chains, value):
			return false
		}
	}
	return true
}
