package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// askStatus reads the server's own account of itself through its socket.
func askStatus(ctx context.Context, socket string) (map[string]any, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://fairlead/v1/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", resp.Status)
	}
	var st map[string]any
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

var errServerEnded = errors.New("the server ended")

func waitReady(ctx context.Context, socket string, limit time.Duration, ended <-chan struct{}) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		st, err := askStatus(ctx, socket)
		if err == nil {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return nil, cluster.Transientf("the server does not answer within %s", limit)
		case <-ended:
			return nil, errServerEnded
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// waitGateway waits until this node's gateway serves by what a server says that was
// started after a time, and returns why it does not when that stays so: the server
// goes on without one, and tries again.
func waitGateway(ctx context.Context, socket string, after time.Time, limit time.Duration) (problem string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	problem = "it has not said anything yet"
	for {
		if st, err := askStatus(ctx, socket); err == nil {
			if problem = gatewayProblem(st, after); problem == "" {
				return ""
			}
		}
		select {
		case <-ctx.Done():
			return problem
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// gatewayProblem says what a status says is wrong with the gateway of the node
// that answers; "" is that Traefik serves. What was said before a time does not count.
func gatewayProblem(st map[string]any, after time.Time) string {
	list, _ := st["gateways"].([]any)
	for _, x := range list {
		g, _ := x.(map[string]any)
		if g["node"] != st["node"] {
			continue
		}
		if reason, _ := g["error"].(string); reason != "" {
			return reason
		}
		said, _ := g["since"].(string)
		since, err := time.Parse(time.RFC3339Nano, said)
		if traefik, _ := g["traefik"].(string); traefik != "" && err == nil && !since.Before(after) {
			return ""
		}
	}
	return "Traefik does not serve yet"
}
