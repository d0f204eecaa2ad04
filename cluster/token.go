package cluster

import "time"

// Token is who may use the API with a token, or, with Join set, that a machine
// may join as a node, or a server, with it. The token itself is kept nowhere: its SHA-256 is
// the key. Source: API.
type Token struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`

	Join    bool      `json:"join,omitempty"`
	Server  bool      `json:"server,omitempty"` // of Join: the machine becomes a server
	Expires time.Time `json:"expires,omitzero"` // of Join
	Uses    int       `json:"uses,omitempty"`   // how many more nodes may join with it
}

// Joins reports whether a node may join with the token now.
func (t Token) Joins(now time.Time) bool { return t.Join && t.Uses > 0 && now.Before(t.Expires) }
