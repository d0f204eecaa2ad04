package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// moveOn is how long one server may take to be connected to where there are others.
const moveOn = 3 * time.Second

// servers are a cluster's servers, any of which answers. The one that did last is
// asked first.
type servers struct {
	conf *tls.Config

	mu   sync.Mutex
	list []string // host:port
}

func (s *servers) add(others []string) {
	for _, o := range others {
		if o != "" && !slices.Contains(s.list, o) {
			s.list = append(s.list, o)
		}
	}
}

// dial connects to the first server that can be reached.
func (s *servers) dial(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	list := slices.Clone(s.list)
	s.mu.Unlock()
	var failed []error
	for _, server := range list {
		conn, err := s.one(ctx, server, len(list) > 1)
		if err == nil {
			s.prefer(server)
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(list) > 1 {
			err = fmt.Errorf("%s: %w", server, err)
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

func (s *servers) one(ctx context.Context, server string, others bool) (net.Conn, error) {
	if others {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, moveOn)
		defer cancel()
	}
	d := tls.Dialer{Config: s.conf}
	return d.DialContext(ctx, "tcp", server)
}

func (s *servers) prefer(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.list, server); i > 0 {
		s.list = slices.Insert(slices.Delete(s.list, i, i+1), 0, server)
	}
}
