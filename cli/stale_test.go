package cli_test

import (
	"strings"
	"testing"
	"time"
)

// What may be old is said to be, once and beside what is printed, whose shape stays.
func TestWhatMayBeOldIsSaidToBe(t *testing.T) {
	h := newHub(t)
	withFront(h)
	h.run("store", "front")
	commands := [][]string{{"ps"}, {"status"}, {"status", "store"}, {"node", "ls"}, {"ps", "-o", "json"}, {"status", "-o", "yaml"}, {"service", "ls"}}
	current := make([]string, len(commands))
	for i, args := range commands {
		s := h.must("", args...)
		if current[i] = s.out; strings.Contains(s.err, "majority") {
			t.Errorf("%v: %q", args, s.err)
		}
	}
	for since, says := range map[time.Duration]string{42 * time.Second: "42s", 3 * time.Minute: "3m", 50 * time.Hour: "2d"} {
		h.stale.Store(int64(since / time.Second))
		for i, args := range commands {
			s := h.must("", args...)
			if want := "server n1 has not heard from a majority for " + says + ": what follows may be old\n"; strings.Count(s.err, want) != 1 || s.out != current[i] {
				t.Errorf("%v: %q on standard error; want %q once\n%s\n%s", args, s.err, want, s.out, current[i])
			}
		}
	}
}
