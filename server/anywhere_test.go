package server

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// forwarded is an address, of which the server at another knows nothing.
func forwarded(t *testing.T, to string) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// A machine joins by an address that the server's certificate does not have, as a name or a
// forwarded port is; the token says which authority the server must be of. A node looks for
// its servers there too.
func TestAMachineJoinsByAForwardedPort(t *testing.T) {
	a, other := authority(t), authority(t)
	door := forwarded(t, doorOf(t, a, "POST /v1/join", admitting(t, a, map[string]int{}, http.StatusOK)))
	fresh := func(join string) Config {
		return Config{DataDir: t.TempDir(), Node: "n2", NoGateway: true, Join: join, Docker: "tcp://127.0.0.1:1", Log: hclog.NewNullLogger()}
	}
	if j, err := openNode(t, fresh(door), false, tokenOf(t, a)); err != nil || j.Node != "n2" {
		t.Errorf("a new node: %v", err)
	}
	if _, err := openNode(t, fresh(door), false, tokenOf(t, other)); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "not of the authority") {
		t.Errorf("with the token of another cluster: %v", err)
	}

	moved := doorOf(t, a, "POST /v1/node/renew", renewing(t, a, "10.0.0.51:7420", "https://10.0.0.51:7421"))
	foreign := doorOf(t, other, "POST /v1/node/renew", renewing(t, other, "10.0.0.66:7420", "https://10.0.0.66:7421"))
	for at, want := range map[string]string{moved: "10.0.0.51:7420", foreign: "10.0.0.1:7420"} {
		cfg := member(t, a, time.Now(), "10.0.0.1:7420")
		cfg.Join = forwarded(t, at)
		j, err := openNode(t, cfg, false, "")
		if (err == nil) != (at == moved) || !slices.Equal(j.servers(), []string{want}) {
			t.Errorf("the servers are %v, %v; want %s", j.servers(), err, want)
		}
	}
}

// A machine that joins tells which volumes it has, or nothing where its engine does not
// answer: it is not said to have none.
func TestAMachineThatJoinsTellsItsVolumes(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/volumes") {
			_, _ = io.WriteString(w, `{"Volumes":[{"Name":"shop_data"},{"Name":"other"}]}`)
		}
	}))
	defer engine.Close()
	a := authority(t)
	for address, want := range map[string]string{engine.Listener.Addr().String(): `["shop_data","other"]`, "127.0.0.1:1": ""} {
		var told struct {
			Volumes json.RawMessage `json:"volumes"`
		}
		server := doorOf(t, a, "POST /v1/", func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewDecoder(r.Body).Decode(&told); err != nil {
				t.Error(err)
			}
			http.Error(w, "no", http.StatusForbidden)
		})
		cfg := Config{DataDir: t.TempDir(), Node: "n2", NoGateway: true, Join: server, Docker: "tcp://" + address, Log: hclog.NewNullLogger()}
		if _, err := openNode(t, cfg, false, tokenOf(t, a)); cluster.KindOf(err) != cluster.KindForbidden || string(told.Volumes) != want {
			t.Errorf("a node with the engine at %s: told %s, %v", address, told.Volumes, err)
		}
		told.Volumes = nil
		m := &machine{local: local{Config: cfg, now: time.Now}}
		_, err := m.askToServe(t.Context(), t.TempDir(), func() (string, error) { return tokenOf(t, a), nil })
		if cluster.KindOf(err) != cluster.KindForbidden || string(told.Volumes) != want {
			t.Errorf("a server with the engine at %s: told %s, %v", address, told.Volumes, err)
		}
	}
	if b, err := json.Marshal(v1.Join{Volumes: []string{}}); err != nil || !strings.Contains(string(b), `"volumes":[]`) {
		t.Errorf("a machine without volumes says %s, %v", b, err)
	}
}
