package proxyconf

import (
	"fmt"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// BenchmarkPlan plans a quiet cluster of 1,000 services with 5 servers each.
func BenchmarkPlan(b *testing.B) {
	s := Snapshot{Rev: 9}
	for i := range 1000 {
		n := fmt.Sprintf("s%d", i)
		s.Services = append(s.Services, service("shop", n, 1, cluster.Route{Host: n + ".example.com", Port: 80}))
		s.Endpoints = append(s.Endpoints, endpoints("shop", n, 2, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"))
	}
	s.Current, _ = apply(nil, Plan(s))
	for b.Loop() {
		if len(Plan(s)) != 0 {
			b.Fatal("not quiet")
		}
	}
}
