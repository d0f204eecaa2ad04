package gateway

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestUnmappedFlows(t *testing.T) {
	f := unmapped{
		ports: map[protoPort]bool{{unix.IPPROTO_TCP, 80}: true, {unix.IPPROTO_UDP, 5353}: true},
		local: map[string]bool{"192.0.2.1": true, "2001:db8::1": true},
	}
	flow := func(proto uint8, dst string, port uint16, answers string, from uint16) *netlink.ConntrackFlow {
		return &netlink.ConntrackFlow{
			Forward: netlink.IPTuple{Protocol: proto, DstIP: net.ParseIP(dst), DstPort: port},
			Reverse: netlink.IPTuple{Protocol: proto, SrcIP: net.ParseIP(answers), SrcPort: from},
		}
	}
	for what, c := range map[string]struct {
		flow *netlink.ConntrackFlow
		want bool
	}{
		"came before the map":            {flow(unix.IPPROTO_TCP, "192.0.2.1", 80, "192.0.2.1", 80), true},
		"from the machine itself":        {flow(unix.IPPROTO_TCP, "127.0.0.1", 80, "127.0.0.1", 80), true},
		"IPv6":                           {flow(unix.IPPROTO_TCP, "2001:db8::1", 80, "2001:db8::1", 80), true},
		"UDP":                            {flow(unix.IPPROTO_UDP, "192.0.2.1", 5353, "192.0.2.1", 5353), true},
		"mapped to Traefik":              {flow(unix.IPPROTO_TCP, "192.0.2.1", 80, "192.0.2.1", 21080), false},
		"mapped by others to elsewhere":  {flow(unix.IPPROTO_TCP, "192.0.2.1", 80, "172.17.0.2", 80), false},
		"of a container to the internet": {flow(unix.IPPROTO_TCP, "203.0.113.9", 80, "203.0.113.9", 80), false},
		"another port":                   {flow(unix.IPPROTO_TCP, "192.0.2.1", 22, "192.0.2.1", 22), false},
		"another protocol":               {flow(unix.IPPROTO_UDP, "192.0.2.1", 80, "192.0.2.1", 80), false},
	} {
		if got := f.MatchConntrackFlow(c.flow); got != c.want {
			t.Errorf("a connection that is %s: forgotten %v, want %v", what, got, c.want)
		}
	}
}
