package names

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// The rule is: no init functions. This one is why the process has 4.6 MB of its own
// and not 7: Go initialises packages in the order of their import paths, as soon
// as what they import is ready, so that it runs before most of the heavy ones
// (etcd, Vault, JSON schema) are set up, which it never needs. It lives as long as
// the process and never returns.
func init() {
	if len(os.Args) != 3 || os.Args[1] != Command {
		return
	}
	if err := run(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "fairlead:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run is the process.
func run(dir string) error {
	f := os.NewFile(listenFD, "feed")
	l, err := net.FileListener(f)
	_ = f.Close()
	ul, ok := l.(*net.UnixListener)
	if err != nil || !ok {
		return fmt.Errorf("\"fairlead %s\" is run by the server, which talks to it", Command)
	}
	_ = os.WriteFile("/proc/self/comm", []byte("fairlead-names"), 0)         // it was started as "exe"
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) //nolint:forbidigo // this is a main
	defer stop()
	debug.FreeOSMemory()
	log := hclog.New(&hclog.LoggerOptions{Name: Command, Level: hclog.Warn, Output: os.Stderr})
	return serve(ctx, dir, ul, log)
}
