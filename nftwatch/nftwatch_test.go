package nftwatch

import (
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func message(attrs ...string) []byte { // the attributes 1, 2, ...
	data := make([]byte, 4)
	for i, a := range attrs {
		if a != "" {
			data = append(data, nl.NewRtAttr(i+1, nl.ZeroTerminated(a)).Serialize()...)
		}
	}
	return data
}

func TestWhatDeletes(t *testing.T) {
	const nft = unix.NFNL_SUBSYS_NFTABLES << 8
	whole, one := Watched{Table: "ours"}, Watched{Table: "ours", Chains: []string{"first"}}
	for name, c := range map[string]struct {
		watched Watched
		kind    uint16
		data    []byte
		want    bool
	}{
		"our table":                          {whole, nft | unix.NFT_MSG_DELTABLE, message("ours"), true},
		"another table":                      {whole, nft | unix.NFT_MSG_DELTABLE, message("filter"), false},
		"one that begins as ours":            {whole, nft | unix.NFT_MSG_DELTABLE, message("ours2"), false},
		"a chain of ours":                    {whole, nft | unix.NFT_MSG_DELCHAIN, message("ours", "", "any"), true},
		"a rule of ours":                     {whole, nft | unix.NFT_MSG_DELRULE, message("ours", "any"), true},
		"a rule of another table":            {whole, nft | unix.NFT_MSG_DELRULE, message("filter", "first"), false},
		"our table, one chain watched":       {one, nft | unix.NFT_MSG_DELTABLE, message("ours"), true},
		"the watched chain":                  {one, nft | unix.NFT_MSG_DELCHAIN, message("ours", "", "first"), true},
		"a rule of the watched chain":        {one, nft | unix.NFT_MSG_DELRULE, message("ours", "first"), true},
		"another chain":                      {one, nft | unix.NFT_MSG_DELCHAIN, message("ours", "", "other"), false},
		"a rule of another chain":            {one, nft | unix.NFT_MSG_DELRULE, message("ours", "other"), false},
		"a new rule":                         {whole, nft | unix.NFT_MSG_NEWRULE, message("ours", "first"), false},
		"an element, as at each change":      {whole, nft | unix.NFT_MSG_DELSETELEM, message("ours"), false},
		"another subsystem's":                {whole, unix.NFT_MSG_DELTABLE, message("ours"), false},
		"too short":                          {whole, nft | unix.NFT_MSG_DELTABLE, nil, true},
		"an attribute longer than its bytes": {whole, nft | unix.NFT_MSG_DELTABLE, append(message(), 200, 0, 1, 0), true},
	} {
		if got := c.watched.deletes(c.kind, c.data); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
