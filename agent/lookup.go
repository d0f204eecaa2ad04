package agent

import (
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/fairlead/fairlead/cluster"
)

// searchDomains are the domains in which a task's program looks names up. Docker's
// resolver keeps names without a dot to itself as soon as ndots is set, and does
// not know services: as "web.shop" they get to those who do. nodes returns the
// node's own domains, which Docker would give the container.
func searchDomains(s *cluster.TaskSpec, app cluster.AppName, nodes func() []string) []string {
	if !setsNdots(s.DNSOptions) || slices.Contains(s.DNSSearch, string(app)) {
		return s.DNSSearch
	}
	given := s.DNSSearch
	switch {
	case len(given) == 0:
		given = nodes()
	case slices.Equal(given, []string{"."}): // Docker's word for none
		given = nil
	}
	return append(slices.Clone(given), string(app))
}

func setsNdots(options []string) bool {
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, "ndots:"); ok {
			n, err := strconv.Atoi(v)
			return err == nil && n > 0
		}
	}
	return false
}

// nodeDomains are the node's own search domains.
func nodeDomains() []string {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	return conf.Search
}
