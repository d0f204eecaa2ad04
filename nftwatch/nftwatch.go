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
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// gather is how long after a deletion it is told: a firewall that is loaded
// deletes and adds many times.
const gather = 200 * time.Millisecond

// The kernel's numbers; golang.org/x/sys/unix has the types, not the group's.
const groupNFTables = 7 // NFNLGRP_NFTABLES

// Deletions calls told after tables, chains or rules of this network namespace
// were deleted, at most every 200 ms, until ctx ends; it returns the context's
// cause then. It may call told when nothing was deleted, never too seldom.
func Deletions(ctx context.Context, told func()) error {
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
			deleted = false
			for _, m := range messages {
				deleted = deleted || deletes(m.Header.Type)
			}
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

// deletes reports whether a message says that something is gone that holds rules.
func deletes(kind uint16) bool {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch kind & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE:
		return true
	}
	return false
}
