package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Names of links: the switch in the rack's network, each machine's end of its
// cable. The switch's end is named after the machine.
const (
	switchName  = "switch"
	machineLink = "eth0"
)

// makeSwitch makes the lab's network out of the empty one that the rack is in.
func makeSwitch() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = switchName
	// Its own: else it would be that of a port.
	bridge.HardwareAddr = net.HardwareAddr{2, 0, 10, 99, 0, 254}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(bridge)); err != nil {
		return fmt.Errorf("make the switch: %w", err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: switchAddress().AsSlice(), Mask: net.CIDRMask(network.Bits(), 32)}}
	// The way out of the lab leads nowhere, and says so: connections to the outside
	// fail at once instead of late.
	nowhere := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Type: unix.RTN_UNREACHABLE}
	err = errors.Join(netlink.AddrAdd(bridge, addr), netlink.LinkSetUp(bridge), netlink.RouteAdd(nowhere),
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	if err != nil {
		return fmt.Errorf("set up the switch: %w", err)
	}
	for _, c := range []string{"all", "default"} { // labs have IPv4 alone
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+c+"/disable_ipv6", []byte("1"), 0)
	}
	// Else bridged packets would pass iptables too: there are no rules, but it takes time.
	_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0)
	return nil
}

// bridgeSwitches says whether bridged packets pass the firewall of the network that it
// is read in; it is there once the kernel has br_netfilter.
const bridgeSwitches = "/proc/sys/net/bridge"

// spareBridges keeps the machine's own bridges as they are. Nodes need br_netfilter and
// load it, for the whole kernel: from then on what passes any bridge of the machine would
// also pass its firewall, where a virtual machine's packets may be dropped. So it is
// loaded before them, and switched off in the machine's own network. Since Linux 5.3
// each network has switches of its own, and a node's are on. Where the module is there
// already, they are the machine's choice.
func spareBridges(dir string, load func() error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if load() != nil {
		return nil // a node's Fairlead says what it lacks
	}
	var failed error
	for _, family := range []string{"ip", "ip6", "arp"} {
		file := filepath.Join(dir, "bridge-nf-call-"+family+"tables")
		f, err := os.OpenFile(file, os.O_WRONLY, 0) //nolint:gosec // a switch of the kernel
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = f.WriteString("0\n")
			err = errors.Join(err, f.Close())
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

func loadBridgeFilter() error {
	return exec.Command("modprobe", "br_netfilter").Run() //nolint:noctx // a second at most
}

// plug connects a machine, by its first process, to the switch.
func plug(name string, pid int) error {
	bridge, err := netlink.LinkByName(switchName)
	if err != nil {
		return err
	}
	unplug(name)
	cable := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: machineLink, PeerNamespace: netlink.NsPid(pid)}
	cable.Name, cable.MasterIndex = name, bridge.Attrs().Index
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("connect %s to the switch: %w", name, err)
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return fmt.Errorf("connect %s to the switch: %w", name, err)
	}
	return nil
}

// unplug takes a machine's cable away. The kernel would too, some time after the
// machine's end.
func unplug(name string) {
	if old, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(old)
	}
}

// setRules gives the switch its rules.
func setRules(rules string) error {
	cmd := exec.Command("nft", "-f", "-") //nolint:noctx // it takes milliseconds
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("give the switch its rules: %w: %s", err, out)
	}
	return nil
}
