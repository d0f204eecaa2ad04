package charttest

import (
	"os"
	"syscall"
)

const race, atOnce = "GORACE", "atexit_sleep_ms=0"

// Self is the command that makes this program, with an argument, the process of a
// Renderer, and ends at once. One that is built with the race detector waits a second at
// its end unless its environment says otherwise, and a Renderer gives it none. It still
// ends with an error when a race was seen.
func Self(arg string) ([]string, error) {
	self, err := os.Executable()
	return []string{"env", race + "=" + atOnce, self, arg}, err
}

// AtOnce is for a program that others start: it starts anew in its own process, which
// takes as long again.
func AtOnce() {
	if os.Getenv(race) != "" {
		return
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), race+"="+atOnce)); err != nil { //nolint:gosec // itself
		panic(err)
	}
}
