package cli_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
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
	want := `a:
  x: 1.0
  z: 3.0
b:
- true
- 1234567.0
c: null
code: "007"
"n": 7
port: 8080.0
raw: a,b=c
text: |
  one: two
"yes": "true"
`
	if diff := cmp.Diff(want, d.Set); diff != "" || !d.SetTyped {
		t.Errorf("%v, %s", d.SetTyped, diff)
	}
	for _, tc := range [][]string{{"--values-file", "none.yaml"}, {"--set-json", "x={"}, {"--values", "a.yaml"}} {
		s := h.cli("", append([]string{"delivery", "create", "ww", "https://charts.example.com", "--chart", "pl", "-d"}, tc...)...)
		if s.code != 2 || tc[0] == "--values" && !strings.Contains(s.err, "--values-file") {
			t.Errorf("%v: %d, %s", tc, s.code, s.err)
		}
	}
}

// An element of a list that stands in the source would take the list's place: what is there is
// known only later.
func TestAnElementOfASourcesListIsRefused(t *testing.T) {
	h := newHub(t)
	h.write("over.yaml", "servers: [{port: 80}]\nm: {l: [1]}\n")
	for _, tc := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--set", "a=1,servers[0].port=8080"}, "of servers single elements"},
		{[]string{"--set-string", "m.l[1]=x", "--set-literal", "k[0]=y,z", "--set-json", "j[0].x=1"}, "of m.l, k, j single elements"},
		{[]string{"--values-file", "over.yaml", "--set", "m.deep.l[0][1]=x"}, "of m.deep.l single elements"},
		{[]string{"--values-file", "over.yaml", "--set", "servers[0].port=8080,m.l[0]=2"}, ""},
		{[]string{"--set", "a=x[0],b={c,d[1]}", "--set-json", `servers=[{"port": 1}]`, "--set-literal", "cmd=a,b[0]=c", "--set", `e=a\,b[0]=c`}, ""},
	} {
		s := h.cli("", append([]string{"delivery", "create", "ww", "https://git.example.com/x.git", "--package", "chart", "--values", "prod.yaml", "-d", "--replace"}, tc.flags...)...)
		if tc.says == "" && s.code != 0 || tc.says != "" && (s.code != 2 || !strings.Contains(s.err, tc.says)) {
			t.Errorf("%v: %d, %s", tc.flags, s.code, s.err)
		}
	}
	// With no values of the source there is no list but the package's own, which install replaces too.
	h.must("", "delivery", "create", "ww", "https://git.example.com/x.git", "--package", "chart", "-d", "--replace", "--set", "servers[0].port=8080")
}

// The same flags are the same values to a package that is installed and to one that is delivered.
func TestDeliveredValuesAreThoseOfInstall(t *testing.T) {
	h := newHub(t)
	h.write("demo/Chart.yaml", "apiVersion: v2\nname: demo\nversion: 1.0.0\n")
	h.write("demo/values.yaml", "gone: default\nm: {deep: {\"n\": 0, kept: true}}\nl: []\n")
	h.write("demo/templates/app.yaml", `services:
  web:
    image: a
    command: ["--maxmemory={{ .Values.big }}"]
    environment:
{{- range $k, $v := .Values }}
      {{ $k }}: {{ printf "%v %T %s" $v $v (toJson $v) | quote }}
{{- end }}
      whole: {{ if kindIs "int64" .Values.big }}{{ eq .Values.big 1000000000 }}{{ end }}
      deep: {{ printf "%v %T" .Values.m.deep.n .Values.m.deep.n | quote }}
`)
	h.write("over.yaml", "big: 5\nfile: 1000000000\nfileNegative: -20000000\nfileFloat: 1.5\nfileWhole: 2.0\nfileText: '1e9'\nfileList: [3000000, {n: 4000000, s: 'no'}, null]\nfileHuge: 123456789012345678901\n")
	for name, flags := range map[string][]string{
		"big":       {"--set", "big=1000000000"},
		"largest":   {"--set", "big=9223372036854775807,more=9223372036854775808"},
		"beyond":    {"--set", "big=9007199254740993"},
		"negative":  {"--set", "big=-1000000000,zero=0,minus=-0"},
		"floats":    {"--set", "big=1.5,e=1e9,f=2.0,g=.5"},
		"text":      {"--set-string", "big=1000000000,e=1e9,o=0777,h=0x10,y=yes,n=null,t=true,date=2024-01-01,under=1_000,colon=12:30:45", "--set", "oct=0777"},
		"booleans":  {"--set", "big=true,no=false"},
		"null":      {"--set", "big=1,gone=null,m.deep.kept=null"},
		"lists":     {"--set", "big=1,l[0]=1000000000,l[2].n=2000000000", "--set", "m.deep.n=3000000000,m.deep.l={1000000,a,true}"},
		"JSON":      {"--set-json", `big=1000000000`, "--set-json", `l=[1, 2.0, 1e3, "4", null, {"n": 5000000}]`, "--set-json", `{"m": {"deep": {"n": 6000000}}}`},
		"a file":    {"-f", "over.yaml"},
		"over it":   {"-f", "over.yaml", "--set", "big=1000000000,fileList[0]=3000000,fileList[1].n=4"},
		"its lines": {"--set-literal", "big=1000000000", "--set-file", "text=over.yaml", "--set", `ключ=7000000,a\.b=8000000`},
		"nothing":   {"--set", "big=1", "--set", "l={}"},
	} {
		create := []string{"delivery", "create", "dd", "https://charts.example.com", "--chart", "demo", "-d", "--replace"}
		for _, f := range flags {
			if f == "-f" {
				f = "--values-file"
			}
			create = append(create, f)
		}
		h.must("", create...)
		var d v1.DeliveryStatus
		if err := json.Unmarshal([]byte(h.must("", "delivery", "get", "dd", "-o", "json").out), &d); err != nil {
			t.Fatal(err)
		}
		files, err := chart.Read("demo")
		if err != nil {
			t.Fatal(err)
		}
		values := chart.Values{Above: []chart.File{{Name: "the delivery's values", Data: []byte(d.Set)}}}
		got, err := chart.Render(t.Context(), chart.Request{Files: files, Values: values, Release: chart.Release{Name: "dd", Revision: 1}})
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, d.Set)
			continue
		}
		want := h.must("", append([]string{"chart", "template", "dd", "demo"}, flags...)...).out
		if diff := cmp.Diff(want, got.Text()); diff != "" || !d.SetTyped {
			t.Errorf("%s: %v, %s\n%s", name, d.SetTyped, diff, d.Set)
		}
		if name == "big" && !strings.Contains(want, "--maxmemory=1000000000\"") {
			t.Errorf("%s", want)
		}
	}
}

// What is kept with a delivery in clear is warned of, however it is given, with a way that there
// is for it.
func TestDeliveryWarnsOfPasswords(t *testing.T) {
	h := newHub(t)
	h.write("server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	h.write("values.yaml", "db: {password: hunter2}\n")
	git, repository := "https://git.example.com/x.git", "https://charts.example.com"
	for _, tc := range []struct {
		url   string
		flags []string
		says  []string
		not   string
	}{
		{git, []string{"--env", "DB_PASSWORD=hunter2", "--env", "MODE=prod"}, []string{"the variable DB_PASSWORD looks like a password, and is kept with the delivery in clear", "secret_env", "--env-file", "--decrypt"}, "MODE"},
		{git, []string{"--env", "DATABASE_URL=postgres://shop:hunter2@db/shop"}, []string{"the variable DATABASE_URL looks like a password"}, "hunter2"},
		{git, []string{"--package", "p", "--set", "auth.pwd=hunter2"}, []string{"the value auth.pwd looks like a password", "generate: 32", "SOPS encrypted (--decrypt)"}, "hunter2"},
		{repository, []string{"--chart", "p", "--values-file", "values.yaml"}, []string{"the value db.password looks like a password", "generate: 32"}, "--decrypt"},
		{repository, []string{"--chart", "p", "--set-file", "tls.key=server.key"}, []string{"the value tls.key holds a private key", "`fairlead secret set APP/NAME <FILE`"}, "generate"},
		{git, []string{"--env", "MODE=prod", "--env", "PWD=/srv"}, nil, "warning"},
	} {
		s := h.must("", append([]string{"delivery", "create", "ww", tc.url, "-d", "--replace"}, tc.flags...)...)
		for _, want := range tc.says {
			if !strings.Contains(s.err, want) {
				t.Errorf("%v: %q is not in %s", tc.flags, want, s.err)
			}
		}
		if strings.Contains(warnings(s.err), tc.not) {
			t.Errorf("%v: it says %s", tc.flags, s.err)
		}
	}
}

func warnings(said string) string {
	var lines []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "warning: ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
