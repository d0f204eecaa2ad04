package dns

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// upstream asks the node's own resolvers.
type upstream struct {
	file  string
	port  uint16        // of the resolvers; 0 means 53
	slots chan struct{} // bounds the questions under way

	mu      sync.Mutex
	own     []netip.Addr // our own addresses: never asked
	mod     time.Time
	size    int64
	servers []string
}

const (
	maxForwarded = 512             // questions under way at once
	upstreamWait = 2 * time.Second // for one server; a container's resolver gives up after 5 s
	maxUpstreams = 3               // as in every libc
)

func newUpstream(file string) *upstream {
	return &upstream{file: file, slots: make(chan struct{}, maxForwarded)}
}

func (u *upstream) exclude(own []netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.own, u.servers, u.mod = own, nil, time.Time{}
}

// list returns the resolvers to ask, read again when the file has changed.
func (u *upstream) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	st, err := os.Stat(u.file)
	if err != nil {
		return u.servers
	}
	if st.ModTime().Equal(u.mod) && st.Size() == u.size {
		return u.servers
	}
	conf, err := dns.ClientConfigFromFile(u.file)
	if err != nil {
		return u.servers
	}
	u.mod, u.size, u.servers = st.ModTime(), st.Size(), nil
	for _, s := range conf.Servers {
		a, err := netip.ParseAddr(s)
		if err != nil || slices.Contains(u.own, a) || len(u.servers) == maxUpstreams {
			continue
		}
		port := conf.Port
		if u.port != 0 {
			port = strconv.Itoa(int(u.port))
		}
		u.servers = append(u.servers, net.JoinHostPort(s, port))
	}
	return u.servers
}

// ask returns the first answer that is not a failure, else the last failure, else nil.
func (u *upstream) ask(req *dns.Msg, network string) *dns.Msg {
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	default:
		return nil
	}
	var last *dns.Msg
	c := dns.Client{Net: network, Timeout: upstreamWait, UDPSize: dns.DefaultMsgSize}
	for _, s := range u.list() {
		q := req.Copy()
		q.Id = dns.Id()
		resp, _, err := c.Exchange(q, s)
		if err != nil || resp == nil {
			continue
		}
		last = resp
		if resp.Rcode != dns.RcodeServerFailure && resp.Rcode != dns.RcodeRefused {
			return resp
		}
	}
	return last
}
