package compose

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
