package mesh

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// message makes what the kernel sends about a flow.
func message(proto byte, status uint32, from, to, via string) []byte {
	tuple := func(kind int, src, dst string) []byte {
		a := nl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
		ips := a.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
		ips.AddRtAttr(nl.CTA_IP_V4_SRC, netip.MustParseAddr(src).AsSlice())
		ips.AddRtAttr(nl.CTA_IP_V4_DST, netip.MustParseAddr(dst).AsSlice())
		a.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil).AddRtAttr(nl.CTA_PROTO_NUM, []byte{proto})
		return a.Serialize()
	}
	msg := []byte{unix.AF_INET, 0, 0, 0}
	msg = append(msg, tuple(nl.CTA_TUPLE_ORIG, from, to)...)
	msg = append(msg, tuple(nl.CTA_TUPLE_REPLY, via, from)...)
	return append(msg, nl.NewRtAttr(ctaStatus, binary.BigEndian.AppendUint32(nil, status)).Serialize()...)
}

func TestParseFlow(t *testing.T) {
	msg := message(unix.IPPROTO_UDP, seenReply, "10.213.1.9", "10.212.0.1", "10.213.1.5")
	want := flow{netip.MustParseAddr("10.213.1.9"), netip.MustParseAddr("10.212.0.1"), netip.MustParseAddr("10.213.1.5")}
	if got, unsettled := parseFlow(msg); got != want || !unsettled {
		t.Errorf("%v %v", got, unsettled)
	}
	for _, c := range []struct {
		proto     byte
		status    uint32
		unsettled bool
	}{
		{unix.IPPROTO_TCP, 0x188, true}, // confirmed, with its addresses changed: no answer yet
		{unix.IPPROTO_TCP, 0x188 | seenReply, false},
		{unix.IPPROTO_UDP, 0x188, true},
		{unix.IPPROTO_ICMP, 0x188, false},
	} {
		got, unsettled := parseFlow(message(c.proto, c.status, "10.213.1.9", "10.212.0.1", "10.213.1.5"))
		if got != want || unsettled != c.unsettled {
			t.Errorf("protocol %d, status %#x: %v %v", c.proto, c.status, got, unsettled)
		}
	}
	rapid.Check(t, func(rt *rapid.T) { // what is cut or damaged is read without a panic
		b := append([]byte(nil), msg[:rapid.IntRange(0, len(msg)).Draw(rt, "cut")]...)
		for i := range rapid.IntRange(0, 4).Draw(rt, "flips") {
			if len(b) > 0 {
				b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] ^= byte(1 << i)
			}
		}
		parseFlow(b)
	})
}
