package registry

import (
	"fmt"
	"hash/fnv"
	"math/big"
	"net/netip"

	"github.com/fairlead/fairlead/cluster"
)

// pool hands out service addresses.
type pool struct {
	prefix netip.Prefix
	size   uint64 // usable addresses, without the first and the last
	taken  map[netip.Addr]bool
}

func newPool(prefix netip.Prefix, claims []Claim) *pool {
	p := &pool{prefix: prefix.Masked(), taken: make(map[netip.Addr]bool, len(claims))}
	if prefix.IsValid() {
		bits := min(prefix.Addr().BitLen()-prefix.Bits(), 32) // 2^32 addresses are enough
		if n := uint64(1) << bits; n > 2 {
			p.size = n - 2
		}
	}
	for _, c := range claims {
		p.taken[c.Address] = true
	}
	return p
}

// address returns the service's address, with the action that claims it when it
// is new, or a refusal and no address when none is left.
//
// The search starts where the service's name hashes to, so that the address of
// a service that was removed is not at once another's: programs that still hold
// it must find nobody rather than somebody else. A service that is deployed
// again gets its old address back as long as it is free.
func (p *pool) address(id cluster.ServiceID, claims map[cluster.ServiceID]Claim) (Action, string) {
	// One outside the range stays too: when the range is changed under a running
	// service, a second address would break those that hold the first.
	if c, ok := claims[id]; ok {
		return nil, c.Address.String()
	}
	if p.size == 0 {
		return NoAddress{Service: id, Reason: fmt.Sprintf("the range of service addresses %s holds none", p.prefix)}, ""
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id.String()))
	start := h.Sum64() % p.size
	for i := range p.size {
		a := p.nth((start + i) % p.size)
		if !p.taken[a] {
			p.taken[a] = true
			return PutAddress{Service: id, Address: a}, a.String()
		}
	}
	return NoAddress{Service: id, Reason: fmt.Sprintf("all %d service addresses of %s are taken", p.size, p.prefix)}, ""
}

// nth returns the n-th usable address, counting from 0.
func (p *pool) nth(n uint64) netip.Addr {
	base := new(big.Int).SetBytes(p.prefix.Addr().AsSlice())
	base.Add(base, new(big.Int).SetUint64(n+1))
	raw := make([]byte, p.prefix.Addr().BitLen()/8)
	a, _ := netip.AddrFromSlice(base.FillBytes(raw))
	return a
}
