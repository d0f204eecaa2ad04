package work_test

import (
	"testing"

	"github.com/fairlead/fairlead/cluster"
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

// What a package has for Kubernetes, and a schema that refers to others or that the
// values break, is passed over where the delivery says so.
func TestWhatIsPassedOverInAPackage(t *testing.T) {
	f := newForge(t)
	f.write("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n")
	f.write("templates/app.yaml", compose("r.io/web:1"))
	f.write("crds/thing.yaml", "kind: CustomResourceDefinition\n")
	f.write("values.yaml", "replicas: many\n")
	d := f.local()
	d.Package = "."
	for schema, says := range map[string]string{
		`{"properties": {"replicas": {"type": "integer"}}}`:               "replicas",
		`{"properties": {"replicas": {"$ref": "https://example.com/x"}}}`: "its own parts alone",
	} {
		f.write("values.schema.json", schema)
		f.push(schema)
		d.SkipCRDs, d.SkipSchema = true, false
		f.refused(work.Task{Delivery: d, Release: 1}, cluster.KindInvalid, says)
		d.SkipCRDs, d.SkipSchema = false, true
		f.refused(work.Task{Delivery: d, Release: 1}, cluster.KindInvalid, "crds/thing.yaml", "--skip-crds")
		d.SkipCRDs = true
		f.must(work.Task{Delivery: d, Release: 1})
	}
}
