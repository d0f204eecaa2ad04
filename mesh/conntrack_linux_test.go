package mesh

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// message makes what the kernel sends about a flow.
func message(proto byte, from, to, via string) []byte {
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
	return append(msg, tuple(nl.CTA_TUPLE_REPLY, via, from)...)
}

func TestParseFlow(t *testing.T) {
	msg := message(unix.IPPROTO_UDP, "10.213.1.9", "10.212.0.1", "10.213.1.5")
	want := flow{netip.MustParseAddr("10.213.1.9"), netip.MustParseAddr("10.212.0.1"), netip.MustParseAddr("10.213.1.5")}
	if got, udp := parseFlow(msg); got != want || !udp {
		t.Errorf("%v %v", got, udp)
	}
	if _, udp := parseFlow(message(unix.IPPROTO_TCP, "10.213.1.9", "10.212.0.1", "10.213.1.5")); udp {
		t.Error("TCP is taken for UDP")
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
