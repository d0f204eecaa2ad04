//go:build !linux

package dns

import (
	"errors"
	"syscall"
)

func freeBind(_, _ string, _ syscall.RawConn) error { return nil }

func duplicate(any) (int, error) { return -1, errors.New("not on this system") }
