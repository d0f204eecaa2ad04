package cluster

import "slices"

// Endpoints are the addresses that serve a service now. Its store revision is
// the endpoint revision that nodes and gateways acknowledge. Writer: registry.
type Endpoints struct {
	ServiceID
	// Address is the service address: one stable IP of the cluster-wide range. Empty with dnsrr.
	Address string   `json:"address,omitempty"`
	Mode    string   `json:"mode,omitempty"`    // "dnsrr" or ""
	Aliases []string `json:"aliases,omitempty"` // further names of the service
	// AliasNetworks are the networks that an alias is answered on; one that is not
	// here is answered on all of the service's.
	AliasNetworks map[string][]NetworkName `json:"alias_networks,omitempty"`
	// Networks that the service is on: only tasks on one of them may call it.
	Networks []NetworkName `json:"networks,omitempty"`
	Tasks    []Endpoint    `json:"tasks,omitempty"` // sorted by slot, then task

	Rev StoreRev `json:"-"`
}

// Endpoint is one task that is ready and not draining.
type Endpoint struct {
	Task      TaskID                 `json:"task"`
	Slot      int                    `json:"slot"`
	Node      NodeID                 `json:"node"`
	Version   string                 `json:"version,omitempty"` // of the task
	Addresses map[NetworkName]string `json:"addresses"`
	// Host is set with network_mode host: the node's own address.
	Host string `json:"host,omitempty"`
}

// Earlier are the endpoints of tasks of other versions than this.
func (e Endpoints) Earlier(version string) Endpoints {
	e.Tasks = slices.DeleteFunc(slices.Clone(e.Tasks), func(t Endpoint) bool { return t.Version == version || t.Version == "" })
	return e
}

// Has reports whether the task is among the endpoints.
func (e Endpoints) Has(t TaskID) bool {
	for _, x := range e.Tasks {
		if x.Task == t {
			return true
		}
	}
	return false
}
