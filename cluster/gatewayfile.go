package cluster

import "fmt"

// Kinds of GatewayFile.
const (
	GatewayCert  = "certs"
	GatewayUsers = "users"
)

// GatewayFile is what Traefik on a node that is no server gets by files: a
// certificate with its key, or a user list, encrypted to that node alone. Writer:
// the broker, from what the API keeps under the servers' own key.
type GatewayFile struct {
	Node NodeID   `json:"node"`
	Kind string   `json:"kind"` // GatewayCert or GatewayUsers
	App  AppName  `json:"app,omitempty"`
	Name string   `json:"name"` // of the certificate; a user list's ID
	Data []byte   `json:"data"` // encrypted to Key: the JSON of a GatewaySecret
	Key  string   `json:"key"`  // age recipient
	Of   StoreRev `json:"of"`   // revision of what it was made of
}

// GatewaySecret is the content of a GatewayFile. It exists in memory only. What it
// is of stands in it too, so that it cannot be passed off as another.
type GatewaySecret struct {
	Kind  string  `json:"kind"`
	App   AppName `json:"app,omitempty"`
	Name  string  `json:"name"`
	Chain string  `json:"chain,omitempty"` // PEM
	Key   []byte  `json:"key,omitempty"`   // PEM
	Auth  *Auth   `json:"auth,omitempty"`
}

// Format implements fmt.Formatter: a key that slips into a log line shows nothing.
func (GatewaySecret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[gateway file]")) }
