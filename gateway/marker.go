package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func parseMarker(url string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(url, markerPrefix), 10, 64)
	if err != nil || n < 0 || !strings.HasPrefix(url, markerPrefix) {
		return 0
	}
	return n
}

// api talks to the API of one Traefik process, on the loopback.
type api struct {
	client *http.Client
	base   string
}

func newAPI(port int) *api {
	return &api{
		client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second}},
		base:   "http://127.0.0.1:" + strconv.Itoa(port),
	}
}

// marker returns the revision that Traefik serves; 0 when its configuration has
// no marker yet, an error when the API does not answer.
func (a *api) marker(ctx context.Context) (int64, error) {
	var svc struct {
		LoadBalancer struct {
			Servers []struct {
				URL string `json:"url"`
			} `json:"servers"`
		} `json:"loadBalancer"`
	}
	found, err := a.get(ctx, "/api/http/services/"+markerService+"@etcd", &svc)
	if err != nil || !found || len(svc.LoadBalancer.Servers) == 0 {
		return 0, err
	}
	return parseMarker(svc.LoadBalancer.Servers[0].URL), nil
}

// loaded reports whether Traefik has read the tree at all.
func (a *api) loaded(ctx context.Context) (bool, error) {
	return a.get(ctx, "/api/http/middlewares/fairlead-seed@etcd", nil)
}

func (a *api) get(ctx context.Context, path string, into any) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return false, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("ask Traefik's API: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return false, fmt.Errorf("read Traefik's API: %w", err)
	case resp.StatusCode == http.StatusNotFound:
		return false, nil
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("the API of Traefik answers %s to %s", resp.Status, path)
	case into == nil:
		return true, nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return false, fmt.Errorf("read Traefik's API: %w", err)
	}
	return true, nil
}

func (a *api) close() { a.client.CloseIdleConnections() }
