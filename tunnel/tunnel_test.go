package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// fakeNode is a node whose one task echoes.
type fakeNode struct {
	mu     sync.Mutex
	copied []byte
	want   cluster.ImageWant
	tagged [2]string
	sizes  chan [2]uint
	ended  chan struct{} // a call saw its context end
}

func (f *fakeNode) Logs(ctx context.Context, task cluster.TaskID, o cluster.LogOptions, emit func(cluster.LogLine) error) error {
	if task == "gone" {
		return cluster.NotFoundf("no task %s here", task)
	}
	for range o.Tail {
		if err := emit(cluster.LogLine{Task: task, Text: strings.Repeat("x", 100_000)}); err != nil {
			return err
		}
	}
	if o.Follow {
		<-ctx.Done()
		f.ended <- struct{}{}
		return context.Cause(ctx)
	}
	return nil
}

func (f *fakeNode) Exec(ctx context.Context, _ cluster.TaskID, o cluster.ExecOptions, s api.Streams) (int, error) {
	switch o.Command[0] {
	case "cat":
		if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
			return 0, err
		}
		_, err := io.WriteString(s.Stderr, "done")
		return 7, err
	case "size":
		size := <-s.Resize
		f.sizes <- size
		return 0, nil
	case "hang":
		<-ctx.Done()
		f.ended <- struct{}{}
		return 0, context.Cause(ctx)
	}
	return 0, cluster.Invalidf("no command %s", o.Command[0])
}

func (f *fakeNode) CopyTo(_ context.Context, _ cluster.TaskID, _ string, tar io.Reader) error {
	b, err := io.ReadAll(tar)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.copied = b
	return err
}

func (f *fakeNode) CopyFrom(_ context.Context, _ cluster.TaskID, path string) (io.ReadCloser, error) {
	if path != "/data" {
		return nil, cluster.NotFoundf("no %s", path)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return io.NopCloser(bytes.NewReader(f.copied)), nil
}

func (f *fakeNode) Dial(_ context.Context, _ cluster.TaskID, port int) (net.Conn, error) {
	if port != 80 {
		return nil, cluster.Transientf("connection refused")
	}
	near, far := net.Pipe()
	go func() {
		defer func() { _ = far.Close() }()
		_, _ = io.Copy(far, far)
	}()
	return near, nil
}

func (f *fakeNode) Build(_ context.Context, tar io.Reader, o v1.BuildOptions, progress io.Writer) (string, error) {
	b, err := io.ReadAll(tar)
	if err != nil {
		return "", err
	}
	_, err = io.WriteString(progress, "step 1")
	return "sha256:" + string(o.Service) + string(b), err
}

func (f *fakeNode) Tag(_ context.Context, id, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tagged = [2]string{id, ref}
	return nil
}

func (*fakeNode) Images(context.Context) ([]cluster.Image, error) {
	var out []cluster.Image
	for range 2000 { // more than one frame holds
		out = append(out, cluster.Image{ID: strings.Repeat("a", 64)})
	}
	return out, nil
}

func (f *fakeNode) Save(ctx context.Context, ref string, _ cluster.ImageHave) (io.ReadCloser, error) {
	if ref != "web:1" {
		return nil, cluster.NotFoundf("no image %s", ref)
	}
	return f.CopyFrom(ctx, "", "/data")
}

func (f *fakeNode) Load(ctx context.Context, tar io.Reader, want cluster.ImageWant) error {
	f.want = want
	return f.CopyTo(ctx, "", "/image", tar)
}

func (*fakeNode) ImageLayers(_ context.Context, ref string) ([]string, error) {
	return []string{ref}, nil
}

func (*fakeNode) Have(_ context.Context, layers []string) (cluster.ImageHave, error) {
	return cluster.ImageHave{Layers: len(layers)}, nil
}

func (*fakeNode) Identity(_ context.Context, ref string) (cluster.ImageIdentity, error) {
	return cluster.ImageIdentity{ID: "id of " + ref, Content: "content"}, nil
}

// open makes a tunnel over a real connection.
func open(t *testing.T) (*Hub, *Remote, *fakeNode) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNode{sizes: make(chan [2]uint, 1), ended: make(chan struct{}, 4)}
	h := Node{
		Tasks: f, Images: f, SampleEvery: time.Millisecond,
		Samples: func() []cluster.Sample { return []cluster.Sample{{Task: "t1", CPU: 500}} },
	}.Handler()
	ctx, cancel := context.WithCancel(t.Context())
	hub := NewHub(hclog.NewNullLogger())
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err == nil {
			Serve(ctx, conn, h)
		}
	})
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = hub.Serve(ctx, "n2", "original", conn) })
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	var r *Remote
	eventually(t, "the node is connected", func() bool { r, err = hub.Node("n2"); return err == nil })
	return hub, r, f
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestLogs(t *testing.T) {
	_, r, f := open(t)
	n := 0
	err := r.Logs(t.Context(), "t1", cluster.LogOptions{Tail: 30}, func(l cluster.LogLine) error {
		n += len(l.Text)
		return nil
	})
	if err != nil || n != 3_000_000 {
		t.Errorf("%d bytes: %v", n, err)
	}
	err = r.Logs(t.Context(), "gone", cluster.LogOptions{}, nil)
	if cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), "no task gone here") {
		t.Errorf("an error became %v", err)
	}
	// The end of the reader ends the node's side.
	stop := errors.New("enough")
	err = r.Logs(t.Context(), "t1", cluster.LogOptions{Tail: 1, Follow: true}, func(cluster.LogLine) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	<-f.ended
}

func TestExec(t *testing.T) {
	_, r, f := open(t)
	in := strings.Repeat("0123456789", 50_000)
	var out, errs bytes.Buffer
	code, err := r.Exec(t.Context(), "t1", cluster.ExecOptions{Command: []string{"cat"}}, api.Streams{Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errs})
	if err != nil || code != 7 || out.String() != in || errs.String() != "done" {
		t.Errorf("code %d, %d bytes, %q: %v", code, out.Len(), errs.String(), err)
	}
	sizes := make(chan [2]uint, 1)
	sizes <- [2]uint{80, 24}
	if _, err := r.Exec(t.Context(), "t1", cluster.ExecOptions{Command: []string{"size"}}, api.Streams{Resize: sizes}); err != nil {
		t.Error(err)
	}
	if got := <-f.sizes; got != [2]uint{80, 24} {
		t.Errorf("size %v", got)
	}
	if _, err := r.Exec(t.Context(), "t1", cluster.ExecOptions{Command: []string{"rm"}}, api.Streams{}); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := r.Exec(ctx, "t1", cluster.ExecOptions{Command: []string{"hang"}}, api.Streams{})
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAndImages(t *testing.T) {
	_, r, f := open(t)
	data := bytes.Repeat([]byte("tar"), 200_000)
	if err := r.CopyTo(t.Context(), "t1", "/data", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	back, err := r.CopyFrom(t.Context(), "t1", "/data")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(back)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
	if err := back.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.CopyFrom(t.Context(), "t1", "/none"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("got %v", err)
	}
	var progress bytes.Buffer
	id, err := r.Build(t.Context(), strings.NewReader("ctx"), v1.BuildOptions{Service: "web"}, &progress)
	if err != nil || id != "sha256:webctx" || progress.String() != "step 1" {
		t.Errorf("%q %q: %v", id, progress.String(), err)
	}
	if err := r.Tag(t.Context(), "a", "b"); err != nil || f.tagged != [2]string{"a", "b"} {
		t.Errorf("%v: %v", f.tagged, err)
	}
	if list, err := r.Images(t.Context()); err != nil || len(list) != 2000 {
		t.Errorf("%d images: %v", len(list), err)
	}
	if tar, err := r.Save(t.Context(), "web:1", cluster.ImageHave{}); err != nil {
		t.Error(err)
	} else if got, err := io.ReadAll(tar); err != nil || !bytes.Equal(got, data) {
		t.Errorf("an image of %d bytes: %v", len(got), err)
	}
	if _, err := r.Save(t.Context(), "web:2", cluster.ImageHave{}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("got %v", err)
	}
	want := cluster.ImageWant{Ref: "a:1", ID: "x", Content: "y"}
	if err := r.Load(t.Context(), strings.NewReader("an image"), want); err != nil || string(f.copied) != "an image" || f.want != want {
		t.Errorf("%q as %+v: %v", f.copied, f.want, err)
	}
	if err := r.Load(t.Context(), iotest.ErrReader(io.ErrClosedPipe), want); err == nil {
		t.Error("half an image was taken for a whole one")
	}
	if layers, err := r.ImageLayers(t.Context(), "web:1"); err != nil || len(layers) != 1 {
		t.Errorf("%v: %v", layers, err)
	}
	if have, err := r.Have(t.Context(), []string{"a", "b"}); err != nil || have.Layers != 2 {
		t.Errorf("%+v: %v", have, err)
	}
	if i, err := r.Identity(t.Context(), "web:1"); err != nil || i.ID != "id of web:1" || i.Content != "content" {
		t.Errorf("%+v: %v", i, err)
	}
}

func TestDial(t *testing.T) {
	_, r, _ := open(t)
	if _, err := r.Dial(t.Context(), "t1", 81); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := r.Dial(ctx, "t1", 80)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // the call that opened it is over; the connection is not
	in := bytes.Repeat([]byte("ping"), 100_000)
	go func() { _, _ = conn.Write(in) }()
	got := make([]byte, len(in))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, in) {
		t.Errorf("the echo differs: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestSamplesAndTheEnd(t *testing.T) {
	hub, r, f := open(t)
	if !cmp.Equal(hub.Nodes(), []cluster.NodeID{"n2"}) {
		t.Errorf("nodes %v", hub.Nodes())
	}
	eventually(t, "samples come", func() bool {
		return cmp.Equal(hub.Samples(), []cluster.Sample{{Node: "n2", Task: "t1", CPU: 500}})
	})
	ended := make(chan error)
	go func() { ended <- r.Logs(t.Context(), "t1", cluster.LogOptions{Follow: true}, nil) }()
	hub.Cut("n2")
	if err := <-ended; cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("a call on a cut tunnel ends with %v", err)
	}
	eventually(t, "the node is gone", func() bool { _, err := hub.Node("n2"); return cluster.KindOf(err) == cluster.KindTransient })
	if s := hub.Samples(); len(s) != 0 {
		t.Errorf("a gone node still has samples: %v", s)
	}
	select {
	case <-f.ended: // when the call had reached the node
	case <-time.After(time.Second):
	}
}

// A server that knows the node no more is believed when it says so again and again.
func TestARefusedNodeEnds(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != v1.ProtocolTunnel || r.URL.Path != Path {
			t.Errorf("asked for %s %q", r.URL.Path, r.Header.Get("Upgrade"))
		}
		code := http.StatusForbidden
		if asked.Add(1) == 1 {
			code = http.StatusServiceUnavailable
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"detail":"it was removed"}`)
	}))
	defer srv.Close()
	conf := srv.Client().Transport.(*http.Transport).TLSClientConfig //nolint:forcetypeassert // httptest's own
	d := Dialer{Server: srv.Listener.Addr().String(), TLS: conf, Handler: http.NotFoundHandler(), Retry: time.Millisecond, Log: hclog.NewNullLogger()}
	err := d.Run(t.Context())
	if cluster.KindOf(err) != cluster.KindForbidden || !strings.Contains(err.Error(), "it was removed") || asked.Load() != 1+refusals {
		t.Errorf("after %d: %v", asked.Load(), err)
	}
}

// endless is what a node could answer for as long as it is read: here it gives up.
type endless struct {
	begin, repeat string
	n             int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	if e.n > 64<<20 {
		return 0, io.EOF
	}
	for n < len(p) {
		from := e.repeat
		if e.n < len(e.begin) {
			from = e.begin[e.n:]
		} else {
			from = from[(e.n-len(e.begin))%len(from):]
		}
		c := copy(p[n:], from)
		n, e.n = n+c, e.n+c
	}
	return n, nil
}

// What a node answers is kept in memory as long as it is not whole: not more of it is read
// than there can be.
func TestAnEndlessAnswerEnds(t *testing.T) {
	for _, c := range []struct {
		call  string
		most  int
		start string
		again string
	}{
		{callImages, maxImages, `[{"id":"`, "a"},
		{callImages, maxImages, `[{}`, ",{}"},
		{callImages, maxImages, "", " "},
		{callLogs, maxLogLine, `{"text":"`, "a"},
		{callSamples, maxSamples, `[{"task":"`, "a"},
		{callSamples, maxSamples, `[{"task":"t1"}]` + "\n[" + `{}`, ",{}"},
	} {
		e, answered := &endless{begin: c.start, repeat: c.again}, make(chan struct{})
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer close(answered)
			_, _ = io.Copy(v1.FrameWriter{W: w, Type: v1.FrameStdout, Mu: new(sync.Mutex)}, e)
		})
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { Serve(ctx, far, h) })
		tr := &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }, Protocols: http2Only(), DisableCompression: true,
		}
		cc, err := tr.NewClientConn(ctx, "http", "node:80")
		if err != nil {
			t.Fatal(err)
		}
		r := &Remote{id: "n2", conn: near, rt: cc}
		switch c.call {
		case callImages:
			_, err = r.Images(ctx)
		case callLogs:
			err = r.Logs(ctx, "t1", cluster.LogOptions{}, func(cluster.LogLine) error { return nil })
		case callSamples:
			err = r.followSamples(ctx)
		}
		if err == nil || !strings.Contains(err.Error(), "node n2 answers too much") {
			t.Errorf("%s: %v", c.call, err)
		}
		cancel()
		_ = near.Close()
		wg.Wait()
		<-answered
		// The transport reads ahead.
		if ahead := 16 << 20; e.n > c.most+ahead {
			t.Errorf("%s: %d bytes were read", c.call, e.n)
		}
	}
}

// The bound is on one value, not on the answer.
func TestManyValuesOfAnAnswer(t *testing.T) {
	const most, n = 1000, 500
	one := `{"task":"` + strings.Repeat("t", most-100) + `"}` + "\n"
	r := &reply{node: "n2", ended: io.EOF}
	v := r.values(most)
	v.r = iotest.OneByteReader(strings.NewReader(strings.Repeat(one, n)))
	for i := range n {
		var s cluster.Sample
		if err := v.next(&s); err != nil || len(s.Task) != most-100 {
			t.Fatalf("value %d: %v", i, err)
		}
	}
	var s cluster.Sample
	if err := v.next(&s); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

// A node speaks in its own name, and of what can be.
func TestWhatANodeSaysOfUsage(t *testing.T) {
	got := said("n2", []cluster.Sample{
		{Node: "n1", Task: "t1", CPU: 500, Memory: 1 << 30},
		{Task: "t2"},
		{Task: "t3", CPU: -1},
		{Task: "t4", Memory: -1},
		{Task: "t5", CPU: 1 << 62},
		{Task: "t6", Memory: 1 << 62},
		{CPU: 1},
	})
	if want := []cluster.Sample{{Node: "n2", Task: "t1", CPU: 500, Memory: 1 << 30}, {Node: "n2", Task: "t2"}}; !cmp.Equal(got, want) {
		t.Errorf("it says %+v", got)
	}
}
