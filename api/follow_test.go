package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A log that is followed goes on where it was when the server that is asked dies, of each
// task by its own last line, and ends when the service is removed.
func TestALogThatIsFollowedGoesOn(t *testing.T) {
	b := newBench(t)
	svc := deployWeb(t, b, cluster.RolloutComplete)
	t1, t2 := b.run(webID, 1, svc.Version), b.run(webID, 2, svc.Version)
	lines := func(task cluster.TaskID, l ...cluster.LogLine) {
		b.host.mu.Lock()
		defer b.host.mu.Unlock()
		b.host.lines[task] = append(b.host.lines[task], l...)
	}
	lines(t1, logLine(t1, 1, "before the tail"), logLine(t1, 2, "one"))
	lines(t2, logLine(t2, 101, "one of a clock that is ahead"))
	front := httptest.NewServer(b.srv)
	defer front.Close()
	cl, err := client.New(client.Options{URL: front.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var got []string
	said := 0
	o := client.LogQuery{LogOptions: cluster.LogOptions{Follow: true, Tail: 1}, Broken: func(err error) {
		if said++; cluster.KindOf(err) != cluster.KindTransient {
			t.Errorf("broken by %v", err)
		}
		t3 := b.run(webID, 3, svc.Version)
		lines(t1, logLine(t1, 3, "two"), logLine(t1, 4, "three"))
		lines(t2, logLine(t2, 102, "two of a clock that is ahead"))
		lines(t3, logLine(t3, 5, "new"), logLine(t3, 6, "new too"))
	}}
	err = cl.Logs(t.Context(), web, o, func(l cluster.LogLine) error {
		got = append(got, string(l.Task)+" "+l.Text)
		switch len(got) {
		case 2:
			go front.CloseClientConnections()
		case 7:
			close(b.host.ended)
			for _, task := range b.keys(store.PrefixTasks) {
				b.remove(task)
			}
			b.remove(store.ServiceKey(webID))
		}
		return nil
	})
	if err != nil || said != 1 {
		t.Errorf("ended with %v, broken %d times", err, said)
	}
	want := map[string]int{
		"1 one": 1, "1 two": 1, "1 three": 1, "3 new": 1, "3 new too": 1,
		"2 one of a clock that is ahead": 1, "2 two of a clock that is ahead": 1,
	}
	have := map[string]int{}
	for _, g := range got {
		task, text, _ := strings.Cut(g, " ")
		_, slot, _ := strings.Cut(task, ".")
		slot, _, _ = strings.Cut(slot, ".")
		have[slot+" "+text]++
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

// What is not written as the API wants it is refused, and not taken for the beginning.
func TestWhereALogGoesOnIsRead(t *testing.T) {
	b := newBench(t)
	deployWeb(t, b, cluster.RolloutComplete)
	for _, after := range []string{"x", "x@", "@2024-01-31T08:00:00Z", "x@yesterday"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/v1/apps/shop/logs?after="+after, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("after=%s: %s", after, resp.Status)
		}
	}
}
