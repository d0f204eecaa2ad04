//go:build linux

package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// writeAll writes the whole table: over the one that is there, or anew where that is
// not to be had. Connections that stand are kept by conntrack, not by the table.
func (m *Mesh) writeAll(ctx context.Context, want Ruleset) error {
	if err := m.hairpin(want); err != nil {
		return err
	}
	err := m.rewrite(ctx, want)
	if err != nil && ctx.Err() == nil {
		if !knftables.IsNotFound(err) {
			m.cfg.Log.Warn("cannot write over the nft table; making it anew", "table", TableName(m.cfg.Cluster), "error", err)
		}
		tx := m.nft.NewTransaction()
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		m.lay.writeBase(tx)
		diff(Ruleset{}, want).write(tx, Ruleset{}, want)
		err = m.nft.Run(ctx, tx)
	}
	if err != nil {
		return fmt.Errorf("write nft table %s: %w", TableName(m.cfg.Cluster), err)
	}
	return m.flush(nil, want)
}

// rewrite writes the whole table over the one that is there: a packet sees the old
// rules or the new ones. What the sets of intervals lack is written before, and they
// are not made anew: the kernel fills such a set a moment after the rules of the same
// transaction are active, and until then whoever is to be in it is refused.
func (m *Mesh) rewrite(ctx context.Context, want Ruleset) error {
	have, err := m.nft.ListAll(ctx)
	if err != nil {
		return err
	}
	intervals, err := m.intervals(ctx)
	if err != nil {
		return err
	}
	change := diff(intervals, want.only(isInterval))
	if len(change.addElements) > 0 {
		tx := m.nft.NewTransaction()
		for _, e := range change.addElements {
			tx.Add(e.object(""))
		}
		if err := m.nft.Run(ctx, tx); err != nil {
			return err
		}
	}
	tx := m.nft.NewTransaction()
	clearAll(tx, have, want)
	for _, e := range change.delElements {
		tx.Delete(e.object(""))
	}
	m.lay.writeBase(tx)
	rest := want.only(func(set string) bool { return !isInterval(set) })
	diff(Ruleset{}, rest).write(tx, Ruleset{}, rest)
	return m.nft.Run(ctx, tx)
}

// intervals reads the sets of intervals.
func (m *Mesh) intervals(ctx context.Context) (Ruleset, error) {
	have := Ruleset{elements: map[element]string{}}
	for _, set := range sets {
		if !isInterval(set.Name) {
			continue
		}
		elements, err := m.nft.ListElements(ctx, "set", set.Name)
		if err != nil {
			return have, err
		}
		for _, e := range elements {
			key := strings.Join(e.Key, " . ")
			if !strings.Contains(key, "/") {
				key += "/32" // a prefix of one address is listed as an address
			}
			have.elements[element{set.Name, key}] = ""
		}
	}
	return have, nil
}

func (m *Mesh) writeChange(ctx context.Context, have, want Ruleset) error {
	c := diff(have, want)
	if c.empty() {
		return nil
	}
	if slices.ContainsFunc(c.addElements, func(e element) bool { return e.set == setHairpin }) {
		if err := m.hairpin(want); err != nil {
			return err
		}
	}
	tx := m.nft.NewTransaction()
	c.write(tx, have, want)
	if err := m.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("change nft table %s: %w", TableName(m.cfg.Cluster), err)
	}
	to := lost(have, want)
	switch {
	case len(to) == 0:
		return nil
	case len(to) > manyLost:
		to = nil
	}
	return m.flush(to, want)
}

func (m *Mesh) hairpin(want Ruleset) error {
	if m.lay.masquerade {
		return nil // packets then pass the bridge as the node's own: no port sees its own again
	}
	var bridges []string
	for e := range want.elements {
		if e.set == setBridges {
			bridges = append(bridges, e.key)
		}
	}
	return m.host.hairpin(bridges)
}

// flush makes UDP flows to tasks that are gone choose again: without it a
// client that keeps its port would talk to the old task for ever. So would a TCP
// connection whose first packet was lost: it is sent again a second later, to the
// old task, which has stopped listening by then. It looks at the flows to these
// services; none means at all.
func (m *Mesh) flush(to []netip.Addr, want Ruleset) error {
	err := m.host.dropFlows(to, func(f flow) bool {
		return m.lay.services.Contains(f.to) && !want.backends[backend{f.to, f.via}] &&
			slices.ContainsFunc(want.subnets, func(p netip.Prefix) bool { return p.Contains(f.from) })
	})
	if err != nil {
		return fmt.Errorf("drop flows to tasks that are gone: %w", err)
	}
	return nil
}
