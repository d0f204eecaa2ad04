//go:build !linux

package docker

import (
	"net"
	"time"
)

// Elsewhere only the command line uses engines, and asks for neither.
func peerStarted(net.Conn) time.Time { return time.Time{} }

func booted() time.Time { return time.Time{} }
