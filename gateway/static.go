package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// layout is what a Traefik process must be started with: another layout needs
// another process. Private ports are not part of it.
type layout struct {
	Entries []string `json:"entries"` // sorted
	Etcd    int      `json:"etcd"`    // port of the local etcd endpoint
	Options string   `json:"options"` // hash of the rest
}

// serves reports whether a process of this layout can serve what want is for. One
// with more entry points can: those are not mapped.
func (l layout) serves(want layout) bool {
	return l.Etcd == want.Etcd && l.Options == want.Options &&
		!slices.ContainsFunc(want.Entries, func(e string) bool { return !slices.Contains(l.Entries, e) })
}

// object is a piece of configuration. JSON is YAML, which Traefik reads.
type object = map[string]any

// options hashes what of the configuration is neither an entry point nor a port.
func (c Config) options() (string, error) {
	b, err := json.Marshal(c.static(nil, nil, 0, 0, ""))
	if err != nil {
		return "", fmt.Errorf("write Traefik's static configuration: %w", err)
	}
	b = fmt.Appendf(b, "%v", c.entryOptions("tcp", true)) // of HTTP, which has all that the others have
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// static returns Traefik's static configuration for entry points on private ports.
func (c Config) static(entries []string, ports map[string]int, apiPort, etcdPort int, logFile string) object {
	eps := object{"traefik": object{"address": "127.0.0.1:" + strconv.Itoa(apiPort)}}
	for _, e := range entries {
		proto, _ := c.public(e)
		_, isFixed := c.fixed()[e]
		ep := c.entryOptions(proto, isFixed)
		ep["address"] = ":" + strconv.Itoa(ports[e]) + "/" + proto
		eps[e] = ep
	}
	logging := object{"level": "WARN"}
	if logFile != "" {
		logging["filePath"], logging["maxSize"], logging["maxBackups"] = logFile, 10, 1
	}
	cfg := object{
		"global":      object{"checkNewVersion": false, "sendAnonymousUsage": false},
		"log":         logging,
		"api":         object{"insecure": true, "dashboard": false, "disableDashboardAd": true},
		"entryPoints": eps,
		"providers":   c.providers(etcdPort),
	}
	if c.AccessLog != "" {
		cfg["accessLog"] = object{"filePath": c.AccessLog, "bufferingSize": 100}
	}
	return cfg
}

func (c Config) providers(etcdPort int) object {
	return object{
		"providersThrottleDuration": "0s", // changes come gathered already
		"etcd":                      object{"endpoints": []string{"127.0.0.1:" + strconv.Itoa(etcdPort)}, "rootKey": treeRoot},
		"file":                      object{"directory": c.dynamicDir(), "watch": true},
	}
}

func (c Config) entryOptions(proto string, http bool) object {
	if proto == "udp" {
		return object{}
	}
	ep := object{
		"transport": object{
			"lifeCycle":        object{"requestAcceptGraceTimeout": "0s", "graceTimeOut": c.Grace.String()},
			"keepAliveMaxTime": c.KeepAliveMaxTime.String(),
			"respondingTimeouts": object{
				"readTimeout": c.ReadTimeout.String(), "writeTimeout": "0s", "idleTimeout": "180s",
			},
		},
	}
	if http {
		ep["forwardedHeaders"] = object{"insecure": false, "trustedIPs": prefixes(c.TrustedProxies)}
	}
	return ep
}

func prefixes(ps []netip.Prefix) []string {
	out := make([]string, 0, len(ps))
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}
