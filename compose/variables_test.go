package compose

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func TestVariablesInNumbersOfTheExtension(t *testing.T) {
	t.Parallel()
	const file = `services:
  web:
    image: a
    deploy: {resources: {reservations: {cpus: "1"}}}
    x-fairlead:
      routes: [{host: a.b, port: $PORT, internal: "${INT:-true}"}]
      autoscale: {min: "${MIN:-2}", max: "${MAX:-4}", cpu: "${CPU:-70%}"}
secrets: {pw: {external: true, x-fairlead: {generate: "${LEN:-32}"}}}
`
	r, err := Load(t.Context(), Options{Files: []string{write(t, file)}, Env: map[string]string{"PORT": "8080"}})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Services["web"]
	if rt := s.Routes[0]; rt.Port != 8080 || !rt.Internal {
		t.Errorf("%+v", rt)
	}
	if a := s.Autoscale; a.Min != 2 || a.Max != 4 || r.Secrets[0].Generate != 32 {
		t.Errorf("%+v, %+v", a, r.Secrets[0])
	}
	_, err = Load(t.Context(), Options{Files: []string{write(t, file)}, Env: map[string]string{"PORT": "http", "INT": "perhaps", "MAX": "20000", "LEN": "2"}})
	want := []string{
		`compose.yaml:6: services.web.x-fairlead.routes[0].internal: must be true or false, this is the text "perhaps"`,
		`compose.yaml:6: services.web.x-fairlead.routes[0].port: must be a whole number, this is the text "http"`,
		`compose.yaml:7: services.web.x-fairlead.autoscale.max: maximum: got 20,000, want 10,000`,
		`compose.yaml:8: secrets.pw.x-fairlead.generate: minimum: got 2, want 8`,
	}
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// Compose's own variables choose files, profiles and the name where no flag does:
// the environment before .env, both before the file.
func TestComposeVariables(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		".env":         "X=1\nCOMPOSE_PROJECT_NAME=old\nCOMPOSE_PROFILES=debug, more\nCOMPOSE_FILE=compose.yaml;prod/extra.yaml\nCOMPOSE_PATH_SEPARATOR=;\n",
		"compose.yaml": "name: a-${COMPOSE_PROJECT_NAME:-none}\nservices:\n  web: {image: \"a:${COMPOSE_PROJECT_NAME}\"}\n  dbg: {image: a, profiles: [debug]}\n  other: {image: a, profiles: [other]}\nvolumes: {data: {}}\n",
		"prod/extra.yaml": "services:\n  more: {image: a, profiles: [more]}\n" +
			"  plain: {image: a}\n",
		"prod/.env": "FROM_PROD=1\n",
	})
	for _, c := range []struct {
		what     string
		o        Options
		app      cluster.AppName
		services string
	}{
		{"of .env", Options{}, "old", "dbg more plain web"},
		{"of the environment", Options{Env: map[string]string{"COMPOSE_PROJECT_NAME": "env", "COMPOSE_PROFILES": "other", "COMPOSE_FILE": "compose.yaml"}}, "env", "other web"},
		{"of the flags", Options{App: "flag", Profiles: []string{"other"}, Files: []string{filepath.Join(dir, "compose.yaml")}}, "flag", "other web"},
		{"set to nothing", Options{Env: map[string]string{"COMPOSE_PROJECT_NAME": "", "COMPOSE_PROFILES": "", "COMPOSE_FILE": ""}}, "a-none", "web"},
		{"elsewhere", Options{Env: map[string]string{"COMPOSE_FILE": "prod/extra.yaml"}}, "old", "more plain"},
	} {
		c.o.Dir = dir
		r, err := Load(t.Context(), c.o)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		var names []string
		for n := range r.Services {
			names = append(names, string(n))
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); r.App != c.app || got != c.services {
			t.Errorf("%s: %s: %s", c.what, r.App, got)
		}
		if img := r.Services["web"].Task.Image; img != "" && img != "a:"+string(c.app) {
			t.Errorf("%s: image %s", c.what, img)
		}
		if c.o.App == "" {
			if here, ok := AppIn(dir, c.o.Env); !ok || here.App != c.app || here.Err != nil {
				t.Errorf("%s: commands mean %+v", c.what, here)
			}
		}
	}
	here, _ := AppIn(dir, nil)
	env, _ := AppIn(dir, map[string]string{"COMPOSE_PROJECT_NAME": "env"})
	if here.From != ".env:2" || env.From != "COMPOSE_PROJECT_NAME" {
		t.Errorf("from %q, %q", here.From, env.From)
	}
	for value, want := range map[string]string{
		"COMPOSE_PROJECT_NAME=my_shop": `COMPOSE_PROJECT_NAME: "my_shop" cannot name an app: use 1 to 40 lower-case letters, digits and -, starting with a letter or digit; for example COMPOSE_PROJECT_NAME=my-shop`,
		"COMPOSE_FILE=nope.yaml":       "nope.yaml: cannot read the file: it is not there; COMPOSE_FILE names it",
	} {
		k, v, _ := strings.Cut(value, "=")
		_, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{k: v}})
		if err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
		if here, ok := AppIn(dir, map[string]string{k: v}); !ok || here.Err == nil {
			t.Errorf("%s: %+v", value, here)
		}
	}
}

// COMPOSE_ENV_FILES names env files as --env-file does: from where the command runs,
// in their order, in place of .env, and only in the environment.
func TestComposeEnvFiles(t *testing.T) {
	dir := project(t, map[string]string{
		".env":         "A=dot\nCOMPOSE_ENV_FILES=two.env\n",
		"one.env":      "A=one\nB=one\n",
		"two.env":      "B=two\nCOMPOSE_PROJECT_NAME=of-two\n",
		"sub/here.env": "A=sub\n",
		"compose.yaml": "name: n\nservices: {web: {image: \"x:${A-none}-${B-none}\"}}\n",
	})
	t.Chdir(dir)
	for _, c := range []struct {
		files, env string
		app        cluster.AppName
		image, cwd string
	}{
		{"", "", "n", "x:dot-none", "."},
		{"", "one.env", "n", "x:one-one", "."},
		{"", "one.env,two.env", "of-two", "x:one-two", "."},
		{"", "two.env, one.env", "of-two", "x:one-one", "."},
		{"two.env", "one.env", "of-two", "x:none-two", "."},
		{"", "/dev/null", "n", "x:none-none", "."},
		{"", "here.env", "n", "x:sub-none", "sub"},
		{"", filepath.Join(dir, "one.env"), "n", "x:one-one", "sub"},
	} {
		t.Chdir(filepath.Join(dir, c.cwd))
		o := Options{Dir: dir, Env: map[string]string{"COMPOSE_ENV_FILES": c.env}, EnvFiles: fields(c.files, ",")}
		r, err := Load(t.Context(), o)
		if err != nil || r.App != c.app || r.Services["web"].Task.Image != c.image {
			t.Errorf("%+v: %+v %v", c, r, err)
		}
		if here, ok := AppIn(dir, o.Env); c.files == "" && (!ok || here.App != c.app) {
			t.Errorf("%+v: commands mean %+v", c, here)
		}
	}
	_, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"COMPOSE_ENV_FILES": "gone.env"}})
	if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "gone.env") || !strings.Contains(err.Error(), "COMPOSE_ENV_FILES names it") {
		t.Errorf("%v", err)
	}
	r, err := Load(t.Context(), Options{Dir: dir, Env: map[string]string{"COMPOSE_DISABLE_ENV_FILE": "1"}})
	if err != nil || r.Services["web"].Task.Image != "x:none-none" {
		t.Errorf("without .env: %+v %v", r, err)
	}
}

// What is read as empty is warned of where it stands, whatever else is written
// beside it; nothing else is.
func TestUnsetVariables(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		".env":  "SET=1\nEMPTY=\n# $NO\nUP=$SET$HERE\nLIT='$NO'\nESC=\\$NO # $NO\nLONG=\"a\n$DEEP\"\nLATER=$LONG\n",
		"e.env": "X=${SERVICE}$ABOVE\nABOVE=1\nY=$ABOVE$UP\nZ=${GONE-$DEEPER}\n",
		"compose.yaml": `services:
  web:
    image: a
    command: [ "${A}-${A:-x}", "${BAD-$UN2}", "$$C $${D} ${E-${F:-f}} ${SET+$G}${SET-$H}", "${EMPTY:+$I}${EMPTY:-$J}${EMPTY-$K}" ]
    environment: {SERVICE: s}
    env_file: e.env
    volumes: ["vol:/v"]
volumes:
  vol:
    external:
      name: foo
`,
	})
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range r.Warnings {
		m, _, _ := strings.Cut(w.Message, " is not set")
		got = append(got, fmt.Sprintf("%s:%d %s", w.File, w.Line, strings.TrimPrefix(m, "the variable ")))
	}
	want := []string{
		".env:4 HERE", ".env:8 DEEP", "compose.yaml:4 A", "compose.yaml:4 UN2", "compose.yaml:4 G", "compose.yaml:4 J",
		"compose.yaml:11 an old way to write the name", "e.env:1 ABOVE", "e.env:4 DEEPER",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if m := r.Services["web"].Task.Mounts; m[0].Source != "foo" || !m[0].External {
		t.Errorf("%+v", m)
	}
}
