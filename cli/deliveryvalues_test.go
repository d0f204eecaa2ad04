package cli_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	v1 "github.com/fairlead/fairlead/api/v1"
)

// A package of a repository has its values from here: files and flags, in install's order.
func TestDeliveryTakesValuesFromHere(t *testing.T) {
	h := newHub(t)
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{"a.yaml": "a: {x: 1, z: 2}\nport: 8080\nb: [1]\n", "b.yaml": "a: {z: 3}\nc: gone\n", "text.txt": "one: two\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.must("", "delivery", "create", "vv", "https://charts.example.com", "--chart", "pl", "-d", "--values-file", "a.yaml", "--values-file", "b.yaml",
		"--set-json", `b=[true, 1234567]`, "--set", "c=null,n=7", "--set-string", "code=007,yes=true", "--set-file", "text=text.txt", "--set-literal", "raw=a,b=c")
	var d v1.DeliveryStatus
	if err := json.Unmarshal([]byte(h.must("", "delivery", "get", "vv", "-o", "json").out), &d); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal([]byte(d.Set), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": map[string]any{"x": 1.0, "z": 3.0}, "port": 8080.0, "b": []any{true, 1234567.0}, "c": nil, "n": 7.0,
		"code": "007", "yes": "true", "text": "one: two\n", "raw": "a,b=c",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", d.Set, diff)
	}
	for _, tc := range [][]string{{"--values-file", "none.yaml"}, {"--set-json", "x={"}, {"--values", "a.yaml"}} {
		s := h.cli("", append([]string{"delivery", "create", "ww", "https://charts.example.com", "--chart", "pl", "-d"}, tc...)...)
		if s.code != 2 || tc[0] == "--values" && !strings.Contains(s.err, "--values-file") {
			t.Errorf("%v: %d, %s", tc, s.code, s.err)
		}
	}
}
