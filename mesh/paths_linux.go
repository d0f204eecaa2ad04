package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

const (
	tryPort  = 33434 // where no packet of a trial ever gets
	tryAgain = time.Second
)

// try sends them all, and waits for what is said of each until ctx ends.
func (k *kernel) try(ctx context.Context, all map[cluster.NodeID]trial) (map[cluster.NodeID]outcome, error) {
	got, open, waiting := map[cluster.NodeID]outcome{}, map[cluster.NodeID]int{}, map[cluster.NodeID]int{}
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd)
		}
	}()
	for node, t := range all {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
		open[node] = fd
		if got[node] = t.begin(fd); got[node] == gotLost {
			waiting[node] = fd
		}
	}
	sent, next := 1, time.Now().Add(tryAgain) //nolint:forbidigo // of packets on a wire
	for tick := 20 * time.Millisecond; ; tick = min(2*tick, 500*time.Millisecond) {
		again := sent < packets && !time.Now().Before(next) //nolint:forbidigo // as above
		for node, fd := range waiting {
			if o, told := all[node].answer(fd); told {
				got[node] = o
				delete(waiting, node)
			} else if again {
				_ = all[node].send(fd) // what it says is read from the socket
			}
		}
		if again {
			sent, next = sent+1, next.Add(tryAgain)
		}
		if len(waiting) == 0 {
			return got, nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return got, nil
			}
			return nil, context.Cause(ctx)
		case <-time.After(tick):
		}
	}
}

// begin sends the first packet; lost is what nothing is said of.
func (t trial) begin(fd int) outcome {
	routes, err := netlink.RouteGet(t.to.AsSlice())
	if err != nil || len(routes) == 0 || addr(routes[0].Gw) != t.via {
		return untold // the route is missing, which is told elsewhere
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: t.from.As4()}),
	)
	if err == nil {
		err = t.send(fd)
	}
	if err != nil && !errors.Is(err, unix.ENOKEY) { // a bridge that is gone, or a firewall of this node
		return untold
	}
	return gotLost // so it is where WireGuard has no key for that address
}

// send sends a packet that the node at the other end may not forward any more.
func (t trial) send(fd int) error {
	return unix.Sendto(fd, []byte("fairlead"), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: t.to.As4(), Port: tryPort})
}

// answer is what was said of the packets that a socket sent, if anything.
func (t trial) answer(fd int) (_ outcome, told bool) {
	const timeExceeded = 11 // of ICMP
	var data, oob [512]byte
	for {
		_, n, _, _, err := unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return untold, false
		}
		all, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			return untold, false
		}
		for _, c := range all {
			// struct sock_extended_err, and the address of who says it.
			if c.Header.Level != unix.IPPROTO_IP || c.Header.Type != unix.IP_RECVERR || len(c.Data) < 24 {
				continue
			}
			origin, what := c.Data[4], c.Data[5]
			who := netip.Addr{}
			if binary.NativeEndian.Uint16(c.Data[16:]) == unix.AF_INET {
				who = netip.AddrFrom4([4]byte(c.Data[20:24]))
			}
			switch {
			case origin == unix.SO_EE_ORIGIN_ICMP && what == timeExceeded && who == t.via:
				return arrived, true
			case origin == unix.SO_EE_ORIGIN_ICMP && what == timeExceeded: // another machine is between
			case origin == unix.SO_EE_ORIGIN_ICMP && who.IsValid() && who != t.from:
				return gotLost, true // somebody in between refuses it
			}
			return untold, true // this machine itself: nobody is at that address
		}
	}
}
