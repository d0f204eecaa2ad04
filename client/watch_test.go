package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Whoever waits for a change does so though its server ends, and hears of it once; what is
// refused, or ended by whoever listens, is the end.
func TestAWatchOutlivesItsServer(t *testing.T) {
	enough := errors.New("enough")
	for name, c := range map[string]struct {
		servers []string // what they do in turn
		told    int
		asked   []string
		stop    int // after so many progresses
		kind    cluster.Kind
		err     error
	}{
		"it is done":              {servers: []string{"done"}, asked: []string{"0"}},
		"it dies":                 {servers: []string{"progress", "done"}, told: 1, asked: []string{"0", "7"}},
		"it dies and starts":      {servers: []string{"progress", "away", "away", "done"}, told: 1, asked: []string{"0", "7", "7", "7"}},
		"it dies twice":           {servers: []string{"progress", "away", "more", "done"}, told: 2, asked: []string{"0", "7", "7", "7"}},
		"it is away at first":     {servers: []string{"away", "done"}, told: 1, asked: []string{"0", "0"}},
		"it does not know yet":    {servers: []string{"progress", "gone", "gone", "done"}, told: 1, asked: []string{"0", "7", "7", "7"}},
		"the app is gone":         {servers: []string{"progress", "gone", "gone", "gone", "gone", "gone", "gone"}, told: 1, asked: []string{"0", "7", "7", "7", "7", "7", "7"}, kind: cluster.KindNotFound},
		"there is none":           {servers: []string{"gone"}, asked: []string{"0"}, kind: cluster.KindNotFound},
		"it is cut off each time": {servers: []string{"progress", "progress", "progress", "done"}, told: 1, asked: []string{"0", "7", "7", "7"}},
		"it dies at its end":      {servers: []string{"last"}, asked: []string{"0"}},
		"who listens has enough":  {servers: []string{"progress"}, asked: []string{"0"}, stop: 1, err: enough},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked []string
			cl := answering(t, func(w http.ResponseWriter, r *http.Request) {
				how := c.servers[len(asked)]
				asked = append(asked, r.URL.Query().Get("release"))
				problem := func(status int, kind cluster.Kind) {
					w.Header().Set("Content-Type", "application/problem+json")
					w.WriteHeader(status)
					_ = json.NewEncoder(w).Encode(v1.Problem{Kind: kind.String(), Detail: how})
				}
				switch how {
				case "away":
					problem(http.StatusServiceUnavailable, cluster.KindTransient)
				case "gone":
					problem(http.StatusNotFound, cluster.KindNotFound)
				default:
					over, message := how == "done" || how == "last", map[string]string{"more": "more"}[how]
					_, _ = fmt.Fprintf(w, "event: progress\ndata: {\"release\": 7, \"done\": %v, \"message\": %q}\n\n", over, message)
				}
				if how == "done" {
					_, _ = fmt.Fprint(w, "event: end\ndata: {}\n\n")
				}
			})
			told, heard := 0, 0
			err := cl.Watch(t.Context(), "shop", 0, func(error) { told++ }, func(v1.Progress) error {
				if heard++; heard == c.stop {
					return enough
				}
				return nil
			})
			if told != c.told || !slices.Equal(asked, c.asked) {
				t.Errorf("told %d times, not %d; asked for %v, not %v", told, c.told, asked, c.asked)
			}
			if c.err != nil && !errors.Is(err, c.err) || c.err == nil && (err != nil) != (c.kind != 0) || c.kind != 0 && cluster.KindOf(err) != c.kind {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
