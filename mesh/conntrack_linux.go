package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of conntrack messages that the netlink library lacks.
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterDst          = 1 << 1
	filterProto        = 1 << 3
	nestedMask         = 0x3fff // of an attribute's type: without the flags
)

// dropFlows asks the kernel for the UDP flows to these addresses (to all, when
// there are none) and deletes those that are gone. The kernel picks them: a busy
// node has a hundred thousand flows, and reading all of them takes a second.
// Kernels before 5.8 send all, and they are picked here.
func (*kernel) dropFlows(to []netip.Addr, gone func(flow) bool) error {
	if len(to) == 0 {
		to = []netip.Addr{{}}
	}
	var errs []error
	for _, a := range to {
		msgs, err := listUDP(a)
		if err != nil {
			errs = append(errs, fmt.Errorf("list flows: %w", err))
			continue
		}
		for _, m := range msgs {
			if f, udp := parseFlow(m); udp && gone(f) {
				errs = append(errs, deleteFlow(m))
			}
		}
	}
	return errors.Join(errs...)
}

func ctRequest(operation, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|operation, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	return req
}

// listUDP returns the messages of the UDP flows to an address, or to any.
func listUDP(to netip.Addr) ([][]byte, error) {
	req := ctRequest(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	flags := uint32(filterProto)
	if to.IsValid() {
		flags |= filterDst
		tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(nl.CTA_IP_V4_DST, to.AsSlice())
	}
	tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil).AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
	req.AddData(tuple)
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags))
	req.AddData(filter)
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, nl.ErrDumpInterrupted) {
		err = nil // what changed meanwhile is new, and goes where the rules now send it
	}
	return msgs, err
}

// deleteFlow deletes one flow: the message that described it names it too.
func deleteFlow(msg []byte) error {
	req := ctRequest(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddRawData(msg[4:])
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// parseFlow reads what it needs of a conntrack message, and whether it is UDP.
func parseFlow(msg []byte) (f flow, udp bool) {
	if len(msg) < 4 {
		return f, false
	}
	top := attributes(msg[4:])
	orig, reply := attributes(top[nl.CTA_TUPLE_ORIG]), attributes(top[nl.CTA_TUPLE_REPLY])
	proto := attributes(orig[nl.CTA_TUPLE_PROTO])[nl.CTA_PROTO_NUM]
	there, back := attributes(orig[nl.CTA_TUPLE_IP]), attributes(reply[nl.CTA_TUPLE_IP])
	f = flow{from: addr(there[nl.CTA_IP_V4_SRC]), to: addr(there[nl.CTA_IP_V4_DST]), via: addr(back[nl.CTA_IP_V4_SRC])}
	return f, len(proto) == 1 && proto[0] == unix.IPPROTO_UDP
}

// attributes splits nested attributes; what is cut short ends the list.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])&nestedMask] = b[unix.SizeofNlAttr:size]
		b = b[min((size+3)&^3, len(b)):]
	}
	return out
}
