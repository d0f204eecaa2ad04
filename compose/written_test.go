package compose

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWrittenIsReadAgain: an interpolated document, written, is the same app.
func TestWrittenIsReadAgain(t *testing.T) {
	first, err := Load(t.Context(), packaged("services:\n  web:\n    image: \"shop/web:1\"\n    command: [\"echo $$HOME $${A:-b} $$$$\"]\n    environment: {A: \"x=$$HOME\"}\n    labels: {a: $$apr1$$x}\n"+
		"    configs: [{source: c, target: /etc/c}]\nconfigs:\n  c:\n    content: |\n      $$HOME $${x}\n      $$$$\n"))
	if err != nil {
		t.Fatal(err)
	}
	if first.Services["web"].Task.Env["A"] != "x=$HOME" {
		t.Fatalf("env is %v", first.Services["web"].Task.Env)
	}
	text, err := Written(string(first.Rendered))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(t.Context(), packaged(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, r := range []*Result{first, again} {
		s := r.Services["web"]
		s.Source.File, s.Source.Line = "", 0
		r.Services["web"] = s
	}
	if d := cmp.Diff(first.Services, again.Services); d != "" {
		t.Error("services differ", d)
	}
	if d := cmp.Diff(string(first.Configs[0].Content), string(again.Configs[0].Content)); d != "" {
		t.Error("configs differ", d)
	}
	if d := cmp.Diff(string(first.Rendered), string(again.Rendered)); d != "" {
		t.Error("documents differ", d)
	}
	if same, err := Written("services: {}\n"); err != nil || same != "services: {}\n" {
		t.Errorf("%q, %v", same, err)
	}
	if got, err := Written("a$b: $c\n"); err != nil || got != "a$b: $$c\n" {
		t.Errorf("%q, %v", got, err)
	}
}
