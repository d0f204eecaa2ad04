package secrets

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// GatewaySnapshot is what PlanGateways decides on.
type GatewaySnapshot struct {
	// Gateways are the nodes that joined and may run a gateway.
	Gateways []Recipient
	Sources  []GatewaySource
	Files    []GatewayEntry
	// Held are sources that could not be opened at this revision: none is tried
	// again before it changes.
	Held map[SourceID]cluster.StoreRev
}

// SourceID names a certificate or a user list.
type SourceID struct {
	Kind string // cluster.GatewayCert or cluster.GatewayUsers
	App  cluster.AppName
	Name string
}

// GatewaySource is a certificate or a user list as the API keeps it.
type GatewaySource struct {
	SourceID
	Rev cluster.StoreRev
}

// GatewayEntry is a file that was written for a gateway.
type GatewayEntry struct {
	SourceID
	Node cluster.NodeID
	Key  string           // that it is encrypted to
	Of   cluster.StoreRev // of the source it was made of
	Rev  cluster.StoreRev
}

// GatewayAction is what to do about one file of one gateway.
//
//sumtype:decl
type GatewayAction interface{ gatewayAction() }

// SealFile writes a source, encrypted to a gateway.
type SealFile struct {
	Source GatewaySource
	To     Recipient
	Rev    cluster.StoreRev // of the entry it replaces; 0: none
}

// DropFile deletes what a gateway is not to have any more.
type DropFile struct{ Entry GatewayEntry }

func (SealFile) gatewayAction() {}
func (DropFile) gatewayAction() {}

type fileKey struct {
	node cluster.NodeID
	id   SourceID
}

// PlanGateways decides what is written for gateways on nodes that joined: each
// gets every certificate and user list, encrypted to its own key, again when
// either changes.
func PlanGateways(s GatewaySnapshot) []GatewayAction {
	have := map[fileKey]GatewayEntry{}
	for _, e := range s.Files {
		have[fileKey{e.Node, e.SourceID}] = e
	}
	want := map[fileKey]bool{}
	var acts []GatewayAction
	gateways := slices.SortedFunc(slices.Values(s.Gateways), func(a, b Recipient) int { return cmp.Compare(a.Node, b.Node) })
	sources := slices.SortedFunc(slices.Values(s.Sources), func(a, b GatewaySource) int { return a.compare(b.SourceID) })
	for _, g := range gateways {
		for _, src := range sources {
			k := fileKey{g.Node, src.SourceID}
			want[k] = true
			e, is := have[k]
			held, isHeld := s.Held[src.SourceID]
			if g.Key == "" || is && e.Key == g.Key && e.Of == src.Rev || isHeld && held == src.Rev {
				continue
			}
			acts = append(acts, SealFile{Source: src, To: g, Rev: e.Rev})
		}
	}
	for _, e := range slices.SortedFunc(slices.Values(s.Files), func(a, b GatewayEntry) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.compare(b.SourceID))
	}) {
		if !want[fileKey{e.Node, e.SourceID}] {
			acts = append(acts, DropFile{e})
		}
	}
	return acts
}

func (a SourceID) compare(b SourceID) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), cmp.Compare(a.App, b.App), strings.Compare(a.Name, b.Name))
}
