package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

func dial(ctx context.Context, kind, to string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, kind, to)
}

// forward passes what comes in at l on to what reach connects to, until ctx ends.
func forward(ctx context.Context, l net.Listener, reach func(context.Context) (net.Conn, error)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // of that connection alone
		}
		go func() {
			defer c.Close() //nolint:errcheck // both ends are done
			to, err := reach(ctx)
			if err != nil {
				return
			}
			defer to.Close() //nolint:errcheck // as above
			join(c, to)
		}()
	}
}

// join copies both ways until both ends have said all.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if half, ok := way[0].(interface{ CloseWrite() error }); ok && err == nil {
				_ = half.CloseWrite()
				return
			}
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	wg.Wait()
}
