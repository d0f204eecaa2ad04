package v1

import (
	"fmt"

	"github.com/fairlead/fairlead/cluster"
)

// TokenCreate asks for a token.
type TokenCreate struct {
	Name string `json:"name" minLength:"1" maxLength:"100" doc:"whose it is, or what it is for"`
}

// TokenCreated is a new token. Value is told this once and kept nowhere.
type TokenCreated struct {
	cluster.Token
	Value string `json:"value"`
	// CA is the fingerprint of the cluster's certificate authority, for clients to pin.
	CA string `json:"ca"`
	// URL is where other machines reach the API; "" when it is served on the
	// server's local socket alone.
	URL string `json:"url,omitempty" doc:"where other machines reach the API"`
}

// Line is what makes another machine use the token; empty when none can. The
// token goes through standard input: arguments can be read by everyone there.
func (t TokenCreated) Line() string {
	if t.URL == "" {
		return ""
	}
	return fmt.Sprintf("echo %s | fairlead context add %s --server %s --ca %s --token-stdin", t.Value, t.Name, t.URL, t.CA)
}
