package dns

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// freeBind lets a socket be bound before the bridge has its address.
func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}

// duplicate copies the descriptor of a connection or a listener.
func duplicate(conn any) (int, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("a name server's socket has no descriptor")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	if cerr := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, fmt.Errorf("copy a name server's socket: %w", err)
	}
	return dup, nil
}
