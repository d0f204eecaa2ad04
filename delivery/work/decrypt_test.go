package work_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

// fixture is a file that sops itself made, or the key it is encrypted to.
func fixture(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "sops", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sealed is text, encrypted by age to the key of the fixtures.
func sealed(t *testing.T, text string) string {
	t.Helper()
	ids, err := age.ParseIdentities(strings.NewReader(fixture(t, "key.txt")))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, ids[0].(*age.X25519Identity).Recipient()) //nolint:forcetypeassert // as made
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// decrypting is a task of a delivery that may decrypt.
func (f *forge) decrypting() work.Task {
	d := f.local()
	d.Decrypt = "age"
	return work.Task{Delivery: d, Keys: []byte(fixture(f.t, "key.txt"))}
}

const usesSecrets = `services:
  web:
    image: web:1
    secrets: [file, bin, yaml]
    x-fairlead: {secret_env: {PASSWORD: password}}
secrets:
  password: {environment: PASSWORD}
  file: {file: whole.txt}
  bin: {file: all.bin}
  yaml: {file: conf/all.yaml}
`

func TestSecretsOfSource(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", usesSecrets)
	f.write("prod.env", fixture(t, "all.env"))
	f.write("all.bin", fixture(t, "all.bin"))
	f.write("conf/all.yaml", fixture(t, "all.yaml"))
	f.write("whole.txt.age", sealed(t, "hunter2-in-age"))
	f.write("elsewhere/other.yaml", fixture(t, "other.yaml")) // of another app, with another key
	f.push("secrets")
	task := f.decrypting()
	task.Delivery.EnvFiles = []string{"prod.env"}
	r := f.must(task)
	for name, want := range map[string]string{
		"password": "hunter2-in-env", "file": "hunter2-in-age", "bin": fixture(t, "all.bin.plain"), "yaml": "hunter2-in-yaml",
	} {
		if got := string(r.Bundle.Secrets[name].Value); got != want && (name != "yaml" || !strings.Contains(got, want)) {
			t.Errorf("%s holds %q", name, got)
		}
	}
	// Without what the secrets hold, the answer has nothing of any file in clear.
	for name, s := range r.Bundle.Secrets {
		s.Value = nil
		r.Bundle.Secrets[name] = s
	}
	b, err := json.Marshal(r)
	if err != nil || bytes.Contains(b, []byte("hunter2")) || !bytes.Contains(b, []byte("secret_env")) {
		t.Errorf("%v: %s", err, b)
	}

	// A changed value is another value, and nothing else.
	before := r.Bundle.Rendered
	f.write("whole.txt.age", sealed(t, "hunter3"))
	f.push("changed")
	r = f.must(task)
	if got := string(r.Bundle.Secrets["file"].Value); got != "hunter3" || r.Bundle.Rendered != before {
		t.Errorf("after a change: %q, and rendered\n%s", got, r.Bundle.Rendered)
	}
}

func TestClearValueRefused(t *testing.T) {
	const web = "services:\n  web:\n    image: web:1\n"
	for name, c := range map[string]struct {
		compose string
		words   []string
	}{
		"environment":             {web + "    environment: {DB: \"postgres://app:${PASSWORD}@db\"}\n", []string{"services.web.environment.DB", "prod.env: PASSWORD", "secret_env"}},
		"env_file":                {web + "    env_file: [prod.env]\n", []string{"services.web.environment.MULTI", "prod.env: MULTI", "secret_env"}},
		"label":                   {web + "    labels: [\"${QUOTED}=1\"]\n", []string{"services.web.labels", "prod.env: QUOTED"}},
		"command":                 {web + "    command: [run, --password, \"${PASSWORD}\"]\n", []string{"services.web.command", "prod.env: PASSWORD"}},
		"config":                  {web + "    configs: [c]\nconfigs: {c: {file: all.bin}}\n", []string{"configs.c", "all.bin"}},
		"content":                 {web + "    configs: [c]\nconfigs: {c: {content: \"${PASSWORD}\"}}\n", []string{"configs.c", "prod.env: PASSWORD"}},
		"extension":               {"x-note: ${PASSWORD}\n" + web, []string{"the Compose file", "prod.env: PASSWORD"}},
		"both":                    {web + "    environment: {P: \"${PASSWORD}\"}\n    secrets: [p]\nsecrets: {p: {environment: PASSWORD}}\n", []string{"services.web.environment.P"}},
		"a name":                  {web + "    environment: [\"${PASSWORD}=x\"]\n", []string{"prod.env: PASSWORD"}},
		"what only depends on it": {web + "    environment: {P: \"${SHORT}\"}\n", []string{"services.web.environment.P", "short.env: SHORT"}},
		"an error":                {web + "    deploy: {replicas: \"${PASSWORD}\"}\n", []string{"prod.env: PASSWORD", "not a whole number"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			f.write("compose.yaml", c.compose)
			f.write("prod.env", fixture(t, "all.env"))
			f.write("short.env.age", sealed(t, "SHORT=7\n"))
			f.write("all.bin", fixture(t, "all.bin"))
			f.push(name)
			task := f.decrypting()
			task.Delivery.EnvFiles = []string{"prod.env", "short.env"}
			if err := f.refusal(task, cluster.KindInvalid, c.words...); strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the refusal holds a value: %v", err)
			}
		})
	}

	// What is in clear in an encrypted file may be anywhere; so may values that are alike.
	f := newForge(t)
	f.write("compose.yaml", web+"    environment: {DB_HOST: \"${HOST_unencrypted}\", PORT: \"7\"}\n    secrets: [s]\nsecrets: {s: {environment: SHORT}}\n")
	f.write("prod.env", fixture(t, "all.env"))
	f.write("short.env.age", sealed(t, "SHORT=7\n"))
	f.push("in clear")
	task := f.decrypting()
	task.Delivery.EnvFiles = []string{"prod.env", "short.env"}
	r := f.must(task)
	if got := r.Bundle.Services["web"].Task.Env; got["DB_HOST"] != "db.internal" || got["PORT"] != "7" || string(r.Bundle.Secrets["s"].Value) != "7" {
		t.Errorf("%v", got)
	}
}

func TestEncryptedRefused(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", usesSecrets)
	f.write("prod.env", fixture(t, "all.env"))
	f.write("all.bin", fixture(t, "all.bin"))
	f.write("conf/all.yaml", fixture(t, "all.yaml"))
	f.write("whole.txt.age", sealed(t, "hunter2-in-age"))
	f.push("secrets")
	task := f.decrypting()
	task.Delivery.EnvFiles = []string{"prod.env"}
	f.must(task)

	// Without a key: by its name, and by what uses it.
	plain := task
	plain.Delivery.Decrypt, plain.Keys = "", nil
	f.refused(plain, cluster.KindInvalid, "prod.env", "--decrypt")
	plain.Delivery.EnvFiles = nil
	f.refused(plain, cluster.KindInvalid, "secrets.", "--decrypt")
	f.write("compose.yaml", "services:\n  web:\n    image: web:1\n    env_file: [prod.env]\n")
	f.push("as ciphertext")
	f.refused(plain, cluster.KindInvalid, "services.web.environment", "prod.env", "--decrypt")
	f.write("compose.yaml", "services:\n  web:\n    image: web:1\n    secrets: [s]\nsecrets: {s: {file: whole.txt}}\n")
	f.push("by its name without .age")
	f.refused(plain, cluster.KindInvalid, "secrets.s", "whole.txt.age", "--decrypt")

	// With another key, with none, and with what is no key.
	other := task
	other.Delivery.EnvFiles, other.Keys = nil, []byte(fixture(t, "other.txt"))
	f.refused(other, cluster.KindInvalid, "whole.txt.age", "none of the delivery's age keys")
	other.Keys = []byte("geheim")
	if _, err := f.run(other); err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "AGE-SECRET-KEY") {
		t.Errorf("%v", err)
	}

	// Changed by hand.
	f.write("compose.yaml", usesSecrets)
	f.write("conf/all.yaml", strings.Replace(fixture(t, "all.yaml"), "port: 8080", "port: 8081", 1))
	f.push("tampered")
	f.refused(task, cluster.KindInvalid, "conf/all.yaml", "MAC")
	f.write("conf/all.yaml", "<<<<<<< HEAD\n"+fixture(t, "all.yaml"))
	f.push("a conflict")
	f.refused(task, cluster.KindInvalid, "conf/all.yaml", "not a whole file")
	f.write("conf/all.yaml", fixture(t, "groups.yaml"))
	f.push("key groups")
	f.refused(task, cluster.KindInvalid, "conf/all.yaml", "key groups")
	f.write("conf/all.yaml", fixture(t, "all.yaml"))
	f.write("whole.txt", "in clear")
	f.push("both")
	f.refused(task, cluster.KindInvalid, "whole.txt.age", "remove one")
}

// A package's encrypted files are secrets of the app, and nothing else: neither of what
// runs, nor of its hooks, nor of what is kept of it.
func TestSecretsOfAPackage(t *testing.T) {
	const app = "services:\n  web:\n    image: web:1\n    secrets: [a, b]\n"
	const declared = "secrets:\n  a: {file: files/a.txt}\n  b: {file: files/all.bin}\n"
	prepare := func(t *testing.T, template string, more ...string) (*forge, work.Task) {
		t.Helper()
		f := newForge(t)
		f.write("pkg/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.3\n")
		f.write("pkg/templates/app.yaml", template)
		f.write("pkg/files/a.txt.age", sealed(t, "hunter2-in-age"))
		f.write("pkg/files/all.bin", fixture(t, "all.bin"))
		f.write("pkg/files/other.yaml", fixture(t, "other.yaml")) // with another key
		f.write("secret.yaml", fixture(t, "all.yaml"))
		for i := 0; i+1 < len(more); i += 2 {
			f.write(more[i], more[i+1])
		}
		f.push("a package")
		task := f.decrypting()
		task.Delivery.Package, task.Release = "pkg", 1
		if err := task.Delivery.Validate(); err != nil {
			t.Fatal(err)
		}
		return f, task
	}
	f, task := prepare(t, app+declared)
	r := f.must(task)
	if a, b := string(r.Bundle.Secrets["a"].Value), string(r.Bundle.Secrets["b"].Value); a != "hunter2-in-age" || b != fixture(t, "all.bin.plain") {
		t.Errorf("the secrets hold %q, %q", a, b)
	}
	for name, s := range r.Bundle.Secrets {
		s.Value = nil
		r.Bundle.Secrets[name] = s
	}
	if b, err := json.Marshal(r); err != nil || bytes.Contains(b, []byte("hunter2")) {
		t.Errorf("%v: %s", err, b)
	}
	task.Keys, task.Delivery.Decrypt = nil, ""
	f.refused(task, cluster.KindInvalid, "secrets.a.file", "external: true") // as with install
	task.Delivery.Values = []string{"secret.yaml"}
	f.refused(task, cluster.KindInvalid, "secret.yaml", "--decrypt")

	// What is kept of the document has nothing of a file either, wherever that is put.
	f, task = prepare(t, app+declared+"x-note: {{ .Files.Get \"files/a.txt\" | quote }}\n")
	if r := f.must(task); strings.Contains(r.Bundle.Rendered, "hunter2") || !strings.Contains(r.Bundle.Rendered, "x-note: '[secret]'") {
		t.Errorf("the document is kept as\n%s", r.Bundle.Rendered)
	}

	const hook = "  hook:\n    image: web:1\n    x-fairlead: {hook: {on: [pre-upgrade]}}\n"
	for name, c := range map[string]struct {
		template string
		more     []string
		words    []string
	}{
		"an environment":          {app + "    environment: {P: {{ .Files.Get \"files/a.txt\" | quote }}}\n" + declared, nil, []string{"services.web.environment.P", "files/a.txt"}},
		"what only depends on it": {app + "    environment: {P: {{ .Files.Get \"files/a.txt\" | b64enc | quote }}}\n" + declared, nil, []string{"services.web.environment.P"}},
		"a config":                {app + "    configs: [c]\nconfigs: {c: {content: {{ .Files.Get \"files/a.txt\" | quote }}}}\n" + declared, nil, []string{"configs.c", "files/a.txt"}},
		"a hook":                  {app + hook + "    command: [run, {{ .Files.Get \"files/a.txt\" | b64enc | quote }}]\n" + declared, nil, []string{"hooks"}},
		"notes":                   {app + declared, []string{"pkg/templates/NOTES.txt", "{{ .Files.Get \"files/a.txt\" | b64enc }}"}, []string{"notes: "}},
		"values":                  {app + declared, []string{"values"}, []string{"values: ", "secret.yaml"}},
		"another key":             {app + "secrets:\n  a: {file: files/other.yaml}\n  b: {file: files/all.bin}\n", nil, []string{"files/other.yaml"}},
		"a file of the server":    {app + "secrets:\n  a: {file: /etc/passwd}\n  b: {file: ../secret.yaml}\n", nil, nil},
		"an error":                {app + "    deploy: {replicas: {{ .Files.Get \"files/a.txt\" | quote }}}\n" + declared, nil, []string{"files/a.txt", "not a whole number"}},
		"a failure":               {"{{ fail (.Files.Get \"files/a.txt\") }}", nil, []string{"files/a.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			more := c.more
			if len(more) == 1 {
				more = nil
			}
			f, task := prepare(t, c.template, more...)
			if len(c.more) == 1 {
				task.Delivery.Values = []string{"secret.yaml"}
			}
			r, err := f.run(task)
			if c.words == nil {
				if err != nil || len(r.Bundle.Secrets["a"].Value)+len(r.Bundle.Secrets["b"].Value) > 0 || len(r.Warnings) < 2 {
					t.Errorf("%v, %+v, %v", err, r.Bundle, r.Warnings)
				}
				return
			}
			f.refused(task, cluster.KindInvalid, c.words...)
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the refusal holds a value: %v", err)
			}
		})
	}
}

// TestNothingOnDisk looks at a worker's directory all the while that it runs.
func TestNothingOnDisk(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", usesSecrets)
	f.write("prod.env", fixture(t, "all.env"))
	f.write("all.bin", fixture(t, "all.bin"))
	f.write("conf/all.yaml", fixture(t, "all.yaml"))
	f.write("whole.txt.age", sealed(t, "hunter2-in-age"))
	for i := range 400 { // so that it takes a while
		f.write(fmt.Sprintf("more/%d.yaml", i), fixture(t, "all.yaml"))
	}
	f.push("secrets")
	task := f.decrypting()
	task.Delivery.EnvFiles = []string{"prod.env"}

	ctx, stop := context.WithCancel(t.Context())
	looked := make(chan string, 1)
	go func() {
		trees := 0
		for ctx.Err() == nil {
			_ = filepath.WalkDir(f.w.Dir, func(name string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), "source-tree") {
					trees++
				}
				if err != nil || !e.Type().IsRegular() {
					return nil //nolint:nilerr // it is gone
				}
				if b, err := os.ReadFile(name); err == nil && (bytes.Contains(b, []byte("hunter2")) || strings.Contains(name, "source-tree")) {
					looked <- name
					return fs.SkipAll
				}
				return nil
			})
			if mounts, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(mounts, []byte(f.w.Dir)) {
				select {
				case looked <- "a mount that all see":
				default:
				}
			}
		}
		if trees == 0 {
			select {
			case looked <- "no tree was ever seen":
			default:
			}
		}
		close(looked)
	}()
	f.must(task)
	stop()
	for what := range looked {
		t.Errorf("on disk while it ran: %s", what)
	}
	_ = filepath.WalkDir(f.w.Dir, func(name string, _ fs.DirEntry, _ error) error {
		if name != f.w.Dir {
			t.Errorf("left behind: %s", name)
		}
		return nil
	})
}

// TestDollar: what a value would be taken for is warned of without the value.
func TestDollar(t *testing.T) {
	f := newForge(t)
	f.write("compose.yaml", "services:\n  web:\n    image: web:1\n    secrets: [p, q]\nsecrets: {p: {environment: P}, q: {environment: Q}}\n")
	f.write("prod.env.age", sealed(t, "P=hunter2$geheim\nQ='hunter2$geheim'\n"))
	f.push("a dollar")
	task := f.decrypting()
	task.Delivery.EnvFiles = []string{"prod.env"}
	r := f.must(task)
	if got := string(r.Bundle.Secrets["q"].Value); got != "hunter2$geheim" {
		t.Errorf("quoted it is %q", got)
	}
	said := strings.Join(r.Warnings, "\n")
	if got := string(r.Bundle.Secrets["p"].Value); got != "hunter2$geheim" && !strings.Contains(said, "$ begins a variable") {
		t.Errorf("it is %q, and warned is %q", got, said)
	}
	if strings.Contains(said, "geheim") || strings.Contains(said, "hunter2") {
		t.Errorf("a value is shown: %s", said)
	}
	t.Log(said)
}
