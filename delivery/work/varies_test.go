package work_test

import (
	"testing"

	"github.com/fairlead/fairlead/delivery/work"
)

// What draws at random is known for it.
func TestPackagesThatVary(t *testing.T) {
	f := newForge(t)
	f.write("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n")
	d := f.local()
	d.Package = "."
	for tag, varies := range map[string]bool{"1": false, "{{ randAlphaNum 12 | lower }}": true, "{{ if false }}{{ randAlphaNum 12 }}{{ end }}2": false} {
		f.write("templates/app.yaml", compose("r.io/web:"+tag))
		f.push(tag)
		if r := f.must(work.Task{Delivery: d, Release: 1}); r.Varies != varies {
			t.Errorf("%s: varies %v", tag, r.Varies)
		}
	}
}
