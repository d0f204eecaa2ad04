package need

import "testing"

// A server has five ports, and a run of the tests some sixty servers: drawing each by
// itself would give one of them the same port twice in one run of sixteen.
func TestPortsAreGivenOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 1000 {
		p := Port(t)
		if seen[p] {
			t.Fatalf("port %d was given twice", p)
		}
		seen[p] = true
	}
}
