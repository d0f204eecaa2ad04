package compose

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// Each env file is complained of where it is named, and all of them at once.
func TestEnvFilesAreNamedByTheirLines(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"a.env": "A=1\n", "words.env": "A=1\nB C=2\n", "need.env": "A=${X:?boom}\n", "d/x": "",
		"compose.yaml": `services:
  web:
    image: a
    env_file:
      - a.env
      - aa.env
      - path: ./d/a.env
      - {path: a.env, format: shell}
      - ${NONE}
      - {path: d, required: false}
  words:
    image: a
    env_file:
      - a.env
      - path: words.env
  need: {image: a, env_file: [a.env,
    need.env]}
`,
	})
	_, err := Load(t.Context(), Options{Dir: dir})
	want := `compose.yaml:6: services.web.env_file: cannot read aa.env: it is not there
compose.yaml:7: services.web.env_file: cannot read d/a.env: it is not there
compose.yaml:8: services.web.env_file: unknown format "shell"; write raw, or leave it out
compose.yaml:9: services.web.env_file: the path is empty
compose.yaml:10: services.web.env_file: cannot read d: not a regular file
compose.yaml:15: services.words.env_file: failed to read words.env: line 2: key cannot contain a space
compose.yaml:17: services.need.env_file: failed to read need.env: required variable X is missing a value: boom`
	if err == nil {
		t.Fatal("not refused")
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// What a stronger file takes back or replaces is not complained of beside what is
// wrong elsewhere.
func TestWhatIsTakenBackIsNotComplainedOf(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"a.yaml": `services:
  web:
    image: a
    restart: sometimes
    networks: [nope]
    ports: ["5432:5432"]
    deploy: {resources: {limits: {memory: 1M}}}
  old: {image: a, restart: sometimes}
`,
		"b.yaml": `services:
  web:
    restart: !reset null
    networks: !reset []
    ports: !override ["5432:1"]
    deploy: {resources: !override {limits: {memory: 64M}}}
    typo: 1
  old: !reset null
`,
	})
	_, err := Load(t.Context(), Options{Files: []string{dir + "/a.yaml", dir + "/b.yaml"}, Dir: dir})
	want := "b.yaml:7: services.web.typo: unknown key"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// All documents of a file are examined to the end, whatever is wrong in one.
func TestEachDocumentOfAFileIsExamined(t *testing.T) {
	t.Parallel()
	_, err := Load(t.Context(), Options{Files: []string{write(t, `services:
  web: {image: a, restart: sometimes, depends_on: [db]}
---
services:
  db: {image: a, typo: 1}
`)}})
	want := `compose.yaml:2: services.web.restart: "sometimes" is not a restart policy; write no, always, on-failure or unless-stopped
compose.yaml:5: services.db.typo: unknown key`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// What is in a label file has its place there, and what is wrong with one where it is named.
func TestLabelsOfFilesAreNamedByTheirLines(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"bad.labels": "a=1\nsome words=2\n",
		"web.labels": "# of the front\nuser=x\ntraefik.http.routers.a.rule=Host(`a.b`)\ncost=5 $DOLLARS\n",
		"compose.yaml": "services:\n  web:\n    image: a\n    expose: [80]\n    label_file:\n      - web.labels\n" +
			"    labels: {traefik.http.routers.b.rule: Host(`b.c`)}\n",
		"bad.yaml": "services:\n  web:\n    image: a\n    label_file:\n      - odd.labels\n      - bad.labels\n",
		"odd.yaml": "services:\n  web:\n    image: a\n    label_file: odd.labels\n", "odd.labels": "\ntraefik.http.routers.a.bogus=1\nio.fairlead.app=x\n",
	}
	dir := project(t, files)
	r, err := Load(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var got []cluster.Source
	for _, route := range r.Services["web"].Routes {
		got = append(got, route.Source)
	}
	if d := cmp.Diff([]cluster.Source{{File: "web.labels", Line: 3}, {File: "compose.yaml", Line: 7}}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if len(r.Warnings) != 1 || !strings.HasPrefix(r.Warnings[0].String(), "web.labels:4: services.web.label_file: the variable DOLLARS is not set") {
		t.Errorf("%v", r.Warnings)
	}
	for file, want := range map[string]string{
		"bad.yaml": "bad.yaml:6: services.web.label_file: cannot read bad.labels: line 2: key cannot contain a space\n" +
			`odd.labels:2: services.web.labels.traefik.http.routers.a.bogus: the router option "bogus" is not supported yet` + "\n" +
			"odd.labels:3: services.web.labels.io.fairlead.app: this label is set by Fairlead; choose another name",
		"odd.yaml": `odd.labels:2: services.web.labels.traefik.http.routers.a.bogus: the router option "bogus" is not supported yet` + "\n" +
			"odd.labels:3: services.web.labels.io.fairlead.app: this label is set by Fairlead; choose another name",
	} {
		if _, err := Load(t.Context(), Options{Files: []string{dir + "/" + file}}); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}
