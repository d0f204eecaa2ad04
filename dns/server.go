package dns

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/miekg/dns"

	"github.com/fairlead/fairlead/cluster"
)

// Config of a Server.
type Config struct {
	// Services is the range of service addresses.
	Services netip.Prefix
	// ResolvConf is the file that names the node's resolvers; "" means /etc/resolv.conf.
	ResolvConf string
	// Port to listen on; 0 means 53.
	Port uint16
	// TTL of answers in seconds. 0 is good: service addresses do not change, and
	// task addresses do.
	TTL uint32
	Log hclog.Logger
}

// Server is a node's name server for its containers.
type Server struct {
	cfg  Config
	zone atomic.Pointer[Zone]
	up   *upstream
	// containers is nil until SetContainers was called.
	containers atomic.Pointer[containers]
	waiting    chan struct{} // bounds the questions that wait for their container

	mu        sync.Mutex
	known     atomic.Bool // SetEndpoints was called
	endpoints []cluster.Endpoints
	networks  []Network
	listeners map[netip.Addr]*listener
	given     map[netip.Addr]Socket // by Use, not yet listened on
	closed    bool
	failing   chan struct{} // some network is not listened on
}

// New makes a server that listens nowhere yet.
func New(cfg Config) *Server {
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	s := &Server{cfg: cfg, listeners: map[netip.Addr]*listener{}, given: map[netip.Addr]Socket{}, up: newUpstream(cfg.ResolvConf)}
	s.waiting, s.failing = make(chan struct{}, maxWaiting), make(chan struct{}, 1)
	s.zone.Store(NewZone(cfg.Services, nil, nil))
	return s
}

// SetEndpoints changes what names mean, from the next question on. Until the first
// call a name that may be a service's is "try again", not "no such name".
func (s *Server) SetEndpoints(eps []cluster.Endpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = eps
	defer s.known.Store(true)
	s.zone.Store(NewZone(s.cfg.Services, s.endpoints, s.networks))
}

// SetNetworks listens on the gateways of these networks and on no others. It
// returns once it listens, with an error that names each address it could not
// have; Run goes on trying those.
func (s *Server) SetNetworks(ctx context.Context, nets []Network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.networks = slices.Clone(nets)
	s.zone.Store(NewZone(s.cfg.Services, s.endpoints, s.networks))
	own := make([]netip.Addr, 0, len(nets))
	for _, n := range nets {
		own = append(own, n.Gateway)
	}
	s.up.exclude(own)
	return s.listen(ctx)
}

// serve answers one message.
func (s *Server) serve(w dns.ResponseWriter, req *dns.Msg) {
	z := s.zone.Load()
	resp := new(dns.Msg)
	resp.SetReply(req)
	resp.RecursionAvailable = true
	client, ok := s.client(z, w.RemoteAddr(), w.LocalAddr())
	switch {
	case !ok, len(req.Question) != 1, req.Opcode != dns.OpcodeQuery, req.Question[0].Qclass != dns.ClassINET:
		resp.Rcode = dns.RcodeRefused
	default:
		q := req.Question[0]
		r := Answer(z, client, Question{Name: q.Name, Type: q.Qtype})
		if r.Verdict != Answered && s.await(&client) {
			r = Answer(z, client, Question{Name: q.Name, Type: q.Qtype})
		}
		switch r.Verdict {
		case Answered:
			s.records(resp, q, r)
		case Unknown:
			resp.Rcode = dns.RcodeNameError
			resp.Authoritative = true // or engines before 25 ask the next server
			if !s.known.Load() {
				resp.Rcode, resp.Authoritative = dns.RcodeServerFailure, false
			}
		case Elsewhere:
			// Docker's resolver asks its next server, which is the service's own.
			resp.Rcode = dns.RcodeServerFailure
		case Forward:
			resp = s.up.ask(req, w.RemoteAddr().Network())
		}
	}
	s.write(w, req, resp)
}

// client finds out who asks. Questions that did not come from the network whose
// gateway they were sent to are refused.
func (s *Server) client(z *Zone, remote, local net.Addr) (Client, bool) {
	from, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return Client{}, false
	}
	addr := from.Addr().Unmap()
	n, ok := z.network(addr)
	to, err := netip.ParseAddrPort(local.String())
	if err != nil || !ok || to.Addr().Unmap() != n.Gateway {
		return Client{}, false
	}
	c := Client{Addr: addr, Via: n.Name}
	if x, known := s.containers.Load().of(addr); known {
		c.is(x)
	}
	o := z.siblings[addr]
	if c.App == "" {
		c.App = o.app
	}
	if c.Networks == nil {
		c.on(o.networks)
	}
	return c, true
}

func (s *Server) records(resp *dns.Msg, q dns.Question, r Result) {
	resp.Authoritative = true
	hdr := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: s.cfg.TTL}
	hdr.Rrtype = dns.TypeA
	for _, a := range r.Addrs {
		resp.Answer = append(resp.Answer, &dns.A{Hdr: hdr, A: a.AsSlice()})
	}
	// Programs take the first address: let each task be first now and then.
	rand.Shuffle(len(resp.Answer), func(i, j int) { //nolint:forbidigo,gosec // spreading load needs no seed and no secrecy
		resp.Answer[i], resp.Answer[j] = resp.Answer[j], resp.Answer[i]
	})
	hdr.Rrtype = dns.TypePTR
	for _, n := range r.Names {
		resp.Answer = append(resp.Answer, &dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(n)})
	}
}

func (s *Server) write(w dns.ResponseWriter, req, resp *dns.Msg) {
	if resp == nil {
		resp = new(dns.Msg).SetRcode(req, dns.RcodeServerFailure)
	}
	resp.Id = req.Id
	size := dns.MinMsgSize
	if opt := req.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		if resp.IsEdns0() == nil {
			resp.SetEdns0(dns.DefaultMsgSize, false)
		}
	}
	if w.RemoteAddr().Network() == "tcp" {
		size = dns.MaxMsgSize
	}
	resp.Truncate(size)
	if err := w.WriteMsg(resp); err != nil {
		s.cfg.Log.Debug("could not answer a question", "client", w.RemoteAddr().String(), "error", err)
	}
}
