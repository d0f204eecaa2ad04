package server

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// receiver notes the events that it takes, and answers with code where that is set.
type receiver struct {
	*httptest.Server
	code  func(event int64) int
	heard []int64
	asked int
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{code: func(int64) int { return http.StatusOK }}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var e cluster.DeliveryEvent
		if err := json.NewDecoder(req.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		r.asked++
		code := r.code(e.ID)
		if code == http.StatusOK {
			r.heard = append(r.heard, e.ID)
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(r.Close)
	return r
}

// Each receiver hears each event once, whatever becomes of the others.
func TestReceiversHearEachEventOnce(t *testing.T) {
	good, bad, gone, picky := newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	bad.code = func(id int64) int {
		if id == 2 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	}
	gone.code = func(int64) int { return http.StatusNotFound }
	spec := cluster.Delivery{Name: "shop", App: "shop", Notify: []cluster.Notice{
		{URL: bad.URL}, {URL: good.URL}, {URL: gone.URL}, {URL: picky.URL, Events: []string{cluster.EventReady}},
	}}
	now := time.Unix(1_700_000_000, 0)
	i := delivery.Item{Spec: spec}
	for id, what := range []string{cluster.EventDeployed, cluster.EventFailed, cluster.EventReady} {
		i.State.Outbox = append(i.State.Outbox, cluster.DeliveryEvent{ID: int64(id + 1), At: now, Event: what})
	}
	d := &deliverer{sources: &sources{machine: &machine{}}}
	send := func() {
		heard, err := d.Send(context.Background(), spec, i.State)
		i.State = delivery.Sent(i, heard, err, now)
	}
	for range 3 {
		send()
	}
	if !slices.Equal(bad.heard, []int64{1}) || !strings.Contains(i.State.NotifyErr, "503") || len(i.State.Outbox) != 2 {
		t.Errorf("one that is down heard %v; %+v", bad.heard, i.State)
	}
	bad.code = func(int64) int { return http.StatusOK }
	i.State.Outbox = append(i.State.Outbox, cluster.DeliveryEvent{ID: 4, At: now, Event: cluster.EventReady})
	send()
	for _, r := range []*receiver{good, bad} {
		if !slices.Equal(r.heard, []int64{1, 2, 3, 4}) {
			t.Errorf("heard %v", r.heard)
		}
	}
	if !slices.Equal(picky.heard, []int64{3, 4}) {
		t.Errorf("heard %v", picky.heard)
	}
	if gone.asked != 4 || !strings.Contains(i.State.NotifyErr, "404") || i.State.Outbox != nil {
		t.Errorf("one that refuses was asked %d times; %+v", gone.asked, i.State)
	}
}

// A receiver that hangs keeps no other one waiting, and how far each is comes out as they stand
// in the delivery.
func TestAReceiverThatHangsIsWaitedForAlone(t *testing.T) {
	others := make(chan string, 2)
	told := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { others <- req.URL.Path }))
	t.Cleanup(told.Close)
	let := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-let
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(hangs.Close)
	refuses := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refuses.Close)
	spec := cluster.Delivery{Name: "shop", App: "shop", Notify: []cluster.Notice{{URL: hangs.URL}, {URL: told.URL + "/a"}, {URL: refuses.URL}, {URL: told.URL + "/b"}}}
	st := cluster.DeliveryState{Outbox: []cluster.DeliveryEvent{{ID: 7, Event: cluster.EventReady}}}
	d := &deliverer{sources: &sources{machine: &machine{}}}
	type sent struct {
		heard map[string]int64
		err   error
	}
	done := make(chan sent)
	go func() {
		heard, err := d.Send(t.Context(), spec, st)
		done <- sent{heard, err}
	}()
	got := []string{}
	for range 2 {
		select {
		case path := <-others:
			got = append(got, path)
		case s := <-done: // the one that hangs was given up before
			close(let)
			t.Fatalf("only %v were told while one hangs: %v", got, s.err)
		}
	}
	close(let)
	s := <-done
	if slices.Sort(got); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("told were %v", got)
	}
	for i, want := range []int64{0, 7, 7, 7} {
		if heard := s.heard[spec.Notify[i].Key()]; heard != want {
			t.Errorf("receiver %d heard up to %d, not %d", i, heard, want)
		}
	}
	if lines := strings.Split(fmt.Sprint(s.err), "\n"); len(lines) != 2 || !strings.Contains(lines[0], "503") || !strings.Contains(lines[1], "404") {
		t.Errorf("%q", lines)
	}
}

// Slack is sent a text and nothing else, in which a commit's subject calls nobody and links nowhere;
// JSON has it as it is.
func TestSlackReadsNothingButText(t *testing.T) {
	slack, others := make(chan map[string]any, 1), make(chan map[string]any, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v, %v", req.Header, err)
		}
		map[string]chan map[string]any{"/slack": slack, "/": others}[req.URL.Path] <- body
	}))
	t.Cleanup(srv.Close)
	subject := "<!channel> R&D: <https://x.example.com|shop>"
	st := cluster.DeliveryState{Outbox: []cluster.DeliveryEvent{{
		ID: 1, Event: cluster.EventDeployed, Revision: strings.Repeat("a", 40), Author: "Ann", Subject: subject, Release: 3, Message: "1 > 0",
	}}}
	d := &deliverer{sources: &sources{machine: &machine{}}}
	spec := cluster.Delivery{Name: "shop", App: "store", Notify: []cluster.Notice{{URL: srv.URL + "/slack", Format: "slack"}, {URL: srv.URL + "/"}}}
	if _, err := d.Send(t.Context(), spec, st); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"text": "*shop* deployed aaaaaaaa “&lt;!channel&gt; R&amp;D: &lt;https://x.example.com|shop&gt;” by Ann (app store, release 3): 1 &gt; 0",
	}
	if got := <-slack; !maps.Equal(got, want) {
		t.Errorf("Slack is sent %q, want %q", got, want)
	}
	if got := <-others; got["subject"] != subject || got["message"] != "1 > 0" || got["text"] != nil {
		t.Errorf("others are sent %q", got)
	}
}

// What a repository said of the package that is kept is noted, unless another one is kept by then.
func TestWhatARepositorySaidIsNoted(t *testing.T) {
	kept := keptSource{key: "k", Fetched: api.Fetched{Origin: cluster.Origin{Revision: "1.0.0@sha256:a"}}}
	said := chart.Seen{Version: "1.0.0", Digest: "sha256:a", Index: chart.Validator{ETag: `"2"`}}
	newer := kept
	newer.Origin.Revision = "1.1.0@sha256:b"
	for what, tc := range map[string]struct {
		now  keptSource
		want chart.Seen
	}{"the same": {kept, said}, "a newer one": {newer, chart.Seen{}}} {
		s := &sources{kept: map[cluster.DeliveryName]keptSource{"shop": tc.now}}
		s.known("shop", kept, said)
		s.known("gone", kept, said)
		if got := s.kept["shop"].pkg; got != tc.want || len(s.kept) != 1 {
			t.Errorf("%s: %+v of %d", what, got, len(s.kept))
		}
	}
}

// What was kept of a delivery goes with it, and a registry's pause an hour after its end.
func TestWhatWasKeptOfADeliveryGoesWithIt(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := &sources{
		machine: &machine{local: local{now: func() time.Time { return now }}},
		kept:    map[cluster.DeliveryName]keptSource{"a": {}, "b": {}, "new": {}, "gone": {}},
		scans:   map[cluster.DeliveryName]lastScan{"a": {}, "gone": {}},
		leaves:  map[string]leave{"reg.test": {until: now.Add(-time.Minute)}, "old.test": {until: now.Add(-2 * time.Hour)}, "busy.test": {until: now.Add(time.Hour)}},
	}
	s.forget("new", func(n cluster.DeliveryName) bool { return n == "a" || n == "b" })
	if got := fmt.Sprint(slices.Sorted(maps.Keys(s.kept)), slices.Sorted(maps.Keys(s.scans)), slices.Sorted(maps.Keys(s.leaves))); got != "[a b new] [a] [busy.test reg.test]" {
		t.Errorf("kept %s", got)
	}
}

// A receiver that redirects was not told: most redirects turn the news into a question, whose
// answer says nothing.
func TestNewsIsNotSentElsewhere(t *testing.T) {
	told := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/new", func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil && string(b) == `"news"` {
			told++
		}
	})
	mux.Handle("/kept", http.RedirectHandler("/new", http.StatusPermanentRedirect))
	mux.Handle("/old", http.RedirectHandler("/new", http.StatusFound))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	err := post(t.Context(), poster, srv.URL+"/old", "news")
	if told != 0 || cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "302") || strings.Contains(err.Error(), srv.URL) {
		t.Errorf("told %d times: %v", told, err)
	}
	for i, path := range []string{"/new", "/kept"} {
		if err := post(t.Context(), poster, srv.URL+path, "news"); err != nil || told != i+1 {
			t.Errorf("told %d times: %v", told, err)
		}
	}
}

// Who is told may have a certificate of the user's own, and is told by TLS as all are.
func TestNewsIsSentByTheCertificatesGiven(t *testing.T) {
	heard := 0
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard++ }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it is refused once
	srv.StartTLS()
	defer srv.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	spec := cluster.Delivery{Name: "shop", App: "shop", Notify: []cluster.Notice{{URL: srv.URL}}}
	st := cluster.DeliveryState{Outbox: []cluster.DeliveryEvent{{ID: 1, Event: "ready"}}}
	d := &deliverer{sources: &sources{machine: &machine{}}}
	if _, err := d.Send(t.Context(), spec, st); err == nil || !strings.Contains(err.Error(), "certificate") || heard != 0 {
		t.Errorf("told %d times a server that nobody vouches for: %v", heard, err)
	}
	spec.NotifyCA = ca
	last, err := d.Send(t.Context(), spec, st)
	if err != nil || heard != 1 || last[spec.Notify[0].Key()] != 1 {
		t.Errorf("told %d times, up to %v: %v", heard, last, err)
	}
}
