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
// the time it has. A token that cannot be renewed, or no further, is left to run out,
// which Alarm then tells; an AppRole logs in again by itself.
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
	got, err := c.vault.Auth().Token().RenewSelfWithContext(ctx, 0)
	if err != nil {
		c.log.Warn("could not renew the token of Vault; will retry", "address", c.cfg.Address, "error", err)
		return firstRenew
	}
	wait, last := afterRenewal(s, got)
	if last && !c.ending {
		c.ending = true
		c.log.Warn("the token of Vault has come to the longest time that it may live: put another one into its file before it ends; a token with a period, or an AppRole, needs no such care",
			"address", c.cfg.Address, "file", c.cfg.TokenFile, "ends_in", leased(got))
	}
	return wait
}

// afterRenewal reads from a token's description and the answer to its renewal when to
// look at it again. A token that got no more than what makes a renewal due must not be
// renewed at once again; what Vault says of one time can differ by a second in the two,
// as both are rounded. last is that it has come to the longest time that it may live;
// one with a period and no such time has only a period that Vault shortens.
func afterRenewal(before, renewed *api.Secret) (wait time.Duration, last bool) {
	got := leased(renewed)
	switch {
	case got > whole(before)/3+time.Second:
		return time.Second, false // look at what it has now
	case seconds(before, "period") > 0 && seconds(before, "explicit_max_ttl") == 0:
		return min(max(time.Second, got/2), maxRenew), false
	}
	return min(max(firstRenew, got/2), maxRenew), true
}

func leased(renewed *api.Secret) time.Duration {
	if renewed == nil || renewed.Auth == nil {
		return 0
	}
	return time.Duration(renewed.Auth.LeaseDuration) * time.Second
}

// nextRenewal reads from a token's description whether it is to be renewed now, or
// when to look again.
func nextRenewal(token *api.Secret) (wait time.Duration, due bool) {
	left, err := token.TokenTTL()
	renewable, rerr := token.TokenIsRenewable()
	if err != nil || rerr != nil || left <= 0 || !renewable {
		return maxRenew, false
	}
	if wait = left - whole(token)/3; wait <= 0 {
		return 0, true
	}
	return min(wait, maxRenew), false
}

// whole is how long a token lives from one renewal to its end without another.
func whole(token *api.Secret) time.Duration {
	return max(seconds(token, "creation_ttl"), seconds(token, "period"), seconds(token, "ttl"))
}

func seconds(token *api.Secret, key string) time.Duration {
	n, _ := token.Data[key].(json.Number)
	d, err := n.Int64()
	if err != nil {
		return 0
	}
	return time.Duration(d) * time.Second
}
