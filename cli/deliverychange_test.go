package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
)

// What --replace drops is shown, line by line, and a suspended delivery stays so until asked.
func TestReplaceShowsWhatItChanges(t *testing.T) {
	h := newHub(t)
	get := func() (d v1.DeliveryStatus) {
		t.Helper()
		if err := json.Unmarshal([]byte(h.must("", "delivery", "get", "shop", "-o", "json").out), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	create := func(more ...string) string {
		t.Helper()
		return h.must("", append([]string{"delivery", "create", "shop", "https://git.example.com/shop.git", "-d"}, more...)...).err
	}
	first := create("--interval", "30s", "--webhook", "hook", "--env", "A=1", "--env", "B=2", "--depends-on", "db", "--suspend")
	if first != "" {
		t.Errorf("a new one says %q", first)
	}
	said := create("--replace", "--branch", "main", "--env", "A=2", "--on-failure", "rollback")
	for _, line := range []string{
		"- interval: 30s\n+ interval: 1m0s\n", "- webhook: hook\n", "+ source.branch: main\n", "- env.A: 1\n+ env.A: 2\n- env.B: 2\n", "- depends_on: [\"db\"]\n",
		"- on_failure: retry\n+ on_failure: rollback\n", "shop is suspended still: `fairlead delivery resume shop`",
	} {
		if !strings.Contains(said, line) {
			t.Errorf("it does not say %q:\n%s", line, said)
		}
	}
	if strings.Contains(said, "app:") || strings.Contains(said, "created") || strings.Contains(said, "- suspend") {
		t.Errorf("it says what did not change:\n%s", said)
	}
	if d := get(); !d.Suspend || d.Webhook != "" || d.Env["B"] != "" {
		t.Errorf("%+v", d.Delivery)
	}
	if said = create("--replace", "--branch", "main", "--env", "A=2", "--on-failure", "rollback", "--suspend=false"); said != "- suspend: true\n" || get().Suspend {
		t.Errorf("resumed, it says %q", said)
	}
	if said = create("--replace", "--branch", "main", "--env", "A=2", "--on-failure", "rollback"); said != "" || get().Suspend {
		t.Errorf("unchanged, it says %q", said)
	}
	if said = create("--replace", "--branch", "main", "--env", "A=2", "--on-failure", "rollback", "--suspend"); !strings.Contains(said, "+ suspend: true") || !get().Suspend {
		t.Errorf("suspended, it says %q", said)
	}
}
