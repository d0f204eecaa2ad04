package names

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/dns"
)

// part is one of the three things that the process is fed, each as a whole. It
// names the file that keeps it.
type part string

const (
	partNetworks   part = "networks"   // []dns.Network
	partEndpoints  part = "endpoints"  // []cluster.Endpoints
	partContainers part = "containers" // []dns.Container
)

// request is what the server says. A process and a server may be of different
// versions: what is asked first (Begin, Sockets, Retire) must keep its meaning.
type request struct {
	// Begin comes first, also to a process that has begun.
	Begin *begin `json:"begin,omitempty"`
	// Given are the addresses of the sockets that come with this.
	Given []netip.Addr `json:"given,omitempty"`
	// Recall starts to serve what is kept.
	Recall bool `json:"recall,omitempty"`
	// Part is to be served from now on; Body is all of it.
	Part part            `json:"part,omitempty"`
	Body json.RawMessage `json:"body,omitempty"`
	// Sockets asks for copies of the sockets that are not held.
	Sockets bool         `json:"sockets,omitempty"`
	Held    []netip.Addr `json:"held,omitempty"`
	// Retire ends the process, after it has answered what it has read.
	Retire bool `json:"retire,omitempty"`
}

// begin is what does not change while a process runs.
type begin struct {
	Services netip.Prefix `json:"services"`
	// Of tests: the port that is asked, and the node's own resolvers.
	Port       uint16 `json:"port,omitempty"`
	ResolvConf string `json:"resolv_conf,omitempty"`
}

// reply answers each request, once it is done.
type reply struct {
	Error   string `json:"error,omitempty"`
	Warning string `json:"warning,omitempty"` // it is served, and was not kept
	// Given are the addresses of the sockets that come with this, Gone those that
	// are held and not listened on any more.
	Given []netip.Addr `json:"given,omitempty"`
	Gone  []netip.Addr `json:"gone,omitempty"`
}

const (
	maxSockets = 100       // in one message: the kernel takes 253 descriptors
	maxMessage = 256 << 20 // more is no message of ours
)

// send writes a message and the sockets that come with it, which stay open here.
func send(c *net.UnixConn, m any, socks []dns.Socket) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	fds := make([]int, 0, 2*len(socks))
	for _, s := range socks {
		fds = append(fds, s.UDP, s.TCP)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b))) //nolint:gosec // far below
	if _, _, err := c.WriteMsgUnix(head, oob, nil); err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

// receive reads a message and the descriptors that come with it.
func receive(c *net.UnixConn, m any) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	head, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4*2*maxSockets))
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if fds, err = rights(oob[:oobn]); err != nil {
		return fds, err
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return fds, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return fds, fmt.Errorf("a message of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c, b); err != nil {
		return fds, err
	}
	return fds, json.Unmarshal(b, m)
}

func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

// sockets makes sockets of addresses and the descriptors that came with them.
func sockets(addrs []netip.Addr, fds []int) ([]dns.Socket, error) {
	if len(fds) != 2*len(addrs) {
		closeAll(fds)
		return nil, errors.New("a message without the sockets that it names")
	}
	out := make([]dns.Socket, len(addrs))
	for i, a := range addrs {
		out[i] = dns.Socket{Addr: a, UDP: fds[2*i], TCP: fds[2*i+1]}
	}
	return out, nil
}

func addrs(socks []dns.Socket) []netip.Addr {
	out := make([]netip.Addr, len(socks))
	for i, s := range socks {
		out[i] = s.Addr
	}
	return out
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
