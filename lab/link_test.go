package lab

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLink(t *testing.T) {
	for _, c := range []struct {
		link   string
		oneWay bool
		want   []Cut
		err    string
	}{
		{"n1", false, []Cut{{"n1", ""}, {"", "n1"}}, ""},
		{"n1", true, []Cut{{"n1", ""}}, ""},
		{":n1", true, []Cut{{"", "n1"}}, ""},
		{"n1:n2", false, []Cut{{"n1", "n2"}, {"n2", "n1"}}, ""},
		{"n2:n1", true, []Cut{{"n2", "n1"}}, ""},
		{"n1:n1", false, nil, "give NODE"},
		{"", false, nil, "give NODE"},
		{"n1:n9", false, nil, `no node "n9"`},
	} {
		got, err := spec(2).ParseLink(c.link, c.oneWay)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.link, diff)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v, want %q", c.link, err, c.err)
		}
	}
}

func TestCutAndHeal(t *testing.T) {
	var have []Cut
	do := func(op Op, link string, oneWay bool) {
		t.Helper()
		st := State{Spec: spec(3), Cuts: have}
		if err := (Request{Op: op, Target: link, OneWay: oneWay}).wanted(&st); err != nil {
			t.Fatal(err)
		}
		have = st.Cuts
	}
	do(OpCut, "n1:n2", false)
	do(OpCut, "n1:n2", false)
	do(OpCut, "n3", true)
	do(OpHeal, "n2:n1", true)
	if diff := cmp.Diff([]Cut{{"n1", "n2"}, {"n3", ""}}, have); diff != "" {
		t.Error(diff)
	}
	s := newStatus("/x", State{Spec: spec(3), Cuts: have})
	for node, want := range map[string]string{"n1": "sends nothing to n2", "n2": "hears nothing of n1", "n3": "sends nothing to all"} {
		if got := s.Link(node); got != want {
			t.Errorf("%s: %q, want %q", node, got, want)
		}
	}
	rules := SwitchRules(have)
	for _, want := range []string{`iifname { "n1", "n1.line" } oifname { "n2", "n2.line" } drop`, "prerouting priority 0\n\t\tiifname { \"n3\", \"n3.line\" } drop"} {
		if !strings.Contains(rules, want) {
			t.Errorf("%q is not in\n%s", want, rules)
		}
	}
	do(OpHeal, "n1", false) // all of it, also what was cut towards n2 alone
	do(OpHeal, "n3:n1", false)
	if diff := cmp.Diff([]Cut{{"n3", ""}}, have); diff != "" {
		t.Errorf("n3 is still cut from all: %s", diff)
	}
	do(OpHeal, "n3", false)
	if len(have) > 0 || s.Link("n1") == "" {
		t.Errorf("left: %v", have)
	}
}

func TestForeignMounts(t *testing.T) {
	info := `22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw
42 27 254:0 /var/lib/docker /var/lib/docker rw,relatime shared:1 - ext4 /dev/vda rw
47 42 0:39 / /var/lib/docker/overlay2/a/merged rw,relatime shared:3 - overlay overlay rw,lowerdir=x
50 27 0:45 / /run rw - tmpfs tmpfs rw
98 50 0:4 net:[4026532185] /run/docker/netns/2074a4f72a54 rw - nsfs nsfs rw
99 27 0:60 / /tmp rw - tmpfs tmpfs rw
100 99 0:61 / /tmp/fl/run\040dir rw - tmpfs tmpfs rw
101 27 8:1 / /home rw - ext4 /dev/sda1 rw
102 27 8:2 / /var/lib/fairlead-lab rw - ext4 /dev/sda2 rw
103 27 8:2 / /var/lib/fairlead/run rw - ext4 /dev/sda2 rw
`
	want := []string{
		"/var/lib/fairlead/run", "/tmp/fl/run dir", "/run/docker/netns/2074a4f72a54", "/run",
		"/var/lib/docker/overlay2/a/merged", "/var/lib/docker",
	}
	if diff := cmp.Diff(want, foreign(parseMounts(info))); diff != "" {
		t.Error(diff)
	}
}
