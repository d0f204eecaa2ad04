package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// tryPort is where no packet of a trial ever gets.
const tryPort = 33434

// try sends them all, and waits for what is said of each until ctx ends.
func (k *kernel) try(ctx context.Context, all map[cluster.NodeID]trial) (map[cluster.NodeID]outcome, error) {
	got, open := map[cluster.NodeID]outcome{}, map[cluster.NodeID]int{}
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
		open[node], got[node] = fd, gotLost
		if err := t.send(fd); err != nil { // a bridge that is gone, or a firewall of this node
			got[node] = untold
		}
	}
	for tick := 20 * time.Millisecond; ; tick = min(2*tick, 500*time.Millisecond) {
		waits := false
		for node, fd := range open {
			if got[node] != gotLost {
				continue
			}
			if o, told := answer(fd, all[node].from); told {
				got[node] = o
			} else {
				waits = true
			}
		}
		if !waits {
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

// send sends a packet that the node at the other end may not forward any more.
func (t trial) send(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: t.from.As4()}),
		unix.Sendto(fd, []byte("fairlead"), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: t.to.As4(), Port: tryPort}),
	)
}

// answer is what was said of the packet that a socket sent, if anything.
func answer(fd int, from netip.Addr) (_ outcome, told bool) {
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
			case origin == unix.SO_EE_ORIGIN_ICMP && what == timeExceeded:
				return arrived, true
			case origin == unix.SO_EE_ORIGIN_ICMP && who.IsValid() && who != from:
				return gotLost, true // somebody in between refuses it
			}
			return untold, true // this machine itself: nobody is at that address
		}
	}
}
