package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// dialCount counts the first packets that this machine sends to a server, and those of
// them that no other table refused.
type dialCount struct {
	t     *testing.T
	table string
}

func countDials(t *testing.T, to ...string) dialCount {
	t.Helper()
	d := dialCount{t, fmt.Sprintf("fairlead-test-%d-%d", os.Getpid(), gatewayCount.Add(1))}
	var counters, before, after strings.Builder
	for i, a := range to {
		p := netip.MustParseAddrPort(a)
		match := fmt.Sprintf("ip daddr %s tcp dport %d tcp flags & (syn | ack) == syn counter name", p.Addr(), p.Port())
		fmt.Fprintf(&counters, "counter tried%d { }\ncounter sent%d { }\n", i, i)
		fmt.Fprintf(&before, "%s tried%d\n", match, i)
		fmt.Fprintf(&after, "%s sent%d\n", match, i)
	}
	cmd := exec.CommandContext(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`table inet %s {
%s
chain before { type filter hook output priority -5; policy accept;
%s}
chain after { type filter hook output priority 5; policy accept;
%s}
}
`, d.table, &counters, &before, &after))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("count dials: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "delete", "table", "inet", d.table).Run() })
	return d
}

// of returns how many dials there were to the i-th server, and how many were sent.
func (d dialCount) of(i int) (tried, sent int) {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), "nft", "-j", "list", "counters", "table", "inet", d.table).Output()
	if err != nil {
		d.t.Fatal(err)
	}
	var list struct {
		Nftables []struct {
			Counter struct {
				Name    string `json:"name"`
				Packets int    `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		d.t.Fatal(err)
	}
	for _, o := range list.Nftables {
		switch o.Counter.Name {
		case fmt.Sprintf("tried%d", i):
			tried = o.Counter.Packets
		case fmt.Sprintf("sent%d", i):
			sent = o.Counter.Packets
		}
	}
	return tried, sent
}
