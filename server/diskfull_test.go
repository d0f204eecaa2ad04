package server

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestAFullDiskIsExplained(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("etcd died: %w", syscall.ENOSPC),
		errors.New("etcd gave up: write wal: no space left on device"),
		fmt.Errorf("make the data directory: %w", syscall.EDQUOT),
	} {
		got := explainFull(err, "/var/lib/fairlead")
		if !errors.Is(got, err) || !strings.Contains(got.Error(), "the disk of /var/lib/fairlead is full: make room") {
			t.Errorf("%v", got)
		}
	}
	other := errors.New("port 80/tcp is in use")
	if got := explainFull(other, "/"); !errors.Is(got, other) || strings.Contains(got.Error(), "full") {
		t.Errorf("%v", got)
	}
	if explainFull(nil, "/") != nil {
		t.Error("an error without one")
	}
}
