package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

var (
	planned  = []string{"plan"}
	deployed = []string{"deploy"}
)

// web puts keys into the service web, which starts on line 2.
func web(keys string) string {
	return "services:\n  web:\n    image: shop/web:1\n    " + strings.ReplaceAll(strings.TrimSuffix(keys, "\n"), "\n", "\n    ") + "\n"
}

// front is another app that has a route and a port.
const front = `name: store
services:
  front:
    image: store/front:1
    ports: ["5432:5432"]
    x-fairlead: {routes: [{host: shop.example.com, port: 80}]}
  pump: {image: store/pump:1, deploy: {mode: global}}
  auto:
    image: store/auto:1
    deploy: {resources: {reservations: {cpus: "0.5"}}}
    x-fairlead: {autoscale: {min: 2, max: 5, cpu: 70%}}
secrets: {pw: {external: true}}
`

func withFront(h *hub) {
	h.deploy(strings.Replace(front, "    ports:", "    secrets: [pw]\n    ports:", 1))
	h.must("s3cret", "secret", "set", "store/pw", "-o", "json")
	h.run("store", "front")
}

func badSections() []badSection {
	return []badSection{
		{"The Compose file", "Refused before anything is sent to be stored. `plan` and `deploy` say the same.", badFiles()},
		{"Names", "A name becomes a key, a DNS label and part of a path. None leaves its place, and none reaches the terminal as it is.", badNames()},
		{"What the cluster cannot take", "The file is fine, this cluster or what runs in it is in the way.", badClaims()},
		{"Commands and flags", "", badCommands()},
		{"Secrets and certificates", "", badSecrets()},
		{"Reaching the server", "", badServers()},
		{"Packages", "Lines are those of what the templates made. Nothing of a package is rendered before all of it was looked at.", badPackages()},
	}
}

func badFiles() []badInput {
	bomb := "x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("x-a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return []badInput{
		{what: "broken YAML", file: "services:\n  web: [\n", args: planned, code: 2, says: []string{"compose.yaml:2: not valid YAML"}},
		{what: "a tab", file: "services:\n\tweb: {image: a}\n", args: planned, code: 2, says: []string{"compose.yaml:2:", "indent with spaces"}},
		{what: "an empty file", file: "\n", args: planned, code: 2, says: []string{"start with services:"}},
		{what: "no file", args: deployed, code: 2, says: []string{"name one with -f"}},
		{what: "a program in place of a file", files: map[string]string{"compose.yaml": "\x7fELF\x02\x01\x01\x00\x00\x00"}, args: planned, code: 2, says: []string{"compose.yaml"}},
		{what: "a file of 10 MB", files: map[string]string{"compose.yaml": web("tty: true") + "# " + strings.Repeat("x", 10<<20) + "\n"}, args: planned, code: 2, says: []string{"at most 2097152"}},
		{what: "anchors that multiply", files: map[string]string{"compose.yaml": bomb + web("tty: true")}, args: planned, code: 2, says: []string{"compose.yaml:6:"}},
		{what: "an unknown key", file: "services:\n  web:\n    imagee: shop/web:1\n", args: deployed, code: 2, says: []string{"compose.yaml:3: services.web.imagee: unknown key; did you mean image?"}},
		{what: "several mistakes at once", file: web("replicas: 3\nexpose: 80\ndeploy: {replicas: many}\nread_only: perhaps"), args: planned, code: 2, says: []string{"compose.yaml:4:", "compose.yaml:5:", "compose.yaml:6:", "compose.yaml:7:"}},
		{what: "wrong types", file: "services:\n  web: nginx\n  db:\n    image: [postgres]\n    environment: A=b\n", args: planned, code: 2, says: []string{"compose.yaml:2:", "compose.yaml:4:", "compose.yaml:5:"}},
		{what: "a key that would change what runs", file: web("pid: host"), args: deployed, code: 2, says: []string{"compose.yaml:4: services.web.pid: not supported"}},
		{what: "a variable that must be set", file: "services:\n  web:\n    image: shop/web:${TAG_THAT_IS_NOT_SET:?say which}\n", args: planned, code: 2, says: []string{"compose.yaml:3:", "say which"}},
		{what: "services that wait for each other", file: web("depends_on: [db]") + "  db:\n    image: db\n    depends_on: [web]\n", args: deployed, code: 2, says: []string{"compose.yaml:4:", "db → web → db"}},
		{what: "a volume that is not declared", file: web(`volumes: ["data:/data"]`), args: planned, code: 2, says: []string{"compose.yaml:4:", "declare it"}},
		{what: "a reservation above the limit", file: web("deploy:\n  resources:\n    limits: {memory: 64M}\n    reservations: {memory: 128M}"), args: planned, code: 2, says: []string{"compose.yaml:7:"}},
		{what: "autoscaling by a percentage of nothing", file: web("x-fairlead:\n  autoscale: {min: 2, max: 5, cpu: 70%}"), args: planned, code: 2, says: []string{"compose.yaml:5:", "reservations"}},
		{what: "autoscaling from 5 to 2", file: web("deploy: {resources: {reservations: {cpus: '1'}}}\nx-fairlead:\n  autoscale: {min: 5, max: 2, cpu: 70%}"), args: planned, code: 2, says: []string{"compose.yaml:6:"}},
		{what: "two services of one file, one port", file: web(`ports: ["5432:80"]`) + "  db:\n    image: db\n    ports: [\"5432:5432\"]\n", args: planned, code: 2, says: []string{"compose.yaml:4:", "compose.yaml:7"}},
		{what: "a proxy that wants the Docker socket", file: "services:\n  proxy:\n    image: traefik:v3\n    volumes: [\"/var/run/docker.sock:/var/run/docker.sock\"]\n", args: deployed, code: 2, says: []string{"compose.yaml:4:", "remove the service proxy"}},
		{what: "a build context that is not there", file: "services:\n  web:\n    build: ./nope\n", args: deployed, code: 2, says: []string{"compose.yaml:3", "nope"}},
		{what: "a build context without a Dockerfile", file: "services:\n  web:\n    build: .\n", args: deployed, code: 2, says: []string{"compose.yaml:3", "Dockerfile"}},
		{what: "a build that fails", file: "services:\n  web:\n    build: .\n", files: map[string]string{"Dockerfile": "FROM scratch\nCOPY nope /\n"}, args: deployed, code: 1, says: []string{"compose.yaml:3: build web:", "COPY failed"}, setup: func(h *hub) {
			h.host.build = func(_ []byte, _ v1.BuildOptions, progress io.Writer) (string, error) {
				_, _ = io.WriteString(progress, "Step 1/2 : FROM scratch\nStep 2/2 : COPY nope /\n")
				return "", cluster.Invalidf("COPY failed: file not found in build context: nope")
			}
		}},
	}
}

func badNames() []badInput {
	return []badInput{
		{what: "a service that climbs out", file: "services:\n  ../../etc:\n    image: shop/web:1\n", args: planned, code: 2, says: []string{"compose.yaml:2:"}},
		{what: "control characters in a service's name", file: "services:\n  \"w\\e[2Jb\":\n    image: shop/web:1\n", args: planned, code: 2, says: []string{"compose.yaml:2:", `\x1b[2J`}},
		{what: "a line break in a service's name", file: "services:\n  \"web\\nports: all\":\n    image: shop/web:1\n", args: planned, code: 2, says: []string{"compose.yaml:2:", `\n`}},
		{what: "letters of other alphabets", file: "services:\n  wеb:   # the е is Cyrillic\n    image: shop/web:1\n", args: planned, code: 2, says: []string{"compose.yaml:2:"}},
		{what: "a very long name", files: map[string]string{"compose.yaml": "services:\n  " + strings.Repeat("x", 900) + ":\n    image: shop/web:1\n"}, args: planned, code: 2, says: []string{"compose.yaml:2:", "63 letters"}},
		{what: "a volume that climbs out", file: web("volumes: [\"va:/x\"]") + "volumes:\n  va: {name: ../../etc}\n", args: planned, code: 2, says: []string{"compose.yaml:6:"}},
		{what: "a secret's file outside of its directory", file: web("secrets: [{source: pw, target: ../../etc/passwd}]") + "secrets: {pw: {external: true}}\n", args: planned, code: 2, says: []string{"compose.yaml:4:", "leaves /run/secrets"}},
		{what: "a rule of Traefik's in a host", file: web("x-fairlead:\n  routes:\n    - {host: \"a`) || Host(`b\", port: 80}"), args: planned, code: 2, says: []string{"compose.yaml:6:", "is not a host name"}},
		{what: "an image that is none", file: "services:\n  web:\n    image: \"shop web; rm -rf /\"\n", args: planned, code: 2, says: []string{"compose.yaml:3:"}},
		{what: "an app that climbs out", file: web("tty: true"), args: []string{"deploy", "../../etc"}, code: 2, says: []string{"app name"}},
		{what: "an app's name that steers the terminal", args: []string{"ps", "\x1b[31mshop\x07"}, code: 2, says: []string{`\x1b[31mshop\a`}},
		{what: "an address that climbs out", args: []string{"logs", "shop/../../etc"}, code: 2, says: []string{"service name"}},
	}
}

func badClaims() []badInput {
	return []badInput{
		{what: "a route that another app has", setup: withFront, file: web("x-fairlead:\n  routes: [{host: Shop.example.com, port: 8080}]"), args: deployed, code: 2, says: []string{"compose.yaml:5:", "store/front already has", "other.yaml:7"}},
		{what: "a port that another app has", setup: withFront, file: web("ports:\n  - \"5432:80\""), args: deployed, code: 2, says: []string{"compose.yaml:5:", "store/front already has"}},
		{what: "a port of the only node that another app has", setup: func(h *hub) {
			h.deploy("name: store\nservices:\n  front:\n    image: store/front:1\n    ports: [\"127.0.0.1:5432:5432\"]\n")
		}, file: web("ports:\n  - {target: 80, published: 5432, mode: host}"), args: planned, code: 2, says: []string{"compose.yaml:5:", "node n1, which store/front already has", "other.yaml:5"}},
		{what: "a port of the gateway itself", file: web("ports:\n  - \"8088:80\""), args: planned, code: 2, says: []string{"compose.yaml:5:", "declare a route"}},
		{what: "more than any node has", file: web("deploy:\n  resources:\n    reservations: {cpus: '64', memory: 1T}"), args: deployed, code: 2, says: []string{"compose.yaml:", "64 CPU", "n1"}},
		{what: "a refused app is not built first", setup: withFront, file: "services:\n  web:\n    build: .\n    x-fairlead:\n      routes: [{host: shop.example.com, port: 80}]\n", files: map[string]string{"Dockerfile": "FROM scratch\n"}, args: deployed, code: 2, says: []string{"compose.yaml:5:", "store/front already has"}},
		{what: "a constraint that no node fulfils (accepted: a node may come)", setup: (*hub).loops, file: web("deploy:\n  placement:\n    constraints: [node.labels.zone==mars]"), args: []string{"deploy", "--timeout", "1s"}, code: 5, changes: true, says: []string{"n1", "zone"}},
		{what: "a secret in a Vault that the servers do not know", file: web("secrets: [pw]") + "secrets:\n  pw: {external: true, x-fairlead: {vault: kv/shop#pw}}\n", args: deployed, code: 2, says: []string{"compose.yaml:6:", "start them with --vault"}},
		{what: "someone else has deployed meanwhile", setup: withFront, file: "name: store\nservices: {front: {image: store/front:2}}\n", args: []string{"deploy", "--expect", "0"}, code: 1, says: []string{"not 0", "history store"}},
		{what: "scaling what runs once on each node", setup: withFront, args: []string{"scale", "store/pump=3"}, code: 2, says: []string{"mode: global"}},
		{what: "scaling past the autoscaler's bounds", setup: withFront, args: []string{"scale", "store/auto=50"}, code: 2, says: []string{"between 2 and 5"}},
		{what: "one of two apps is not there: none is scaled", setup: withFront, args: []string{"scale", "store/front=3", "zoo/web=1"}, code: 4, says: []string{`"zoo"`}},
		{what: "nothing to go back to", setup: func(h *hub) { h.deploy(front) }, args: []string{"rollback", "store"}, code: 2, says: []string{"no release before 1"}},
		{what: "a release that never was", setup: withFront, args: []string{"rollback", "store", "99"}, code: 4, says: []string{"history store"}},
	}
}

func badCommands() []badInput {
	return []badInput{
		{what: "an image policy that is none", args: []string{"delivery", "create", "shop", "https://git.example.com/shop.git", "--image", "web=registry.example.com/shop/web semver one"}, code: 2, says: []string{"at column 42", "no range of versions"}},
		{what: "a misspelt command", args: []string{"deplyo"}, code: 2, says: []string{"did you mean deploy?"}},
		{what: "a misspelt command of a group", args: []string{"secret", "lst"}, code: 2, says: []string{"did you mean ls"}},
		{what: "a misspelt flag", args: []string{"deploy", "--detatch"}, code: 2, says: []string{"did you mean --detach?"}},
		{what: "a flag that Helm has", args: []string{"upgrade", "shop", "./shop", "--force"}, code: 2, says: []string{"unknown flag: --force", "leave it out"}},
		{what: "a flag of a wrong type", args: []string{"deploy", "--timeout", "soon"}, code: 2, says: []string{"--timeout"}},
		{what: "a time to wait that is over already", file: web("tty: true"), args: []string{"deploy", "--timeout", "-1s"}, code: 2, says: []string{"--detach"}},
		{what: "how to build, where nothing is built", file: web("tty: true"), args: []string{"deploy", "--no-build", "--pull"}, code: 2, says: []string{"--no-build leaves out"}},
		{what: "a package's flag for a Compose file", file: web("tty: true"), args: []string{"plan", "--no-hooks"}, code: 2, says: []string{"--no-hooks is for a package"}},
		{what: "a Compose file's flag for a package", args: []string{"plan", "shop", "./shop", "--profile", "x"}, code: 2, says: []string{"--profile is for Compose files"}},
		{what: "an unknown output", args: []string{"ls", "-o", "xml"}, code: 2, says: []string{"table, wide, json or yaml"}},
		{what: "an app for what is not about one", args: []string{"node", "ls", "-p", "shop"}, code: 2, says: []string{"fairlead node ls is not about one app"}},
		{what: "an output that steers the terminal", args: []string{"ls", "-o", "\x1b[31mred"}, code: 2, says: []string{"\uFFFD[31mred"}},
		{what: "too few words", args: []string{"exec", "shop/web"}, code: 2, says: []string{"needs ADDRESS and COMMAND"}},
		{what: "too many words", args: []string{"ls", "shop"}, code: 2, says: []string{`unexpected "shop"`}},
		{what: "an unknown app", args: []string{"status", "zoo"}, code: 4, says: []string{"fairlead ls"}},
		{what: "an unknown app is not an empty list", args: []string{"exposure", "zoo"}, code: 4, says: []string{"fairlead ls"}},
		{what: "an unknown service to scale", setup: withFront, args: []string{"scale", "store/frnt=3"}, code: 4, says: []string{"it has auto, front, pump"}},
		{what: "an unknown service to look into", setup: withFront, args: []string{"exec", "store/frnt", "--", "sh"}, code: 4, says: []string{"it has auto, front, pump"}},
		{what: "an unknown service to read", setup: withFront, args: []string{"logs", "-f", "store/frnt"}, code: 4, says: []string{"it has auto, front, pump"}},
		{what: "a slot that is not there", setup: withFront, args: []string{"logs", "store/front.7"}, code: 4, says: []string{"fairlead ps store"}},
		{what: "a service without an app", args: []string{"scale", "web=3"}, code: 2, says: []string{"write APP/web"}},
		{what: "a count that is none", setup: withFront, args: []string{"scale", "store/front=lots"}, code: 2, says: []string{"or auto"}},
		{what: "a terminal where there is none", setup: withFront, args: []string{"exec", "-it", "store/front", "sh"}, code: 2, says: []string{"-t needs a terminal"}},
		{what: "a command that ends with 3", setup: func(h *hub) {
			withFront(h)
			h.host.exec = exits(3)
		}, args: []string{"exec", "store/front", "--", "false"}, code: 3},
		{what: "an image that is none", setup: withFront, args: []string{"update", "store", "--image", "front=a b"}, code: 2, says: []string{"no image reference"}},
		{what: "a file that is not here", setup: withFront, args: []string{"cp", "seed.sql", "store/front:/tmp"}, code: 2, says: []string{"seed.sql"}},
		{what: "a file that is not there", setup: withFront, args: []string{"cp", "store/front:/nope", "."}, code: 4, says: []string{"/nope"}},
		{what: "two paths, no container", args: []string{"cp", "a", "b"}, code: 2, says: []string{"ADDRESS:PATH"}},
		{what: "a token that is good for no time", args: []string{"node", "invite", "--ttl", "0s"}, code: 2, says: []string{"a minute to 30 days"}},
		{what: "a token for no machine", args: []string{"server", "invite", "--uses", "0"}, code: 2, says: []string{"one machine at least"}},
		{what: "a release that cannot be", setup: withFront, args: []string{"history", "store", "--release", "0"}, code: 2, says: []string{"count from 1"}},
		{what: "a service where an app is meant", setup: withFront, args: []string{"status", "store/front"}, code: 2, says: []string{"this takes an app, such as store"}},
		{what: "the app of a directory that is not deployed", file: web("tty: true"), args: []string{"rollback"}, code: 4, says: []string{"shop is the app here", "deploy it"}},
		{what: "a file that names no app", file: "name: my_shop\n" + web("tty: true"), args: []string{"rm"}, code: 2, says: []string{"compose.yaml:1: name:", "name the app"}},
		{what: "a local port in use", setup: func(h *hub) {
			withFront(h)
			var lc net.ListenConfig
			l, err := lc.Listen(h.t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				h.t.Fatal(err)
			}
			h.t.Cleanup(func() { _ = l.Close() })
			_, port, _ := net.SplitHostPort(l.Addr().String())
			h.names = append(h.names, port, "15432")
		}, args: []string{"port-forward", "store/front", "15432:5432"}, code: 1, says: []string{"15432", "in use"}},
		{what: "nobody to confirm", setup: withFront, args: []string{"rm", "store", "--purge-secrets"}, code: 2, says: []string{"--yes"}},
		{what: "an unknown node", args: []string{"node", "drain", "n9"}, code: 4, says: []string{"fairlead node ls"}},
	}
}

func badSecrets() []badInput {
	pair := func(name string, c certificate) func(h *hub) {
		return func(h *hub) { h.write(name+".pem", c.chain); h.write(name+".key", c.key) }
	}
	add := []string{"cert", "add", "shop", "--cert", "shop.pem", "--key", "shop.key"}
	host := []string{"shop.example.com"}
	return []badInput{
		{what: "a secret that climbs out", in: "v", args: []string{"secret", "set", "shop/../../etc"}, code: 2, says: []string{"secret name"}},
		{what: "a line break in a secret's name", in: "v", args: []string{"secret", "set", "shop/a\nb"}, code: 2, says: []string{`a\nb`}},
		{what: "a secret without an app", in: "v", args: []string{"secret", "set", "db-password"}, code: 2, says: []string{"write APP/db-password"}},
		{what: "an empty secret", in: "", shown: "fairlead secret set shop/db-password </dev/null", args: []string{"secret", "set", "shop/db-password"}, code: 2, says: []string{"is unchanged"}},
		{what: "a secret that is nothing but a line end", in: "\n", shown: "echo | fairlead secret set shop/db-password", args: []string{"secret", "set", "shop/db-password"}, code: 2, says: []string{"is unchanged"}},
		{what: "a secret of 600 KiB", in: strings.Repeat("x", 600<<10), args: []string{"secret", "set", "shop/db-password"}, code: 2, says: []string{"at most 524288 bytes"}},
		{what: "a value as an argument", args: []string{"secret", "set", "shop/db-password", "hunter2"}, code: 2, says: []string{"unexpected"}},
		{what: "a generated secret that is too long", args: []string{"secret", "set", "shop/key", "--generate", "100000"}, code: 2, says: []string{"1 to 4096"}},
		{what: "a secret that is used", setup: withFront, args: []string{"secret", "rm", "store/pw"}, code: 2, says: []string{"front", "--force"}},
		{what: "an unknown secret", setup: withFront, args: []string{"secret", "inspect", "store/nope"}, code: 4, says: []string{"fairlead secret ls store"}},
		{what: "a certificate and another one's key", setup: func(h *hub) {
			pair("shop", newCertificate(h.t, host, today.AddDate(1, 0, 0)))(h)
			h.write("shop.key", newCertificate(h.t, host, today.AddDate(1, 0, 0)).key)
		}, args: add, code: 2, says: []string{"private key does not match"}},
		{what: "an expired certificate", setup: func(h *hub) { pair("shop", newCertificate(h.t, host, today.AddDate(0, -1, 0)))(h) }, args: add, code: 2, says: []string{"expired on 2026-02-01"}},
		{what: "a certificate for no host", setup: func(h *hub) { pair("shop", newCertificate(h.t, nil, today.AddDate(1, 0, 0)))(h) }, args: add, code: 2, says: []string{"names no host"}},
		{what: "a certificate that is none", files: map[string]string{"shop.pem": "hello\n", "shop.key": "hello\n"}, args: add, code: 2, says: []string{"PEM"}},
		{what: "a certificate that is not there", args: add, code: 2, says: []string{"shop.pem"}},
		{what: "a certificate without a key", args: []string{"cert", "add", "shop", "--cert", "shop.pem"}, code: 2, says: []string{"--key FILE"}},
		{what: "a registry with a scheme", in: "pw", args: []string{"image", "login", "https://registry.example.com", "-u", "ci"}, code: 2, says: []string{"write a host name"}},
	}
}

func badServers() []badInput {
	remote := func(h *hub) {
		srv := httptest.NewUnstartedServer(h.api)
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS()
		h.t.Cleanup(srv.Close)
		sum := sha256.Sum256(srv.Certificate().Raw)
		h.t.Setenv("FAIRLEAD_CA", hex.EncodeToString(sum[:]))
		h.names = append(h.names, strings.TrimPrefix(srv.URL, "https://"), "203.0.113.5:7420")
	}
	url := []string{"ls", "--url", "https://203.0.113.5:7420"}
	return []badInput{
		{what: "no server on this machine", args: []string{"ls", "--socket", "/nonexistent/fairlead.sock"}, code: 3, says: []string{"cannot reach", "system install"}},
		{
			what: "a wrong file and no server", file: web("imagee: x"), args: []string{"plan", "--socket", "/nonexistent/fairlead.sock"},
			code: 2, says: []string{"compose.yaml:4: services.web.imagee: unknown key"},
		},
		{what: "a server that is away", setup: func(h *hub) {
			srv := httptest.NewServer(nil)
			h.names = append(h.names, strings.TrimPrefix(srv.URL, "http://"), "203.0.113.5:7420")
			srv.Close()
		}, args: url, code: 3, says: []string{"connection refused", "check the address"}},
		{what: "a wrong token", setup: func(h *hub) { remote(h); h.t.Setenv("FAIRLEAD_TOKEN", "wrong") }, shown: "FAIRLEAD_TOKEN=wrong fairlead ls --url https://203.0.113.5:7420", args: url, code: 3, says: []string{"the token is not valid"}},
		{what: "no token", setup: remote, args: url, code: 3, says: []string{"a token is needed"}},
		{what: "another server's certificate", setup: func(h *hub) {
			remote(h)
			h.t.Setenv("FAIRLEAD_TOKEN", "right")
			h.t.Setenv("FAIRLEAD_CA", strings.Repeat("ab", 32))
		}, shown: "FAIRLEAD_CA=abab… fairlead ls --url https://203.0.113.5:7420", args: url, code: 3, says: []string{"fingerprint"}},
		{what: "a certificate of no known authority", setup: func(h *hub) { remote(h); h.t.Setenv("FAIRLEAD_CA", "") }, args: url, code: 3, says: []string{"unknown authority", "--ca"}},
		{what: "the port of TLS without it", setup: func(h *hub) { remote(h); h.t.Setenv("FAIRLEAD_CA", "") }, args: []string{"ls", "--url", "http://203.0.113.5:7420"}, code: 2, says: []string{"https://"}},
		{what: "an address without a scheme", args: []string{"ls", "--url", "203.0.113.5:7420"}, code: 2, says: []string{"write https://host:port"}},
		{what: "a fingerprint that is none", args: []string{"context", "add", "prod", "--server", "https://203.0.113.5:7420", "--ca", "12:34"}, code: 2, says: []string{"64 hex digits"}},
		{what: "an unknown context", args: []string{"ls", "--context", "prod"}, code: 4, says: []string{"context ls"}},
		{what: "two servers at once", args: []string{"ls", "--context", "prod", "--url", "https://203.0.113.5:7420"}, code: 2, says: []string{"one of"}},
		{what: "a broken file of contexts", setup: func(h *hub) {
			h.t.Setenv("FAIRLEAD_SOCKET", "")
			dir := filepath.Join(h.home, ".config", "fairlead")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				h.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "contexts.json"), []byte("{oops"), 0o600); err != nil {
				h.t.Fatal(err)
			}
		}, args: []string{"ls"}, code: 2, says: []string{"contexts.json", "mend or remove it"}},
		{what: "no node is there", setup: func(h *hub) {
			if _, err := h.store.Commit(h.t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey("n1"), Delete: true}}}); err != nil {
				h.t.Fatal(err)
			}
		}, file: "services:\n  web:\n    build: .\n", files: map[string]string{"Dockerfile": "FROM scratch\n"}, args: deployed, code: 1, says: []string{"no node"}},
	}
}

type certificate struct{ chain, key string }

// newCertificate makes a certificate that signs itself.
func newCertificate(t *testing.T, hosts []string, until time.Time) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop"}, DNSNames: hosts,
		NotBefore: until.AddDate(-2, 0, 0), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return certificate{block("CERTIFICATE", der), block("PRIVATE KEY", raw)}
}
