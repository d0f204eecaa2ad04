package nftwatch

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatDeletes(t *testing.T) {
	const ours = unix.NFNL_SUBSYS_NFTABLES << 8
	for kind, want := range map[uint16]bool{
		ours | unix.NFT_MSG_DELTABLE:   true,
		ours | unix.NFT_MSG_DELCHAIN:   true,
		ours | unix.NFT_MSG_DELRULE:    true,
		ours | unix.NFT_MSG_NEWRULE:    false,
		ours | unix.NFT_MSG_DELSETELEM: false, // service addresses do that at each change
		unix.NFT_MSG_DELTABLE:          false, // another subsystem's message
	} {
		if got := deletes(kind); got != want {
			t.Errorf("message %#x: %v, want %v", kind, got, want)
		}
	}
}
