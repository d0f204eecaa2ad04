package rollout

import "testing"

func TestWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exit         int
		reason, want string
	}{
		{1, "", "exit code 1"},
		{1, "exited with code 1", "exited with code 1"},
		{137, "ran out of memory (exit code 137)", "ran out of memory (exit code 137)"},
		{1, "health check failed", "exit code 1: health check failed"},
		{0, "health check failed", "health check failed"},
	} {
		if got := why(c.exit, c.reason); got != c.want {
			t.Errorf("%d, %q: %q, want %q", c.exit, c.reason, got, c.want)
		}
	}
}
