package lab

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// What a lab shows of its cluster comes from a server that knows, whichever that is.
func TestALabAsksAServerThatKnows(t *testing.T) {
	const current, away, starting = 0, -1, -2 // else for how many seconds it has not heard from a majority
	for name, c := range map[string]struct {
		servers []int
		alive   string // the node that the server which is believed calls alive, after itself
		unknown bool
		doubt   string
	}{
		"the first":             {servers: []int{current, current}, alive: "n1"},
		"the first is killed":   {servers: []int{away, current, current}, alive: "n2"},
		"the first is starting": {servers: []int{starting, current}, alive: "n2"},
		"the first is cut off":  {servers: []int{42, away, current}, alive: "n3"},
		"two are away":          {servers: []int{away, away, 42}, alive: "n3", doubt: "may be as it was"},
		"the first of the old":  {servers: []int{42, 43}, alive: "n1", doubt: "n2: it has not heard from a majority for 43s"},
		"all are away":          {servers: []int{away, away}, unknown: true, doubt: "no server answers"},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := os.MkdirTemp("", "fl") //nolint:usetesting // a socket's path has at most 107 bytes
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(root) //nolint:errcheck // a temporary directory
			r := &rack{dir: Dir(root), state: State{Spec: Spec{Name: "t", Nodes: len(c.servers) + 1, Servers: len(c.servers)}}}
			for i, how := range c.servers {
				if node := "n" + strconv.Itoa(i+1); how != away {
					serveAt(t, r.dir, node, how)
				}
			}
			got := r.clusterSays(t.Context())
			if c.unknown != got.nothing || !strings.Contains(got.doubt, c.doubt) || c.doubt == "" && got.doubt != "" {
				t.Errorf("nothing is known: %v; doubt: %q", got.nothing, got.doubt)
			}
			want := map[string]bool{c.alive: true}
			if c.unknown {
				want = nil
			}
			if diff := cmp.Diff(want, got.alive); diff != "" {
				t.Error(diff)
			}
			if got := r.apiAnswers(t.Context()); got == c.unknown {
				t.Errorf("takes invitations: %v", got)
			}
		})
	}
}

// serveAt answers as the server of a node that calls itself alive. With seconds it has not
// heard from a majority for so long, or when that is negative since it started.
func serveAt(t *testing.T, d Dir, node string, seconds int) {
	t.Helper()
	l, err := listenUnix(t.Context(), d.APISocket(node))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seconds < 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if seconds > 0 {
			w.Header().Set(v1.HeaderStale, strconv.Itoa(seconds))
			w.Header().Set(v1.HeaderStaleServer, node)
		}
		var body any
		switch r.URL.Path {
		case "/v1/nodes":
			body = []v1.NodeSummary{{ID: cluster.NodeID(node), Alive: true}}
		case "/v1/status":
			body = v1.ClusterStatus{}
		case "/v1/health":
			body = v1.ServerHealth{Ready: true}
		}
		_ = json.NewEncoder(w).Encode(body)
	})}
	go func(l net.Listener) { _ = srv.Serve(l) }(l)
	t.Cleanup(func() { _ = srv.Close() })
}
