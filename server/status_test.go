package server

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	v1 "github.com/fairlead/fairlead/api/v1"
)

func TestStatusPrintsWhatContextAddAsksFor(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	want := v1.ClusterStatus{ServerInfo: v1.ServerInfo{Version: "1.2", Cluster: "c1"}, Node: "n1", CA: "sha256:ab", Serving: true, Ready: 3, StoreRev: 12345678}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(want) })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	t.Setenv("FAIRLEAD_SOCKET", socket)
	run := func(format string) []byte {
		c := statusCommand()
		c.Flags().String("output", format, "")
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetArgs(nil)
		if err := c.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	people := "version  1.2\nnode     n1\ncluster  c1\nserving  true\nca       sha256:ab\n"
	if diff := cmp.Diff(people, string(run("table"))); diff != "" {
		t.Error(diff)
	}
	for format, read := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": yaml.Unmarshal} {
		var got map[string]any
		if err := read(run(format), &got); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if format == "yaml" && !strings.Contains(string(run(format)), "store_rev: 12345678\n") {
			t.Errorf("a whole number is no longer one:\n%s", run(format))
		}
		if got["ca"] != "sha256:ab" || got["node"] != "n1" || got["serving"] != true {
			t.Errorf("%s: %v", format, got)
		}
	}
}

func TestInstallTellsOfItsOwnGateway(t *testing.T) {
	for want, gateways := range map[string]string{
		"":                           `[{"node":"n2","error":"lags"},{"node":"n1","route":3,"traefik":"3.6","since":"2026-01-02T00:00:01.5Z"}]`,
		"port 80/tcp is in use":      `[{"node":"n1","route":3,"traefik":"3.6","error":"port 80/tcp is in use"}]`,
		"Traefik does not serve yet": `[{"node":"n1","route":0},{"node":"n2","traefik":"3.6","since":"2026-01-02T00:00:01Z"}]`,
	} {
		var st map[string]any
		if err := json.Unmarshal([]byte(`{"node":"n1","gateways":`+gateways+`}`), &st); err != nil {
			t.Fatal(err)
		}
		// What the server before this one said does not count.
		if old := gatewayProblem(st, time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)); old == "" {
			t.Errorf("%s: the gateway of the server before counts", gateways)
		}
		if got := gatewayProblem(st, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%s: %q, not %q", gateways, got, want)
		}
	}
}
