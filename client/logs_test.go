package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

var web = cluster.Address{App: "shop", Service: "web"}

func at(n int) time.Time { return time.Unix(int64(n), 0).UTC() }

// saying is a server of logs that sends lines and then ends as how says: "end", "break",
// "gone" (there is no such app), "starting", or "hang".
func saying(asked *[]string, how string, lines ...cluster.LogLine) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		*asked = append(*asked, fmt.Sprintf("tail %s, since %q, after %q", q.Get("tail"), q.Get("since"), q["after"]))
		w.Header().Set("Date", at(1000).Format(http.TimeFormat))
		switch how {
		case "gone":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(v1.Problem{Kind: cluster.KindNotFound.String(), Detail: "no app shop"})
			return
		case "starting":
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for _, l := range lines {
			b, _ := json.Marshal(l)
			_, _ = fmt.Fprintf(w, "event: line\ndata: %s\n\n", b)
		}
		_ = http.NewResponseController(w).Flush()
		switch how {
		case "end":
			_, _ = fmt.Fprint(w, "event: end\ndata: {}\n\n")
		case "hang":
			<-r.Context().Done()
		}
	}
}

// A log that is followed asks for what it has not had: of each task that it heard of what
// is newer, of the others all, once the first lines of all have come.
func TestAFollowedLogAsksForTheRest(t *testing.T) {
	one, two := cluster.LogLine{Task: "a", Time: at(7), Text: "one"}, cluster.LogLine{Task: "b", Time: at(3), Text: "two"}
	for name, c := range map[string]struct {
		o       cluster.LogOptions
		servers []string // what they do in turn
		lines   []cluster.LogLine
		asked   []string
		broken  int
		err     cluster.Kind
	}{
		"all, and it dies": {
			o: cluster.LogOptions{Tail: -1}, servers: []string{"break", "end"}, lines: []cluster.LogLine{one, two}, broken: 1,
			asked: []string{`tail -1, since "", after []`, `tail -1, since "", after ["a@1970-01-01T00:00:07Z" "b@1970-01-01T00:00:03Z"]`},
		},
		"the last lines": {
			o: cluster.LogOptions{Tail: 5}, servers: []string{"break", "starting", "end"}, lines: []cluster.LogLine{one}, broken: 1,
			asked: []string{`tail 5, since "", after []`, `tail -1, since "", after ["a@1970-01-01T00:00:07Z"]`, `tail -1, since "", after ["a@1970-01-01T00:00:07Z"]`},
		},
		"nothing was heard yet": {
			o: cluster.LogOptions{Tail: 5, Since: at(2)}, servers: []string{"break", "end"}, broken: 1,
			asked: []string{`tail 5, since "1970-01-01T00:00:02Z", after []`, `tail 5, since "1970-01-01T00:00:02Z", after []`},
		},
		"what is new alone": {
			o: cluster.LogOptions{Tail: 0}, servers: []string{"break", "end"}, lines: []cluster.LogLine{one}, broken: 1,
			asked: []string{`tail 0, since "", after []`, `tail -1, since "1970-01-01T00:16:40Z", after ["a@1970-01-01T00:00:07Z"]`},
		},
		"it was removed": {
			o: cluster.LogOptions{Tail: -1}, servers: []string{"break", "gone"}, broken: 1,
			asked: []string{`tail -1, since "", after []`, `tail -1, since "", after []`},
		},
		"it was never there":     {o: cluster.LogOptions{Tail: -1}, servers: []string{"gone"}, asked: []string{`tail -1, since "", after []`}, err: cluster.KindNotFound},
		"no server ever answers": {o: cluster.LogOptions{Tail: -1}, servers: []string{"starting"}, asked: []string{`tail -1, since "", after []`}, err: cluster.KindTransient},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			cl := clusterOf(t, client.Options{}, func(w http.ResponseWriter, r *http.Request) {
				saying(&asked, c.servers[min(len(asked), len(c.servers)-1)], c.lines...)(w, r)
				c.lines = nil // once
			})
			c.o.Follow = true
			broken := 0
			err := cl.Logs(t.Context(), web, client.LogQuery{LogOptions: c.o, Broken: func(error) { broken++ }}, func(cluster.LogLine) error { return nil })
			if (err != nil) != (c.err != cluster.KindOther) || err != nil && cluster.KindOf(err) != c.err || broken != c.broken {
				t.Errorf("%v, broken %d times", err, broken)
			}
			if diff := cmp.Diff(c.asked, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Another server is asked when the one that is asked dies.
func TestAFollowedLogMovesToAnotherServer(t *testing.T) {
	p, err := pki.Open(filepath.Join(t.TempDir(), "pki"), pki.Host{Node: "n1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var first, second []string
	one := servingBy(t, p, saying(&first, "hang", cluster.LogLine{Task: "a", Time: at(7), Text: "by the first"}))
	two := servingBy(t, p, saying(&second, "end", cluster.LogLine{Task: "a", Time: at(8), Text: "by the second"}))
	cl, err := client.New(client.Options{URL: one.URL, Fingerprint: p.Fingerprint(), Others: []string{strings.TrimPrefix(two.URL, "https://")}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var got []string
	broken := 0
	o := client.LogQuery{LogOptions: cluster.LogOptions{Follow: true, Tail: -1}, Broken: func(error) { broken++ }}
	err = cl.Logs(t.Context(), web, o, func(l cluster.LogLine) error {
		if got = append(got, l.Text); len(got) == 1 {
			_ = one.Listener.Close()
			go one.CloseClientConnections()
		}
		return nil
	})
	if diff := cmp.Diff([]string{"by the first", "by the second"}, got); err != nil || diff != "" || broken != 1 {
		t.Errorf("%v, broken %d times: %s", err, broken, diff)
	}
	if diff := cmp.Diff([]string{`tail -1, since "", after ["a@1970-01-01T00:00:07Z"]`}, second); diff != "" {
		t.Error(diff)
	}
}

// Ctrl-C ends it at once, also while no server answers; so does who does not want more.
func TestAFollowedLogEndsAtOnce(t *testing.T) {
	var asked []string
	ctx, cancel := context.WithCancel(t.Context())
	cl := clusterOf(t, client.Options{}, func(w http.ResponseWriter, r *http.Request) {
		how := "hang"
		if len(asked) > 0 {
			how = "starting"
		}
		saying(&asked, how, cluster.LogLine{Task: "a", Time: at(1)})(w, r)
	})
	full := errors.New("the disk is full")
	o := client.LogQuery{LogOptions: cluster.LogOptions{Follow: true}, Broken: func(error) { cancel() }}
	if err := cl.Logs(ctx, web, o, func(cluster.LogLine) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	asked = nil
	if err := cl.Logs(ctx, web, o, func(cluster.LogLine) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
