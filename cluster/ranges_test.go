package cluster

import (
	"net/netip"
	"testing"
)

func hostNets(text ...string) (out []HostNet) {
	for _, s := range text {
		out = append(out, HostNet{Prefix: netip.MustParsePrefix(s), By: "on eth0"})
	}
	return out
}

func TestOverlap(t *testing.T) {
	ranges := []Range{{"--pool", netip.MustParsePrefix("10.213.0.0/16")}, {"--service-range", netip.MustParsePrefix("10.212.0.0/16")}}
	for _, c := range []struct {
		name string
		host []HostNet
		want string
	}{
		{"nothing", nil, ""},
		{"beside it", hostNets("10.211.0.0/16", "10.214.0.0/16", "192.168.0.0/16", "172.17.0.0/16"), ""},
		{"within it", hostNets("10.213.7.0/24"), "10.213.0.0/16 (--pool) overlaps with 10.213.7.0/24, which is on eth0"},
		{"one address", hostNets("10.212.0.1/32"), "10.212.0.0/16 (--service-range) overlaps with 10.212.0.1/32, which is on eth0"},
		{
			"round both", hostNets("10.0.0.0/8"),
			"10.213.0.0/16 (--pool) overlaps with 10.0.0.0/8, which is on eth0; 10.212.0.0/16 (--service-range) overlaps with 10.0.0.0/8, which is on eth0",
		},
		{"many", hostNets("10.213.1.0/24", "10.213.2.0/24", "10.213.3.0/24", "10.213.4.0/24", "10.213.5.0/24"), "10.213.0.0/16 (--pool) overlaps with 10.213.1.0/24, which is on eth0; " +
			"10.213.0.0/16 (--pool) overlaps with 10.213.2.0/24, which is on eth0; 10.213.0.0/16 (--pool) overlaps with 10.213.3.0/24, which is on eth0; 2 more overlap"},
	} {
		if got := Overlap(ranges, c.host); got != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
}

func TestFreeRange(t *testing.T) {
	for _, c := range []struct {
		want string
		host []HostNet
	}{
		{"10.213.0.0/16", nil},
		{"10.211.0.0/16", hostNets("10.213.200.0/24")}, // 10.212 is taken
		{"172.31.0.0/16", hostNets("10.0.0.0/8")},
		{"172.30.0.0/16", hostNets("10.0.0.0/8", "172.31.4.0/24")},
		{"invalid Prefix", hostNets("10.0.0.0/8", "172.16.0.0/12")},
	} {
		if got := FreeRange(c.host, netip.MustParsePrefix("10.212.0.0/16")); got.String() != c.want {
			t.Errorf("beside %v: %s; want %s", c.host, got, c.want)
		}
	}
}
