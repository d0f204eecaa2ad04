// Command fairlead is the whole of Fairlead: server, agent, gateway and command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fairlead/fairlead/cli"
	"github.com/fairlead/fairlead/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: time.Now}
	context.AfterFunc(ctx, stop) // the first signal ends it in order, the second at once
	code := cli.Main(ctx, os.Args[1:], streams, server.Commands(cli.Version, time.Now)...)
	stop()
	os.Exit(code)
}
