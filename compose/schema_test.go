package compose

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPublishedSchema holds docs/schema/x-fairlead.json in step with the Go
// types; FAIRLEAD_UPDATE=1 writes it.
func TestPublishedSchema(t *testing.T) {
	const file = "../docs/schema/x-fairlead.json"
	want, err := ExtensionSchema()
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
