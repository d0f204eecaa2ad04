package gateway

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// connections counts the TCP connections that a process's public entry points have.
func connections(p *process) (int, error) {
	ports := map[string]bool{}
	for _, port := range p.Ports {
		ports[strings.ToUpper(hex.EncodeToString([]byte{byte(port >> 8), byte(port)}))] = true //nolint:gosec // a port
	}
	n := 0
	// This thread's: /proc/net is the first thread's, which may be in another
	// network namespace.
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		b, err := os.ReadFile(file) //nolint:gosec // a path of the kernel's
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			if len(f) < 4 {
				continue
			}
			_, port, _ := strings.Cut(f[1], ":")
			// Established, or on the way there; what is closing needs nobody.
			if ports[port] && (f[3] == "01" || f[3] == "03") {
				n++
			}
		}
	}
	return n, nil
}
