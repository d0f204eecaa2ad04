package preview_test

import (
	"testing"

	"github.com/fairlead/fairlead/preview"
)

// BenchmarkWaits is what a deploy pays: a small app, and a large one in which
// every task is replaced.
func BenchmarkWaits(b *testing.B) {
	for name, replicas := range map[string]int{"10": 10, "1000": 1000} {
		b.Run(name, func(b *testing.B) {
			s := newState(100000, 100000, 100000)
			s.has("store", "big", spec("a", 1000, 10))
			s.has("shop", "web", spec("a", replicas, 10))
			s.wants("web", spec("b", replicas, 10))
			for b.Loop() {
				if got := preview.Waits(s.Snapshot, s.change); len(got) > 0 {
					b.Fatal(got)
				}
			}
		})
	}
}
