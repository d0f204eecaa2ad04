package compose

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// Values that mean something, and that are easily taken for nothing.
func TestWhatLooksEmptyIsKept(t *testing.T) {
	for _, c := range []struct {
		what, keys string
		want       []string
	}{
		{"the image's", "command: [a]", nil},
		{"null", "entrypoint:", nil},
		{"an empty list", "entrypoint: []", []string{}},
		{"an empty text", `entrypoint: ""`, []string{}},
	} {
		spec := load1(t, in(c.keys)).Services["web"].Task
		b, err := json.Marshal(spec)
		var sent cluster.TaskSpec
		if err != nil || json.Unmarshal(b, &sent) != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, sent.Entrypoint); d != "" {
			t.Errorf("%s: the entrypoint as it is sent: %s", c.what, d)
		}
	}
	if g := load1(t, in("stop_grace_period: 0s")).Services["web"].Task.StopGrace.D(); g <= 0 || g >= time.Second {
		t.Errorf("stop_grace_period: 0s means %s; 0 would be the default of 10s", g)
	}
}

func TestSeccompProfilesAreBroughtAlong(t *testing.T) {
	dir := project(t, map[string]string{
		"p.json": "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n", "bad.json": "{",
		"compose.yaml": in(`security_opt: ["seccomp:./p.json", seccomp=unconfined, label=disable, "no-new-privileges:true"]`),
		"bad.yaml":     in("security_opt:\n  - seccomp=bad.json"),
	})
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`, "seccomp=unconfined", "label=disable", "no-new-privileges:true"}
	if d := cmp.Diff(want, r.Services["web"].Task.SecurityOpt); d != "" {
		t.Error(d)
	}
	if _, err = Load(t.Context(), Options{Files: []string{dir + "/bad.yaml"}}); err == nil || !strings.HasPrefix(err.Error(), "bad.yaml:5: services.web.security_opt: the seccomp profile bad.json is not JSON") {
		t.Error(err)
	}
}

// The short form of a mount has options that the long form has keys for: what
// becomes of them is the same.
func TestOptionsOfAShortMountAreSaid(t *testing.T) {
	r := load1(t, in(`volumes: ["/a:/a:z", "/b:/b:ro,cached", "/c:/c:rw,rprivate", "dat:/d:nocopy"]`)+"volumes: {dat: {}}\n")
	var got []string
	for _, w := range r.Warnings {
		if strings.Contains(w.Message, "option") {
			got = append(got, w.String())
		}
	}
	want := []string{
		"compose.yaml:4: services.web.volumes: the option cached is ignored; of no effect on Linux",
		"compose.yaml:4: services.web.volumes: the option z is ignored; files are not relabelled",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// YAML has changed its mind about these words; compose-go says so without a place.
func TestOldWordsForTrueAndFalse(t *testing.T) {
	r := load1(t, in("init: yes\ntty: off\nread_only: true"))
	var got []string
	for _, w := range r.Warnings {
		got = append(got, w.String())
	}
	want := []string{
		`compose.yaml:4: services.web.init: "yes" is read as true; write true`,
		`compose.yaml:5: services.web.tty: "off" is read as false; write false`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if s := r.Services["web"].Task; !s.Init || s.TTY || !s.ReadOnly {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsBuiltIsNotPulled(t *testing.T) {
	dir := project(t, map[string]string{"compose.yaml": "name: shop\nservices:\n  web:\n    build: .\n    image: shop/web\n    pull_policy: always\n  worker: {image: other, pull_policy: always}\n", "Dockerfile": "FROM scratch\n"})
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Services["web"].Task.PullPolicy; p != "" || r.Services["worker"].Task.PullPolicy != "always" {
		t.Errorf("what is built is pulled: %q", p)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Line != 6 {
		t.Errorf("%v", r.Warnings)
	}
}
