package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/store"
)

// engineCerts has the certificates that the Docker engine of this machine trusts, by
// registry: what it may pull from, is looked at.
const engineCerts = "/etc/docker/certs.d"

// lastScan is what registries said of a delivery's images.
type lastScan struct {
	policies string
	at       time.Time
	asked    int64 // the last request that it followed
	states   []cluster.ImageState
}

// leave is a registry that wants to be left alone.
type leave struct {
	until time.Time
	times int // in a row
}

// scanning says which registries to ask, and how. What was chosen before is the delivery's
// state; when it was asked for is known to this leader alone: the next one asks once more.
// It returns the newest request that is followed so.
func (s *sources) scanning(ctx context.Context, t *work.Task, st cluster.DeliveryState, anew bool) (asked int64, _ error) {
	d := t.Delivery.Filled()
	if len(d.Images) == 0 {
		return 0, nil
	}
	now := s.now()
	asked = s.asked(d.Name)
	s.mu.Lock()
	last, have := s.scans[d.Name]
	t.Leave = map[string]string{}
	for host, l := range s.leaves {
		if now.Before(l.until) {
			t.Leave[host] = fmt.Sprintf("%s takes no more requests before %s", host, l.until.UTC().Format(time.RFC3339))
		}
	}
	s.mu.Unlock()
	t.Chosen = st.Images
	if have {
		t.Chosen = last.states
	}
	t.Scan = anew || last.due(d, asked, now)
	if !t.Scan {
		return asked, nil
	}
	for _, p := range d.Images {
		if err := s.logIn(ctx, t, p.Repository); err != nil {
			return asked, err
		}
	}
	return asked, nil
}

// logIn gives a task the login that is kept for a repository's registry.
func (s *sources) logIn(ctx context.Context, t *work.Task, repository string) error {
	host := cluster.RegistryOf(repository)
	user, password, err := s.login(ctx, s.store, host)
	if err != nil || user == "" {
		return err
	}
	if t.Logins == nil {
		t.Logins = map[string]work.Login{}
	}
	t.Logins[host] = work.Login{User: user, Password: []byte(password)}
	return nil
}

// due: the interval is over, somebody asked, or the policies are others. A tenth sooner,
// as looks are spread.
func (l lastScan) due(d cluster.Delivery, asked int64, now time.Time) bool {
	return l.policies != policies(d) || asked > l.asked || now.Sub(l.at) >= d.Filled().Interval.D()*9/10
}

// more is l after it was told to wait: at least so long, and ever longer.
func (l leave) more(wait time.Duration, now time.Time) leave {
	const first, most, doublings = 30 * time.Second, time.Hour, 7
	l.times++
	l.until = now.Add(max(wait, min(most, first<<min(l.times-1, doublings))))
	return l
}

func policies(d cluster.Delivery) string {
	b, _ := json.Marshal(d.Images) // of plain fields
	return string(b)
}

// asked is the newest request to look at a delivery's source.
func (s *sources) asked(name cluster.DeliveryName) (n int64) {
	s.mirror.Read(func(v store.View) {
		if a, ok, err := store.One[cluster.DeliveryAsk](v, store.DeliveryAskKey(name)); ok && err == nil {
			n = a.V.Number
		}
	})
	return n
}

// scanned notes what registries said.
func (s *sources) scanned(t work.Task, r work.Result, asked int64) {
	if len(t.Delivery.Images) == 0 {
		return
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.scans[t.Delivery.Name]
	if r.Images != nil {
		last.states, last.policies = r.Images, policies(t.Delivery)
	}
	if t.Scan {
		last.at, last.asked = now, max(last.asked, asked)
	}
	s.scans[t.Delivery.Name] = last
	for _, st := range r.Images {
		if st.Failures == 0 && t.Scan {
			delete(s.leaves, cluster.RegistryOf(st.Repository))
		}
	}
	for _, host := range slices.Sorted(maps.Keys(r.Waits)) {
		s.leaves[host] = s.leaves[host].more(r.Waits[host], now)
	}
}

// wrote says what was written to the source, or would be, a value a line; the commit first.
func wrote(r work.Result) []string {
	var out []string
	if r.Pushed != "" {
		s := "committed as " + cluster.ShortRevision(r.Pushed)
		if r.Branch != "" {
			s += " to " + r.Branch
		}
		out = append(out, s)
	}
	for _, e := range r.Edits {
		out = append(out, fmt.Sprintf("%s:%d: %s → %s", e.File, e.Line, e.Old, e.New))
	}
	return out
}

// commitNews is what is news of what was to be committed, after what was known before.
func commitNews(was []cluster.ImageState, f api.Fetched) string {
	why := work.Unwritten(f.Images)
	switch {
	case why == "":
		return first(f.Wrote)
	case work.Unwritten(was) == "":
		return "not committed: " + why
	}
	return ""
}

func first(lines []string) string {
	const most = 4
	if len(lines) > most {
		lines = append(slices.Clone(lines[:most]), fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, ", ")
}
