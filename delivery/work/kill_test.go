package work_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// asServer makes the test's own program a server that is told to fetch, and can be killed.
const asServer = "FAIRLEAD_TEST_SERVER"

// errand is what such a server is told.
type errand struct {
	Worker work.Worker
	Task   work.Task
}

func serveErrand(in io.Reader) error {
	var e errand
	if err := json.NewDecoder(in).Decode(&e); err != nil {
		return err
	}
	_, err := e.Worker.Run(context.Background(), e.Task)
	return err
}

// gate answers requests, but for one that it keeps until it is dropped.
type gate struct {
	http.Handler
	mu            sync.Mutex
	left          int  // requests until that one
	half          bool // that one happens, and half of the answer is sent
	kept, dropped chan struct{}
}

// keep keeps the n-th request from now, until drop is called: kept is closed when it has it.
func (g *gate) keep(n int, half bool) (kept <-chan struct{}, drop func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.half, g.kept, g.dropped = n, half, make(chan struct{}), make(chan struct{})
	return g.kept, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.left = 0
		close(g.dropped)
	}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.left--
	this, half, kept, dropped := g.left == 0, g.half, g.kept, g.dropped
	g.mu.Unlock()
	if !this {
		g.Handler.ServeHTTP(w, r)
		return
	}
	if half {
		rec := httptest.NewRecorder()
		g.Handler.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
	}
	close(kept)
	<-dropped
	panic(http.ErrAbortHandler)
}

// killed lets a server of its own work on a task, and kills it when the gate has kept a
// request. It returns false when there was no such request.
func (f *forge) killed(task work.Task, kept <-chan struct{}) bool {
	f.t.Helper()
	task.Domain, task.Now = "example.test", time.Now()
	in, err := json.Marshal(errand{f.w, task})
	if err != nil {
		f.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(f.t.Context(), self)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = append(os.Environ(), asServer+"=1"), bytes.NewReader(in), &out, &out
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			f.t.Fatalf("the server that was not killed: %v\n%s", err, &out)
		}
		return false
	case <-kept:
	}
	_ = cmd.Process.Kill() // it alone: what it started is to end by itself
	if err := <-ended; err == nil {
		f.t.Fatal("the server ended by itself")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids := f.fetching()
		if len(pids) == 0 {
			return true
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("processes %v outlive their server", pids)
		}
	}
}

// fetching are the processes that fetch into the forge's directory.
func (f *forge) fetching() (pids []string) {
	list, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, exe := range list {
		if at, _ := os.Readlink(exe); at == f.w.Command[0] {
			pids = append(pids, filepath.Base(filepath.Dir(exe)))
		}
	}
	return pids
}

// A server that is killed while it fetches leaves something half fetched. The next one has
// nothing of it: it removes that, fetches again, and commits nothing twice. Every other
// request is answered by half; FAIRLEAD_KILL_POINTS=all has each of them both ways.
func TestAServerKilledWhileItFetches(t *testing.T) {
	f, s := newForge(t), newShelf(t)
	served := func(h http.Handler) (g *gate, host string) {
		g = &gate{Handler: h}
		srv := httptest.NewServer(g)
		t.Cleanup(srv.Close)
		return g, srv.URL
	}
	shelfGate, shelfURL := served(s)
	gated := strings.TrimPrefix(shelfURL, "http://")
	for dir, host := range map[string]string{"deploy": s.host, "gated": gated} {
		f.write(dir+"/compose.yaml", "services:\n  web:\n    image: "+host+"/shop/web:1 # {\"fairlead\": \"web\"}\n")
	}
	f.write("deploy/more.txt", strings.Repeat("some more\n", 1000))
	first := f.push("the first")
	f.git(f.dir, "config", "http.receivepack", "true")
	g := &gate{}
	url, ca := f.https("geheim", func(h http.Handler) http.Handler { g.Handler = h; return g })
	s.push("shop/web", "1.0.0")
	s.artifact("config", fluxConfig, nil, []string{"latest"}, part{fluxContent, archive(t, map[string]string{"compose.yaml": compose("a:1"), "more.txt": strings.Repeat("more", 5000)}), nil})
	charts := http.NewServeMux()
	index := "apiVersion: v1\nentries:\n  shop:\n  - {apiVersion: v2, name: shop, version: 1.0.0, urls: [shop-1.0.0.tgz]}\n"
	charts.HandleFunc("/index.yaml", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, index) })
	packed := archive(t, map[string]string{"shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n", "shop/templates/app.yaml": compose("c:1")})
	charts.HandleFunc("/shop-1.0.0.tgz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, packed) })

	fromGit := f.local()
	fromGit.Path, fromGit.Source = "deploy", cluster.SourceSpec{Kind: cluster.SourceGit, URL: url, CA: ca, Secret: "git"}
	updated := fromGit
	updated.Images = []cluster.ImagePolicy{s.policy("web=shop/web semver 1.x")}
	updated.ImageWrite.To = cluster.WriteCommit
	chartGate, chartURL := served(charts)
	artifact := s.delivery("config")
	artifact.Source.URL = "oci://" + gated + "/config"
	scanned := updated
	scanned.Path = "gated"
	scanned.Images = []cluster.ImagePolicy{updated.Images[0]}
	scanned.Images[0].Repository = gated + "/shop/web"
	every := os.Getenv("FAIRLEAD_KILL_POINTS") == "all"
	pkg := cluster.Delivery{Name: "shop", App: "shop", Source: cluster.SourceSpec{Kind: cluster.SourceChart, URL: chartURL, Chart: "shop"}}
	for _, tc := range []struct {
		name    string
		gate    *gate
		d       cluster.Delivery
		image   string
		commits int // that come of it
		points  int // at least, of every one
	}{
		{"Git", g, fromGit, s.host + "/shop/web:1", 0, 4},
		{"Git, and a commit", g, updated, s.host + "/shop/web:1.0.0", 1, 8},
		{"images", shelfGate, scanned, scanned.Images[0].Repository + ":1.0.0", 1, 4},
		{"an artifact", shelfGate, artifact, "a:1", 0, 6},
		{"a repository of packages", chartGate, pkg, "c:1", 0, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.t = t
			task := work.Task{Delivery: tc.d, Scan: true, Commit: true, Password: []byte("geheim"), Release: 1}
			if tc.d.Source.Secret == "" {
				task.Password = nil
			}
			points := 0
			for n := 1; ; n++ {
				reached := false
				for _, half := range []bool{false, true} {
					if !every && half != (n%2 == 0) {
						continue
					}
					f.git(f.tree, "push", "-q", "-f", "origin", first+":refs/heads/main")
					kept, drop := tc.gate.keep(n, half)
					is := f.killed(task, kept)
					if drop(); !is {
						break
					}
					points, reached = points+1, true
					what := fmt.Sprintf("killed with request %d (half answered: %v)", n, half)
					if left, _ := os.ReadDir(f.w.Dir); len(left) != 1 {
						t.Fatalf("%s: left are %v: it is no test of what is left", what, left)
					}
					if err := f.w.Clean(); err != nil { // as a server does that starts
						t.Fatal(err)
					}
					r := f.must(task)
					if got := r.Bundle.Services["web"].Task.Image; got != tc.image {
						t.Errorf("%s: the image is %s, not %s", what, got, tc.image)
					}
					if got := f.git(f.dir, "rev-list", "--count", first+"..main"); got != strconv.Itoa(tc.commits) {
						t.Errorf("%s: there are %s commits, not %d", what, got, tc.commits)
					}
					f.git(f.dir, "fsck", "--strict")
				}
				if !reached {
					break
				}
			}
			least := tc.points
			if !every {
				least /= 2
			}
			if points < least {
				t.Errorf("%d points are too few: something is not asked for", points)
			}
			t.Logf("%d points", points)
		})
	}
}
