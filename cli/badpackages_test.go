package cli_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"slices"

	"github.com/fairlead/fairlead/chart/charttest"
)

const demoYAML = "apiVersion: v2\nname: demo\nversion: 1.0.0\n"

// demo is a package of one template, with more files.
func demo(template string, more ...string) map[string]string {
	out := map[string]string{"demo/Chart.yaml": demoYAML, "demo/templates/app.yaml": template}
	for i := 0; i+1 < len(more); i += 2 {
		out["demo/"+more[i]] = more[i+1]
	}
	return out
}

// archived writes a package's archive with one more entry.
func archived(h *hub, more tar.Header, body []byte) {
	h.t.Helper()
	var b charttest.Members
	w := tar.NewWriter(&b)
	more.Size, more.Mode = int64(len(body)), 0o644
	for _, e := range []struct {
		h tar.Header
		b []byte
	}{{tar.Header{Name: "demo/Chart.yaml", Mode: 0o644, Size: int64(len(demoYAML))}, []byte(demoYAML)}, {more, body}} {
		if err := w.WriteHeader(&e.h); err != nil {
			h.t.Fatal(err)
		}
		for part := range slices.Chunk(e.b, len(charttest.Zeros)) {
			if _, err := w.Write(part); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.write("demo.tgz", b.String())
}

func badPackages() []badInput {
	installed := []string{"install", "shop", "demo"}
	fromArchive := []string{"install", "shop", "demo.tgz"}
	const web = "services:\n  web:\n    image: shop/web:1\n"
	parts := demo("networks: {default: {}}\n", "Chart.yaml", demoYAML+"dependencies: [{name: db, version: 1.x.x, alias: users}, {name: db, version: 1.x.x, alias: orders}]\n",
		"charts/db/Chart.yaml", "apiVersion: v2\nname: db\nversion: 1.0.0\n", "charts/db/templates/app.yaml", "services:\n  db: {image: \"db:1\", volumes: [\"data:/data\"]}\nvolumes: {data: {}}\n")
	twice := []string{"demo/charts/users/templates/app.yaml:2: services.db: demo/charts/orders makes one too, at demo/charts/orders/templates/app.yaml:2", "users/templates/app.yaml:3: volumes.data:", ".Chart.IsRoot"}
	exists := func(h *hub) {
		h.write("here/Chart.yaml", demoYAML)
		h.write("here/templates/app.yaml", web)
		h.must("", "install", "shop", "here", "--detach")
	}
	return []badInput{
		{what: "no such package", args: installed, code: 4, says: []string{"oci://"}},
		{what: "a directory that is none", files: map[string]string{"demo/values.yaml": "a: 1\n"}, args: installed, code: 2, says: []string{"has no Chart.yaml"}},
		{what: "a file that is no archive", files: map[string]string{"demo.tgz": "services: {}\n"}, args: fromArchive, code: 2, says: []string{"not gzip"}},
		{what: "no version", files: map[string]string{"demo/Chart.yaml": "apiVersion: v2\nname: demo\n"}, args: installed, code: 2, says: []string{"chart.metadata.version is required"}},
		{what: "a manifest of Kubernetes'", files: demo("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"), args: installed, code: 2, says: []string{"demo/templates/app.yaml:1:", "Deployment", "write it as a service"}},
		{what: "an unknown key", files: demo("{{/* web */}}\n" + web + "    imagee: x\n"), args: installed, code: 2, process: true, says: []string{"demo/templates/app.yaml:5: services.web.imagee: unknown key; did you mean image?", "chart template shop demo"}},
		{what: "a template that is wrong", files: demo("services:\n  web: {{ if }}\n"), args: installed, code: 2, process: true, says: []string{"parse error at (demo/templates/app.yaml:2)"}},
		{what: "a value that is missing", files: demo("services: {web: {image: {{ required \"set image\" .Values.image }}}}\n"), args: installed, code: 2, says: []string{"set image"}},
		{what: "a value that the schema refuses", files: demo(web, "values.schema.json", `{"properties": {"port": {"type": "integer", "maximum": 65535}}}`), args: append(installed, "--set", "port=70000"), code: 2, says: []string{"/port", "65,535"}},
		{what: "values that are no YAML", files: demo(web, "../bad.yaml", "a: [\n"), args: append(installed, "-f", "bad.yaml"), code: 2, says: []string{"bad.yaml"}},
		{what: "a file of values that is not there", files: demo(web), args: append(installed, "-f", "none.yaml"), code: 2, says: []string{"none.yaml"}},
		{what: "an expression that is none", files: demo(web), args: append(installed, "--set", "a[x]=1"), code: 2, says: []string{"failed parsing --set data"}},
		{what: "a file of the machine that installs", files: demo(web + "    configs: [c]\nconfigs:\n  c: {file: /etc/passwd}\n"), args: installed, code: 2, says: []string{"demo/templates/app.yaml:6: configs.c.file:", ".Files.Get"}},
		{what: "a variable of the machine that installs", files: demo(web + "    command: echo $HOME\n"), args: installed, code: 2, says: []string{"demo/templates/app.yaml:4:", "$$"}},
		{what: "a hook that never ends", files: demo(web + "  migrate:\n    image: shop/web:1\n    restart: always\n    x-fairlead: {hook: {on: [pre-upgrade]}}\n"), args: installed, code: 2, says: []string{"demo/templates/app.yaml:7: services.migrate.x-fairlead.hook", "on-failure:3"}},
		{what: "dependencies that were not fetched", files: demo(web, "Chart.yaml", demoYAML+"dependencies: [{name: db, version: 1.x.x, repository: \"oci://registry.example.com/charts\"}]\n"), args: installed, code: 2, says: []string{"chart dependency update"}},
		{what: "a library", files: demo(web, "Chart.yaml", demoYAML+"type: library\n"), args: installed, code: 2, says: []string{"not installable"}},
		{what: "templates without end", files: demo("{{ define \"a\" }}{{ include \"a\" . }}{{ end }}{{ include \"a\" . }}\n"), args: installed, code: 2, process: true, says: []string{"nested reference"}},
		{what: "an archive that leads out", setup: func(h *hub) { archived(h, tar.Header{Name: "demo/../../x"}, []byte("x")) }, args: fromArchive, code: 2, says: []string{"leads out of the chart"}},
		{what: "an archive with a link", setup: func(h *hub) {
			archived(h, tar.Header{Name: "demo/x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, nil)
		}, args: fromArchive, code: 2, says: []string{"a link or a device"}},
		{what: "an archive that unpacks to 65 MiB", setup: func(h *hub) { archived(h, tar.Header{Name: "demo/x"}, make([]byte, 65<<20)) }, args: fromArchive, code: 2, says: []string{"larger than 64 MiB"}},
		{what: "a link out of a directory", files: demo(web), setup: func(h *hub) {
			if err := os.Symlink("/etc/passwd", filepath.Join(h.dir, "demo", "x")); err != nil {
				h.t.Fatal(err)
			}
		}, args: installed, code: 2, says: []string{"out of the chart"}},
		{what: "a namespace", files: demo(web), args: append(installed, "-n", "prod"), code: 2, says: []string{"its name is its address", "prod-shop"}},
		{what: "a namespace of an app that is there", setup: exists, args: []string{"status", "here", "-n", "prod"}, code: 2, says: []string{"its name is its address", "fairlead ls"}},
		{what: "an app that is there", setup: exists, args: []string{"install", "shop", "here"}, code: 2, says: []string{"upgrade shop here"}},
		{what: "an app that is not there", files: demo(web), args: []string{"upgrade", "shop", "demo"}, code: 4, says: []string{"--install"}},
		{what: "values of an app without a package", setup: func(h *hub) { h.deploy("name: shop\nservices: {web: {image: \"shop/web:1\"}}\n") }, args: []string{"get", "values", "shop"}, code: 4, says: []string{"Compose file"}},
		{what: "a repository that nobody named", args: []string{"install", "shop", "stable/shop"}, code: 4, says: []string{"chart repo add stable URL"}},
		{what: "a password in the URL of Git", args: []string{"install", "shop", "git+https://ann:pw@git.example.com/shop.git//chart"}, code: 2, says: []string{"--username"}},
		{what: "a password in the URL of an archive", args: []string{"install", "shop", "https://ann:pw@charts.example.com/shop-1.0.0.tgz"}, code: 2, says: []string{"--username NAME asks for it"}},
		{what: "what Git has no name for", args: []string{"install", "shop", "git+https://git.example.com/shop.git//chart?branch=main"}, code: 2, says: []string{"?ref="}},
		{what: "a registry as a repository", args: []string{"chart", "repo", "add", "stable", "oci://registry.example.com/charts"}, code: 2, says: []string{"needs no adding"}},
		{what: "a package that cannot be a name", args: []string{"chart", "create", "My Shop"}, code: 2, says: []string{"lower-case"}},
		{what: "parts that make one thing", files: parts, args: installed, code: 2, says: twice},
		{what: "parts that make one thing, planned", files: parts, args: []string{"plan", "shop", "demo"}, code: 2, says: twice},
		{what: "parts that make one thing, to look at", files: parts, args: []string{"chart", "template", "shop", "demo"}, code: 2, says: append(twice, "-s TEMPLATE prints one")},
	}
}
