package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// setRate limits what leaves by a link.
func setRate(link netlink.Link, p Pace) error {
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	rate, burst, limit := p.bucket()
	tbf := &netlink.Tbf{QdiscAttrs: attrs, Rate: rate, Limit: limit}
	if p.Rate == 0 {
		if err := netlink.QdiscDel(tbf); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("take the limit off %s: %w", link.Attrs().Name, err)
		}
		return nil
	}
	tbf.Buffer = netlink.Xmittime(rate, burst)
	if err := netlink.QdiscReplace(tbf); err != nil {
		return fmt.Errorf("limit %s to %s: %w", link.Attrs().Name, p, err)
	}
	return nil
}

// line delays and loses the frames of a machine: it stands between the machine's
// cable and the switch. This kernel may have no netem, which would do it.
type line struct {
	node  string
	files []*os.File
	g     errgroup.Group
}

// openLine takes a machine's cable out of the switch, and puts a line between.
func openLine(node string, p Pace) (*line, error) {
	cable, err := netlink.LinkByName(node)
	if err != nil {
		return nil, err
	}
	bridge, err := netlink.LinkByName(switchName)
	if err != nil {
		return nil, err
	}
	l := &line{node: node}
	port, err := l.openPort()
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	end, err := l.openCable(cable.Attrs().Index)
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	tap, err := netlink.LinkByName(longWay(node))
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	// Without ARP the end of the cable, which is no port any more, answers to nobody.
	for _, err := range []error{
		netlink.LinkSetNoMaster(cable), netlink.LinkSetARPOff(cable), netlink.LinkSetMaster(tap, bridge), netlink.LinkSetUp(tap),
	} {
		if err != nil {
			return nil, errors.Join(fmt.Errorf("put a slow line to %s: %w", node, err), l.close())
		}
	}
	for i, way := range [][2]*os.File{{port, end}, {end, port}} {
		dice := rand.New(rand.NewPCG(uint64(cable.Attrs().Index), uint64(i))) //nolint:gosec // it loses packets, no secrets
		l.g.Go(func() error {
			return carry(way[0], way[1], p.Delay.D(), func() bool { return dice.Float64() < p.Loss })
		})
	}
	return l, nil
}

// openPort makes the switch's port. What it reads and writes are frames behind the
// kernel's short description of what is still to be done to them: so neither a
// checksum nor a large segment is ever completed here.
func (l *line) openPort() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w; a delay or a loss needs it", err)
	}
	req, err := unix.NewIfreq(longWay(l.node))
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make the port of a slow line: %w", err)
	}
	f := os.NewFile(uintptr(fd), longWay(l.node))
	l.files = append(l.files, f)
	return f, nil
}

// openCable opens the switch's end of a machine's cable, for all that the machine
// sends, and to send to it.
func (l *line) openCable(index int) (*os.File, error) {
	all := htons(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the cable of %s: %w", l.node, err)
	}
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}),
	} {
		if err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("open the cable of %s: %w", l.node, err)
		}
	}
	f := os.NewFile(uintptr(fd), l.node)
	l.files = append(l.files, f)
	return f, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// close puts the cable back into the switch. One that is gone, with its machine, needs
// no more than its files to be closed.
func (l *line) close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close()) // with its file the port is gone
	}
	_ = l.g.Wait() // they end because their files are closed
	cable, err := netlink.LinkByName(l.node)
	if err != nil {
		return errors.Join(errs...)
	}
	bridge, err := netlink.LinkByName(switchName)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, netlink.LinkSetARPOn(cable), netlink.LinkSetMaster(cable, bridge))...)
}

// slowMachine makes what a machine sends as slow as that. Where packets are lost each
// is to be one, and no large segment.
func slowMachine(p Pace) error {
	eth, err := netlink.LinkByName(machineLink)
	if err != nil {
		return err
	}
	segments := 65535
	if p.Loss > 0 {
		segments = 1
	}
	return errors.Join(netlink.LinkSetGSOMaxSegs(eth, segments), setRate(eth, p))
}
