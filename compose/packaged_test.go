package compose

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func packaged(docs ...string) Options {
	o := Options{App: "shop"}
	for i, d := range docs {
		o.Packaged = append(o.Packaged, Document{Name: "shop/templates/" + string(rune('a'+i)) + ".yaml", Content: []byte(d)})
	}
	return o
}

func TestPackagedDocumentsMerge(t *testing.T) {
	r, err := Load(t.Context(), packaged(`
---
# nothing
---
services:
  web: {image: "shop/web:1", environment: {A: "1"}, configs: [{source: conf, target: /etc/x}]}
---
configs: {conf: {content: "price: $$5\n"}}
---
`, "\n# only a comment\n", `services:
  web: {environment: {B: $$HOME}}
  migrate:
    image: shop/web:1
    command: migrate
    x-fairlead: {hook: {on: [pre-install, pre-upgrade], weight: 2, delete: [hook-succeeded]}}
  seed:
    image: shop/web:1
    x-fairlead: {hook: {on: [post-install], weight: -1}}
`))
	if err != nil {
		t.Fatal(err)
	}
	web := r.Services["web"]
	if d := cmp.Diff(map[string]string{"A": "1", "B": "$HOME"}, web.Task.Env); d != "" {
		t.Error("environment (-want +got)", d)
	}
	if want := (cluster.Source{File: "shop/templates/a.yaml", Line: 6}); web.Source != want && web.Source.File != "shop/templates/c.yaml" {
		t.Errorf("web is from %v", web.Source)
	}
	if len(r.Services) != 1 || len(r.Configs) != 1 || string(r.Configs[0].Content) != "price: $5\n" {
		t.Errorf("services %v, configs %v", r.Services, r.Configs)
	}
	type brief struct {
		Name   string
		Events []cluster.HookEvent
		Weight int
		Delete []cluster.HookPolicy
	}
	var got []brief
	for _, h := range r.Hooks {
		got = append(got, brief{string(h.Service), h.Events, h.Weight, h.Delete})
	}
	want := []brief{
		{"seed", []cluster.HookEvent{cluster.PostInstall}, -1, []cluster.HookPolicy{cluster.BeforeHookCreation}},
		{"migrate", []cluster.HookEvent{cluster.PreInstall, cluster.PreUpgrade}, 2, []cluster.HookPolicy{cluster.HookSucceeded}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("hooks (-want +got)", d)
	}
}

// TestPackagedReadsNothingOfTheMachine: a package comes from elsewhere, and none of
// its keys may bring a file or variable of the machine that installs it into the app.
func TestPackagedReadsNothingOfTheMachine(t *testing.T) {
	t.Setenv("SECRET", "s3cret")
	dir := t.TempDir()
	const head = "services:\n  web:\n    image: a/b:1\n"
	for name, c := range map[string]struct{ doc, line, says string }{
		"include":         {"include: [" + dir + "/x.yaml]\n" + head, "1", "include"},
		"include mapping": {"include: [{path: /etc/passwd}]\n" + head, "1", "include"},
		"include scalar":  {"include: /etc/passwd\n" + head, "1", "include"},
		"extends":         {head + "    extends: {file: /etc/passwd, service: x}\n", "4", "templates"},
		"env_file":        {head + "    env_file: /etc/passwd\n", "4", "env_file"},
		"env_file list":   {head + "    env_file: [{path: /etc/passwd, required: false}]\n", "4", "env_file"},
		"label_file":      {head + "    label_file: [/etc/passwd]\n", "4", "label_file"},
		"build":           {head + "    build: /\n", "4", "image"},
		"config":          {head + "    configs: [c]\nconfigs:\n  c: {file: /etc/passwd}\n", "6", ".Files.Get"},
		"config env":      {head + "    configs: [c]\nconfigs:\n  c: {environment: SECRET}\n", "6", ".Files.Get"},
		"secret":          {head + "    secrets: [c]\nsecrets:\n  c: {file: /etc/passwd}\n", "6", "generate"},
		"secret env":      {head + "    secrets: [c]\nsecrets:\n  c: {environment: SECRET}\n", "6", "generate"},
		"bind":            {head + "    volumes: [\"./x:/x:ro\"]\n", "4", "configs:"},
		"bind home":       {head + "    volumes: [\"~/x:/x:ro\"]\n", "4", "configs:"},
		"bind long":       {head + "    volumes: [{type: bind, source: ../../etc/passwd, target: /x, read_only: true}]\n", "4", "configs:"},
		"variable":        {head + "    command: echo $SECRET\n", "4", "$$"},
		"variable braces": {head + "    command: echo ${SECRET}\n", "4", ".Values"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), packaged(c.doc))
			p, ok := errors.AsType[*Problems](err)
			if !ok {
				t.Fatalf("not refused: %v", err)
			}
			if s := p.Error(); !strings.Contains(s, "shop/templates/a.yaml:"+c.line+": ") || !strings.Contains(s, c.says) {
				t.Errorf("it says %s", s)
			}
		})
	}
}

func TestHooksAreRefused(t *testing.T) {
	hook := func(more string) string {
		return "services:\n  web: {image: \"a/b:1\"}\n  job:\n    image: a/b:1\n    x-fairlead:\n      hook: {on: [pre-install]}\n" + more
	}
	for name, c := range map[string]struct{ doc, says string }{
		"unknown event":  {strings.Replace(hook(""), "pre-install", "pre-instal", 1), `shop/templates/a.yaml:6: services.job.x-fairlead.hook.on: "pre-instal" is none; did you mean pre-install?`},
		"unknown policy": {strings.Replace(hook(""), "]}", "], delete: [always]}", 1), "before-hook-creation, hook-succeeded, hook-failed"},
		"no event":       {strings.Replace(hook(""), "[pre-install]", "[]", 1), "names no point"},
		"unknown key":    {strings.Replace(hook(""), "on:", "at:", 1), "unknown key"},
		"port":           {hook("    ports: [\"80:80\"]\n"), "not reached from outside"},
		"global":         {hook("    deploy: {mode: global}\n"), "one task"},
		"waited for":     {hook("  late: {image: \"a/b:1\", depends_on: [job]}\n"), "job is a hook"},
		"waits":          {hook("    depends_on: [web]\n"), "a hook waits for no service"},
		"nothing else":   {strings.Replace(hook(""), "  web: {image: \"a/b:1\"}\n", "", 1), "all services are hooks"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), packaged(c.doc))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// TestHooksOfAFileAreLeftOut: what a package made, read as a file, is the app without its hooks,
// which is said, by file, line and service.
func TestHooksOfAFileAreLeftOut(t *testing.T) {
	const file = `name: shop
services:
  web: {image: "a/b:1", configs: [c]}
  job:
    build: {context: .}
    configs: [e]
    x-fairlead:
      hook: {on: [pre-install]}
configs:
  c: {content: of web}
  e: {content: of the job}
`
	r, err := Load(t.Context(), Options{Dir: project(t, map[string]string{"compose.yaml": file})})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Hooks)+len(r.Builds) != 0 || len(r.Services) != 1 || len(r.Configs) != 1 || strings.Contains(string(r.Rendered), "job") {
		t.Errorf("%+v\n%s", r, r.Rendered)
	}
	if len(r.Warnings) != 1 || !strings.HasPrefix(r.Warnings[0].String(), "compose.yaml:8: services.job.x-fairlead.hook: the service is left out, nothing runs it") {
		t.Errorf("it says %v", r.Warnings)
	}
	for wrong, says := range map[string]string{
		strings.Replace(file, "pre-install", "pre-instal", 1):                     "did you mean pre-install?",
		strings.Replace(file, "configs: [c]", "depends_on: [job]", 1):             "job is a hook",
		strings.Replace(file, "  web: {image: \"a/b:1\", configs: [c]}\n", "", 1): "all services are hooks",
	} {
		if _, err := Load(t.Context(), Options{Dir: project(t, map[string]string{"compose.yaml": wrong})}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestHookPointsAsOneText(t *testing.T) {
	r, err := Load(t.Context(), packaged(`services:
  web: {image: "shop/web:1"}
  one: {image: "shop/web:1", x-fairlead: {hook: {on: pre-install, delete: hook-succeeded}}}
  two: {image: "shop/web:1", x-fairlead: {hook: {on: "pre-install, post-upgrade", weight: 1}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, h := range r.Hooks {
		got[string(h.Service)] = append(strs(h.Events...), strs(h.Delete...)...)
	}
	want := map[string][]string{"one": {"pre-install", "hook-succeeded"}, "two": {"pre-install", "post-upgrade", "before-hook-creation"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for text, says := range map[string]string{"pre-instal": "shop/templates/a.yaml:3: services.one.x-fairlead.hook.on: \"pre-instal\" is none; did you mean pre-install?", "\"\"": "it names no point of a change", "{a: b}": "services.one.x-fairlead.hook.on"} {
		_, err := Load(t.Context(), packaged("services:\n  web: {image: \"shop/web:1\"}\n  one: {image: \"shop/web:1\", x-fairlead: {hook: {on: "+text+"}}}\n"))
		if p, is := errors.AsType[*Problems](err); !is || len(p.List) != 1 || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
