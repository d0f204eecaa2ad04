package charttest

import (
	"os"
	"syscall"
)

// AtOnce starts this program anew in its own process, so that it ends at once. One
// that is built with the race detector waits a second at its end unless its
// environment says otherwise, and a Renderer gives it none. It still ends with an error
// when a race was seen.
func AtOnce() {
	const how = "GORACE"
	if os.Getenv(how) != "" {
		return
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), how+"=atexit_sleep_ms=0")); err != nil { //nolint:gosec // itself
		panic(err)
	}
}
