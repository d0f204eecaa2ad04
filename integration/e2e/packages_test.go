package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPackage takes one package through its life: installed, upgraded, refused by its
// health check, rolled back, uninstalled and brought back.
func TestPackage(t *testing.T) {
	n := start(t)
	image := n.image()
	n.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 1.0.0\nappVersion: \"1\"\n")
	n.write("demo/values.yaml", fmt.Sprintf("image: %q\nsay: hello\nbroken: \"\"\n", image))
	n.write("demo/files/app.conf", "price: $5\n")
	n.write("demo/templates/NOTES.txt", "{{ .Release.Name }} says {{ .Values.say }}, {{ .Release.Revision }}\n")
	n.write("demo/templates/app.yaml", `services:
  web:
    image: {{ .Values.image }}
    environment: {VERSION: {{ .Values.say | quote }}, BROKEN: {{ .Values.broken | quote }}}
    configs: [{source: conf, target: /app.conf}]
    secrets: [password]
    expose: ["8080"]
    deploy: {update_config: {monitor: 1s}}
    x-fairlead:
      health: {port: 8080, http: /health, interval: 1s, timeout: 5s, retries: 2, start_period: 10s}
      routes: [{host: {{ .Release.Name }}.example.com, port: 8080}]
      secret_env: {PASSWORD: password}
configs:
  conf: {content: {{ .Files.Get "files/app.conf" | replace "$" "$$" | toJson }}}
secrets:
  password: {external: true, x-fairlead: {generate: 32}}
`)
	demo := filepath.Join(n.dir, "demo")
	says := func(path, want string) {
		t.Helper()
		body, err := n.answer("http://pkg.example.com" + path)
		if err != nil || !strings.HasPrefix(body, want) {
			t.Errorf("%s answers %q, %v; want %q", path, body, err, want)
		}
	}
	if out := n.do("plan", "pkg", demo); !strings.Contains(out, "+ package demo-1.0.0") || !strings.Contains(out, "+ secret password") {
		t.Errorf("plan prints\n%s", out)
	}
	if out := n.do("install", "pkg", demo); !strings.Contains(out, "pkg says hello, 1") {
		t.Errorf("install prints\n%s", out)
	}
	says("/", "hello ")
	says("/file?name=/app.conf", "price: $5\n")
	password, err := n.answer("http://pkg.example.com/env?name=PASSWORD")
	if err != nil || len(password) != 32 {
		t.Fatalf("the password is %d characters long, %v", len(password), err)
	}

	n.do("upgrade", "pkg", demo, "--set", "say=again")
	says("/", "again ")
	says("/env?name=PASSWORD", password)

	out, err := n.try("upgrade", "pkg", demo, "--set", "say=broken,broken=health", "--atomic", "--timeout", "2m")
	if err == nil || !strings.Contains(out, "goes back to release 2") {
		t.Errorf("a bad upgrade prints %v\n%s", err, out)
	}
	n.eventually(time.Minute, "release 2 again", func() error {
		body, err := n.answer("http://pkg.example.com/")
		if err == nil && !strings.HasPrefix(body, "again ") {
			err = fmt.Errorf("it answers %q", body)
		}
		return err
	})
	if out := n.do("get", "values", "pkg"); out != "say: again\n" {
		t.Errorf("the values are\n%s", out)
	}

	n.do("rollback", "pkg", "1")
	says("/", "hello ")
	says("/env?name=PASSWORD", password)
	if out := n.do("get", "manifest", "pkg"); strings.Contains(out, password) || !strings.Contains(out, "image: "+image) {
		t.Errorf("the manifest is\n%s", out)
	}

	n.do("uninstall", "pkg", "--keep-history")
	if tasks := get[[]task](n, "ps"); len(tasks) != 0 {
		t.Errorf("tasks left: %v", tasks)
	}
	n.do("rollback", "pkg")
	says("/", "hello ")
	says("/env?name=PASSWORD", password)
	n.do("uninstall", "pkg")
	if out, err := n.try("history", "pkg"); err == nil {
		t.Errorf("its history is there:\n%s", out)
	}
}
