package cluster

import "time"

// ServerSpec is a server that joined: who let it, and the key that it was given the
// cluster's keys under. Key servers/<node>/spec. Writer: API. The first server has none.
type ServerSpec struct {
	Node   NodeID    `json:"node"`
	Key    string    `json:"key"` // age recipient
	Joined time.Time `json:"joined"`
	By     string    `json:"by,omitempty"` // the token's name
}

// ServerInfo is where a server is reached. Key servers/<node>/info. Writer: that server.
type ServerInfo struct {
	Node    NodeID `json:"node"`
	API     string `json:"api"`  // host:port, TLS
	Etcd    string `json:"etcd"` // URL
	Version string `json:"version"`
}
