package compose

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestPublishedSchema holds docs/schema/x-fairlead.json in step with the Go
// types; FAIRLEAD_UPDATE=1 writes it.
func TestPublishedSchema(t *testing.T) {
	const file = "../docs/schema/x-fairlead.json"
	want, err := PublishedSchema()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("FAIRLEAD_UPDATE") != "" {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is out of step with the Go types; run FAIRLEAD_UPDATE=1 go test ./compose -run PublishedSchema\n%s", file, d)
	}
}

// TestPublishedSchemaTakesVariables: an editor complains of no file that is read, and of
// what would be refused whatever a variable is.
func TestPublishedSchemaTakesVariables(t *testing.T) {
	text, err := PublishedSchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("x.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("x.json")
	if err != nil {
		t.Fatal(err)
	}
	service := func(x string) string { return `{"services": {"web": {"x-fairlead": ` + x + `}}}` }
	for file, fits := range map[string]bool{
		service(`{"routes": [{"host": "${HOST}", "port": "$PORT", "internal": "${INT:-true}"}]}`):    true,
		service(`{"routes": [{"host": "a.b", "port": 80, "internal": true}]}`):                       true,
		service(`{"autoscale": {"min": "${MIN}", "max": 4, "cpu": "${CPU:-70%}"}}`):                  true,
		service(`{"autoscale": {"min": 1, "max": 4, "cpu": "70%"}}`):                                 true,
		service(`{"autoscale": {"min": 1, "max": 4, "cpu": "much"}}`):                                false,
		service(`{"routes": [{"host": "a.b", "port": "eighty"}]}`):                                   false,
		service(`{"routes": [{"host": "a.b", "prt": "$PORT"}]}`):                                     false,
		service(`{"routes": "$ROUTES"}`):                                                             false,
		`{"secrets": {"pw": {"x-fairlead": {"generate": "${LEN:-32}"}}}, "services": {"web": null}}`: true,
		`{"secrets": {"pw": {"x-fairlead": {"generate": 2}}}}`:                                       false,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); (err == nil) != fits {
			t.Errorf("%s: %v", file, err)
		}
	}
}
