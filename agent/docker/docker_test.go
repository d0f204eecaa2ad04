package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func TestLinesKeepTimesAndPartialLines(t *testing.T) {
	var got []cluster.LogLine
	l := &lines{stream: "stdout", emit: func(x cluster.LogLine) error { got = append(got, x); return nil }}
	for _, s := range []string{"2026-11-23T10:00:00.5Z one", " and a half\n2026-11-23T10:00:01Z \r\nno time\n", "2026-11-23T10:00:02Z last"} {
		if _, err := l.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	at := func(s int, ns int) time.Time { return time.Date(2026, 11, 23, 10, 0, s, ns, time.UTC) }
	want := []cluster.LogLine{
		{Stream: "stdout", Time: at(0, 5e8), Text: "one and a half"},
		{Stream: "stdout", Time: at(1, 0)},
		{Stream: "stdout", Text: "no time"},
		{Stream: "stdout", Time: at(2, 0), Text: "last"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPullProgressAndItsErrors(t *testing.T) {
	var said []string
	body := `{"status":"Pulling from x","id":"latest"}
{"status":"Pulling fs layer","id":"a"}
{"status":"Pulling fs layer","id":"b"}
{"status":"Downloading","id":"a"}
{"status":"Pull complete","id":"a"}
{"status":"Already exists","id":"b"}`
	if err := pullProgress(strings.NewReader(body), func(s string) { said = append(said, s) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0 of 1 layers", "0 of 2 layers", "1 of 2 layers", "2 of 2 layers"}, said); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for msg, want := range map[string]cluster.Kind{
		"manifest for x not found: manifest unknown": cluster.KindNotFound, "unauthorized: no": cluster.KindNotFound,
		"net/http: TLS handshake timeout": cluster.KindTransient,
	} {
		err := pullProgress(strings.NewReader(fmt.Sprintf(`{"error":%q}`, msg)), func(string) {})
		if cluster.KindOf(err) != want || err.Error() != msg {
			t.Errorf("%s: %v (%s)", msg, err, cluster.KindOf(err))
		}
	}
}

// The engine says of a registry only in words why it cannot be had.
func TestARegistryThatIsAwayIsTransient(t *testing.T) {
	for msg, want := range map[string]cluster.Kind{
		`Get "https://reg.test/v2/": dial tcp 10.0.0.9:443: connect: connection refused`:                                cluster.KindTransient,
		`Get "https://reg.test/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)`: cluster.KindTransient,
		`Get "https://reg.test/v2/": EOF`: cluster.KindTransient,
		`Get "https://reg.test/v2/": dial tcp: lookup reg.test on 127.0.0.53:53: server misbehaving`: cluster.KindTransient,
		"toomanyrequests: You have reached your pull rate limit":                                     cluster.KindTransient,
		"received unexpected HTTP status: 503 Service Unavailable":                                   cluster.KindTransient,
		`Get "https://reg.tets/v2/": dial tcp: lookup reg.tets on 127.0.0.53:53: no such host`:       cluster.KindOther,
		`Head "https://reg.test/v2/geofence/web/manifests/1": no basic auth credentials`:             cluster.KindOther,
		`Get "https://reg.test/v2/timeout/manifests/1": reg.test/timeout:1: gone`:                    cluster.KindOther,
		"unsupported manifest media type":                                                            cluster.KindOther,
	} {
		err := pullRefused(kind(fmt.Errorf("Error response from daemon: %s", msg)), "reg.test/timeout:1")
		if cluster.KindOf(err) != want || Message(err) != msg {
			t.Errorf("%s: %v (%s)", msg, err, cluster.KindOf(err))
		}
	}
	if err := pullRefused(kind(fmt.Errorf("timeout: %w", cerrdefs.ErrNotFound)), ""); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("an image that does not exist: %s", cluster.KindOf(err))
	}
}

func TestBuildOutput(t *testing.T) {
	var out strings.Builder
	id, err := buildOutput(strings.NewReader(`{"stream":"Step 1/1"}{"aux":{"ID":"sha256:abc"}}{"status":"done"}`), &out)
	if err != nil || id != "sha256:abc" || out.String() != "Step 1/1done\n" {
		t.Errorf("%q, %v, %q", id, err, out.String())
	}
	if _, err := buildOutput(strings.NewReader(`{"error":"no such file"}`), io.Discard); cluster.KindOf(err) != cluster.KindInvalid {
		t.Error(err)
	}
}

func TestKindTellsAnAbsentEngineFromItsAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		kind cluster.Kind
		away bool
	}{
		"not found": {fmt.Errorf("no such container: %w", cerrdefs.ErrNotFound), cluster.KindNotFound, false},
		"conflict":  {fmt.Errorf("name: %w", cerrdefs.ErrConflict), cluster.KindConflict, false},
		"invalid":   {fmt.Errorf("bad: %w", cerrdefs.ErrInvalidArgument), cluster.KindInvalid, false},
		"cut off":   {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), cluster.KindTransient, true},
		"too slow":  {context.DeadlineExceeded, cluster.KindTransient, true},
		"our own":   {context.Canceled, cluster.KindOther, false},
		"other":     {errors.New("driver failed"), cluster.KindOther, false},
	} {
		got := kind(c.err)
		if cluster.KindOf(got) != c.kind || errors.Is(got, ErrAway) != c.away {
			t.Errorf("%s: %v is %s, away %v", name, got, cluster.KindOf(got), errors.Is(got, ErrAway))
		}
	}
	e, err := New("unix:///no/such/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	if _, err := e.Inspect(t.Context(), "x"); !errors.Is(err, ErrAway) || Message(err) != ErrAway.Error() {
		t.Errorf("no engine: %v", err)
	}
	if e.Accepts(t.Context()) {
		t.Error("no engine accepts")
	}
}

func TestLoginsArePrintedByNoVerb(t *testing.T) {
	l := Login{User: "me", Password: "hunter2"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if s := fmt.Sprintf(verb, l) + fmt.Sprintf(verb, &l); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74657232") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func TestDevice(t *testing.T) {
	for s, want := range map[string]string{
		"/dev/a": "/dev/a /dev/a rwm", "/dev/a:/dev/b": "/dev/a /dev/b rwm", "/dev/a:/dev/b:r": "/dev/a /dev/b r",
		"": "error", "/dev/a:/dev/b:x": "error", "a:b:r:w": "error",
	} {
		d, err := device(s)
		got := d.PathOnHost + " " + d.PathInContainer + " " + d.CgroupPermissions
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// An engine that was killed and started again within a second must not seem
// older than the containers that ended with it.
func TestProcessStartedIsExact(t *testing.T) {
	before := time.Now()
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	s := processStarted(cmd.Process.Pid)
	_ = in.Close()
	_ = cmd.Wait()
	const tick = 20 * time.Millisecond // the kernel tells hundredths of a second
	if s.Before(before.Add(-tick)) || s.After(after.Add(tick)) {
		t.Errorf("a process started between %s and %s is said to have started %s", before, after, s)
	}
	if !processStarted(1 << 30).IsZero() {
		t.Error("no process has a start")
	}
}

func TestPulledBy(t *testing.T) {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	one, two := digest("1"), digest("2")
	for name, c := range map[string]struct {
		ref     string
		digests []string
		want    string
	}{
		"built or loaded":                  {"shop/web:1", nil, ""},
		"pulled":                           {"reg.test:5000/web:1", []string{"reg.test:5000/web@" + one}, "reg.test:5000/web@" + one},
		"the engine's short name":          {"docker.io/library/redis:7", []string{"redis@" + one}, "redis@" + one},
		"a short name":                     {"traefik/whoami", []string{"traefik/whoami@" + one}, "traefik/whoami@" + one},
		"of another repository too":        {"reg.test/web:1", []string{"mirror.test/web@" + two, "reg.test/web@" + one}, "reg.test/web@" + one},
		"of another repository alone":      {"web:1", []string{"reg.test/web@" + one}, ""},
		"several of the repository":        {"web:1", []string{"web@" + two, "web@" + one}, "web@" + one},
		"several, and the reference's own": {"web:1@" + two, []string{"web@" + one, "web@" + two}, "web@" + two},
		"its name was lost":                {"web:1", []string{"<none>@<none>"}, ""},
		"no digest":                        {"web:1", []string{"web:1"}, ""},
		"an image ID":                      {one[7:], []string{"web@" + one}, ""},
	} {
		if got := (ImageInfo{Digests: c.digests}).PulledBy(c.ref); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}
