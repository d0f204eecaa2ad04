package compose_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/compose"
)

// A key with nothing below it is accepted where Compose accepts it, and means what it means
// there: in a package, whose templates leave such keys behind, as in files.
func TestNothingBelowAKey(t *testing.T) {
	const base = "services:\n  web:\n    image: a/b\n"
	for _, docs := range [][]string{
		{base + "    environment:\n"},
		{base + "    ports:\n"},
		{base + "    command:\n"},
		{base + "    deploy:\n"},
		{base + "volumes:\n"},
		{base + "volumes:\n  a:\n"},
		{base + "secrets:\n  a:\n"},
		{"services:\n"},
		{base, "services:\n"},
		{"services:\n", base},
		{"services:\n  web:\n"},
		{base, "services:\n  web:\n"},
		{"services:\n  web:\n", base},
		{base, "volumes:\n"},
		{base + "    environment: {A: b}\n", "services:\n  web:\n    environment:\n"},
		{base + "    environment:\n", "services:\n  web:\n    environment: {A: b}\n"},
		{base + "    ports: ['8080:80']\n", "services:\n  web:\n    ports:\n"},
		{base + "    volumes: ['data:/a']\nvolumes:\n  data:\n", "volumes:\n", "services:\n  web:\n    volumes:\n"},
		{base + "    healthcheck: {test: [CMD, x]}\n", "services:\n  web:\n    healthcheck:\n      interval: 1s\n      test:\n"},
		{base + "    labels:\n", "services:\n  web:\n    labels:\n"},
		{base + "    environment: {A: b}\n---\nservices:\n  web:\n    environment:\n"},
	} {
		name := strings.ReplaceAll(strings.Join(docs, "---\n"), base, "…")
		d := types.ConfigDetails{WorkingDir: t.TempDir(), Environment: types.Mapping{}}
		var o compose.Options
		for i, content := range docs {
			file := string(rune('a'+i)) + ".yaml"
			d.ConfigFiles = append(d.ConfigFiles, types.ConfigFile{Filename: file, Content: []byte(content)})
			o.Packaged = append(o.Packaged, compose.Document{Name: file, Content: []byte(content)})
		}
		p, want := loader.LoadWithContext(t.Context(), d, func(o *loader.Options) { o.SetProjectName("x", true) })
		o.App = "x"
		got, err := compose.Load(t.Context(), o)
		if (err == nil) != (want == nil) {
			t.Errorf("%q: %v, and of Compose %v", name, err, want)
			continue
		}
		if list, is := errors.AsType[*compose.Problems](err); is && len(docs) == 1 && strings.Contains(name, "web") && !slices.ContainsFunc(list.List, func(p compose.Problem) bool { return strings.Contains(p.Advice, "range") }) {
			t.Errorf("%q: no advice in %v", name, err)
		}
		if err != nil {
			continue
		}
		web, theirs := got.Services["web"], p.Services["web"]
		env := map[string]string{}
		for k, v := range theirs.Environment {
			env[k] = *v
		}
		if len(web.Task.Env)+len(env) > 0 {
			if diff := cmp.Diff(env, web.Task.Env); diff != "" {
				t.Errorf("%q: %s", name, diff)
			}
		}
		if len(web.Ports) != len(theirs.Ports) || len(web.Task.Mounts) != len(theirs.Volumes) || (web.Task.Health != nil) != (theirs.HealthCheck != nil) {
			t.Errorf("%q: %d ports, %d mounts, %+v, and of Compose %d, %d, %+v", name, len(web.Ports), len(web.Task.Mounts), web.Task.Health, len(theirs.Ports), len(theirs.Volumes), theirs.HealthCheck)
		}
	}
}
