package vault

import (
	"context"
	"encoding/json"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	firstRenew = time.Minute // until the next try after a failure
	maxRenew   = time.Hour   // between two looks at a token that has long to live
)

// Run keeps the token of a file alive until ctx ends: it is renewed at two thirds of
// the time it has. A token that cannot be renewed is left to run out, which
// Alarm then tells; an AppRole logs in again by itself.
func (c *Client) Run(ctx context.Context) error {
	if c.cfg.RoleID != "" {
		return nil
	}
	for {
		next := time.NewTimer(c.renew(ctx))
		select {
		case <-ctx.Done():
			next.Stop()
			return context.Cause(ctx)
		case <-next.C:
		}
	}
}

// renew renews the token when two thirds of its time are over; the result is when to
// look again.
func (c *Client) renew(ctx context.Context) time.Duration {
	select {
	case c.asked <- struct{}{}:
		defer func() { <-c.asked }()
	case <-ctx.Done():
		return firstRenew
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !c.ready && c.login(ctx) != nil {
		return firstRenew // who asks for a secret is told
	}
	s, err := c.vault.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return firstRenew
	}
	wait, due := nextRenewal(s)
	if !due {
		return wait
	}
	if _, err := c.vault.Auth().Token().RenewSelfWithContext(ctx, 0); err != nil {
		c.log.Warn("could not renew the token of Vault; will retry", "address", c.cfg.Address, "error", err)
		return firstRenew
	}
	return time.Second // look at what it has now
}

// nextRenewal reads from a token's description whether it is to be renewed now, or
// when to look again.
func nextRenewal(token *api.Secret) (wait time.Duration, due bool) {
	left, err := token.TokenTTL()
	renewable, rerr := token.TokenIsRenewable()
	if err != nil || rerr != nil || left <= 0 || !renewable {
		return maxRenew, false
	}
	seconds := func(key string) time.Duration {
		n, _ := token.Data[key].(json.Number)
		d, err := n.Int64()
		if err != nil {
			return 0
		}
		return time.Duration(d) * time.Second
	}
	whole := max(seconds("creation_ttl"), seconds("period"), left)
	if wait = left - whole/3; wait <= 0 {
		return 0, true
	}
	return min(wait, maxRenew), false
}
