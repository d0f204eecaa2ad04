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
	ctaStatus          = 3
	ctaStatusMask      = 26
	seenReply          = 1 << 1 // of a flow's status
	filterDst          = 1 << 1
	filterProto        = 1 << 3
	nestedMask         = 0x3fff // of an attribute's type: without the flags
)

// dropFlows asks the kernel for the UDP flows, and the TCP ones without an answer,
// to these addresses (to all, when there are none) and deletes those that are gone.
// The kernel picks them: a busy node has a hundred thousand flows, and reading all
// of them takes a second. Old kernels send more (those before 5.8 all), and they
// are picked here.
func (*kernel) dropFlows(to []netip.Addr, gone func(flow) bool) error {
	if len(to) == 0 {
		to = []netip.Addr{{}}
	}
	var errs []error
	for _, a := range to {
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			msgs, err := listFlows(a, proto)
			if err != nil {
				errs = append(errs, fmt.Errorf("list flows: %w", err))
				continue
			}
			for _, m := range msgs {
				if f, unsettled := parseFlow(m); unsettled && gone(f) {
					errs = append(errs, deleteFlow(m))
				}
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

// listFlows returns the messages of a protocol's flows to an address, or to any;
// of TCP, those without an answer.
func listFlows(to netip.Addr, proto byte) ([][]byte, error) {
	req := ctRequest(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	flags := uint32(filterProto)
	if to.IsValid() {
		flags |= filterDst
		tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(nl.CTA_IP_V4_DST, to.AsSlice())
	}
	tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil).AddRtAttr(nl.CTA_PROTO_NUM, []byte{proto})
	req.AddData(tuple)
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags))
	req.AddData(filter)
	if proto == unix.IPPROTO_TCP {
		req.AddData(nl.NewRtAttr(ctaStatus, binary.BigEndian.AppendUint32(nil, 0)))
		req.AddData(nl.NewRtAttr(ctaStatusMask, binary.BigEndian.AppendUint32(nil, seenReply)))
	}
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

// parseFlow reads what it needs of a conntrack message, and whether the flow may
// still go elsewhere: it is UDP, or TCP without an answer.
func parseFlow(msg []byte) (f flow, unsettled bool) {
	if len(msg) < 4 {
		return f, false
	}
	top := attributes(msg[4:])
	orig, reply := attributes(top[nl.CTA_TUPLE_ORIG]), attributes(top[nl.CTA_TUPLE_REPLY])
	there, back := attributes(orig[nl.CTA_TUPLE_IP]), attributes(reply[nl.CTA_TUPLE_IP])
	f = flow{from: addr(there[nl.CTA_IP_V4_SRC]), to: addr(there[nl.CTA_IP_V4_DST]), via: addr(back[nl.CTA_IP_V4_SRC])}
	proto, status := attributes(orig[nl.CTA_TUPLE_PROTO])[nl.CTA_PROTO_NUM], top[ctaStatus]
	if len(proto) != 1 {
		return f, false
	}
	answered := len(status) != 4 || binary.BigEndian.Uint32(status)&seenReply != 0
	return f, proto[0] == unix.IPPROTO_UDP || proto[0] == unix.IPPROTO_TCP && !answered
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
