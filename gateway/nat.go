package gateway

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/fairlead/fairlead/cluster"
)

// nat owns the gateway's nftables table.
type nat struct {
	nft knftables.Interface
	cfg Config
	// written are the handles of the rules as they were written last: the kernel
	// gives each rule another one.
	written []int
}

func newNAT(c Config) (*nat, error) {
	nft, err := knftables.New(knftables.InetFamily, c.tableName())
	if err != nil {
		return nil, cluster.Invalidf("gateway: nftables does not work here: install the package nftables (apt-get install nftables), and run as root: %w", err)
	}
	return &nat{nft: nft, cfg: c}, nil
}

// Chains of the table.
const (
	chainIn    = "prerouting"
	chainOut   = "output"
	chainInput = "input"
	chainLocal = "local"
)

// begin returns a transaction that makes the table and empties the chains named.
func (n *nat) begin(empty ...string) *knftables.Transaction {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	// Before Docker's own chains, which hook at the standard priority.
	early := knftables.BaseChainPriority("-110")
	filter := knftables.FilterPriority
	tx.Add(hangingSet())
	for _, ch := range []*knftables.Chain{
		{Name: chainIn, Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: &early},
		{Name: chainOut, Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.OutputHook), Priority: &early},
		{Name: chainInput, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.InputHook), Priority: &filter},
		{Name: chainLocal, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.OutputHook), Priority: &filter},
	} {
		tx.Add(ch)
		if slices.Contains(empty, ch.Name) {
			tx.Flush(&knftables.Chain{Name: ch.Name})
		}
	}
	return tx
}

// guard closes the private ports of all and etcd, the port of the local
// endpoint, before anything listens there. The public ports stay mapped as they are.
func (n *nat) guard(ctx context.Context, all []*process, etcd int) error {
	tx := n.begin(chainInput, chainLocal)
	n.close(func(chain, text string) { tx.Add(&knftables.Rule{Chain: chain, Rule: text}) }, all, etcd)
	return n.run(ctx, tx, "close the private ports")
}

// run writes tx and takes note of the rules that it made.
func (n *nat) run(ctx context.Context, tx *knftables.Transaction, what string) error {
	n.written = nil
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	n.written, _ = n.handles(ctx) // not read: the next look writes all again
	return nil
}

func (n *nat) handles(ctx context.Context) ([]int, error) {
	rules, err := n.nft.ListRules(ctx, "")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, r := range rules {
		if r.Handle != nil {
			out = append(out, *r.Handle)
		}
	}
	slices.Sort(out)
	return out, nil
}

// intact reports whether the kernel has the rules that were written last.
func (n *nat) intact(ctx context.Context) bool {
	have, err := n.handles(ctx)
	return err == nil && len(have) > 0 && slices.Equal(have, n.written)
}

// publish maps the public ports of entry points to private ports (by entry point) and
// closes the private ports of all to everything else, in one step. etcd is the port
// of the local endpoint. Connections that exist keep the way they have.
func (n *nat) publish(ctx context.Context, ports map[string]int, all []*process, etcd int) error {
	tx := n.begin(chainIn, chainOut, chainInput, chainLocal)
	rule := func(chain, text string) { tx.Add(&knftables.Rule{Chain: chain, Rule: text}) }
	for _, e := range slices.Sorted(maps.Keys(ports)) {
		proto, port := n.cfg.public(e)
		to := fmt.Sprintf("fib daddr type local %s dport %d dnat to :%d", proto, port, ports[e])
		rule(chainOut, to)
		if e != EntryInternal {
			rule(chainIn, to)
			continue
		}
		for _, from := range n.cfg.InternalFrom {
			rule(chainIn, family(from)+" saddr "+from.String()+" "+to)
		}
	}
	n.close(rule, all, etcd)
	return n.run(ctx, tx, "map the public ports")
}

// close adds the rules that keep private ports private.
func (n *nat) close(rule func(chain, text string), all []*process, etcd int) {
	private := map[string][]string{}
	loopback := []string{strconv.Itoa(etcd)}
	for _, p := range all {
		loopback = append(loopback, strconv.Itoa(p.APIPort))
		for e, port := range p.Ports {
			proto, _ := n.cfg.public(e)
			private[proto] = append(private[proto], strconv.Itoa(port))
		}
	}
	for _, proto := range slices.Sorted(maps.Keys(private)) {
		slices.Sort(private[proto])
		ports := "{ " + strings.Join(private[proto], ", ") + " }"
		rule(chainInput, proto+" dport "+ports+" ct status dnat accept")
		rule(chainInput, proto+" dport "+ports+" drop")
	}
	// While a Traefik that died is being replaced, the kernel would refuse new
	// connections to its ports. Their refusal (a reset with sequence number 0, as
	// only an answer to a first packet has) is kept back: the client asks again
	// within a second and finds the next process.
	if tcp := private["tcp"]; len(tcp) > 0 {
		rule(chainLocal, "tcp sport { "+strings.Join(tcp, ", ")+" } tcp flags & rst == rst tcp sequence 0 drop")
	}
	// Of Traefik's own dials alone: a probe that is refused counts against a task, and
	// a caller of a service address has nobody who sends it on to the next server.
	rule(chainLocal, fmt.Sprintf("meta skgid %d ip daddr . tcp dport @%s tcp flags & (syn | ack) == syn reject with tcp reset", traefikGroup, setHanging))
	// The API and the routes are for root alone; sockets on the loopback know no
	// other owner.
	slices.Sort(loopback)
	rule(chainLocal, "ip daddr 127.0.0.1 tcp dport { "+strings.Join(slices.Compact(loopback), ", ")+" } meta skuid != 0 reject")
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ip"
	}
	return "ip6"
}

// remove deletes the table.
func (n *nat) remove(ctx context.Context) error {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that the deletion finds one
	tx.Delete(&knftables.Table{})
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove the map of the public ports: %w", err)
	}
	return nil
}

// setHanging holds the servers that refuse Traefik's dials for now. The kernel does
// not change the timeout of a set that is there: another one needs another name.
const setHanging = "hanging"

func hangingSet() *knftables.Set {
	return &knftables.Set{
		Name: setHanging, Type: "ipv4_addr . inet_service",
		Flags: []knftables.SetFlag{knftables.TimeoutFlag}, Timeout: new(refuseFor),
	}
}

// refuse has dials to the servers in add fail at once, for refuseFor, and no longer
// those to the ones in del. Anew, none but those. No rule is written.
func (n *nat) refuse(ctx context.Context, add, del []netip.AddrPort, anew bool) error {
	tx := n.nft.NewTransaction()
	element := func(a netip.AddrPort) *knftables.Element {
		return &knftables.Element{Set: setHanging, Key: []string{a.Addr().String(), strconv.Itoa(int(a.Port()))}}
	}
	if anew {
		tx.Flush(&knftables.Set{Name: setHanging})
	}
	for _, a := range del {
		tx.Add(element(a)) // so that the deletion finds one: its time may be over
		tx.Delete(element(a))
	}
	for _, a := range add {
		tx.Add(element(a))
	}
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("refuse dials to servers that do not answer: %w", err)
	}
	return nil
}
