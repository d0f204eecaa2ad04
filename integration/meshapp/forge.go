package main

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"syscall"
)

// forge sends a datagram that says to come from another address. The kernel adds
// the checksum of the header; one of the datagram is not needed.
func forge(from, to string) error {
	src, err := netip.ParseAddr(from)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	const header = 20
	text := "from " + from
	size := uint16(8 + len(text))
	b := make([]byte, header, 64)
	b[0], b[8], b[9] = 0x45, 64, syscall.IPPROTO_UDP // IPv4 without options, its TTL
	binary.BigEndian.PutUint16(b[2:], header+size)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.Addr().AsSlice())
	b = binary.BigEndian.AppendUint16(b, 5555)
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, size)
	b = append(append(b, 0, 0), text...)
	if err := syscall.Sendto(fd, b, 0, &syscall.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	return json.NewEncoder(os.Stdout).Encode(Report{})
}
