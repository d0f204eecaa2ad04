package compose

import (
	"errors"
	"strings"
	"testing"
)

// What does nothing, or does more than it seems, is not passed over in silence: each is
// a warning or a refusal that names the line.
func TestNothingIsIgnoredSilently(t *testing.T) {
	for _, c := range []struct{ what, file, want string }{
		{"host network", in("network_mode: host"), "compose.yaml:4: services.web.network_mode: public"},
		{"restart twice", in("restart: \"no\"\ndeploy: {restart_policy: {delay: 5s}}"), "compose.yaml:4: services.web.restart: deploy.restart_policy says otherwise"},
		{"fewer attempts", in("restart: on-failure:3\ndeploy: {restart_policy: {condition: on-failure}}"), "compose.yaml:4: services.web.restart: deploy.restart_policy says otherwise"},
		{"the same twice", in("restart: always\ndeploy: {restart_policy: {delay: 5s}}"), ""},
		{"attempts of always", in("restart: always:5"), `compose.yaml:4: services.web.restart: "always:5" is not a restart policy`},
		{"strange attempts", in("restart: on-failure:3x"), `compose.yaml:4: services.web.restart: "3x" is not a number of attempts`},
		{"tiny quota", in("cpu_quota: 50"), "compose.yaml:4: services.web.cpu_quota: is less than a thousandth of a processor"},
		{"period alone", in("cpu_period: 50000"), "compose.yaml:4: services.web.cpu_period: does nothing without cpu_quota"},
		{"Docker's own network", in("networks: [n]") + "networks: {n: {external: true, name: host}}\n", "compose.yaml:5: networks.n: Docker's own network host"},
		{"name of an own secret", in("secrets: [pw]") + "secrets: {pw: {environment: PW, name: other}}\n", "compose.yaml:5: secrets.pw.name: ignored"},
		{"name of an own config", in("configs: [c]") + "configs: {c: {content: x, name: other}}\n", "compose.yaml:5: configs.c.name: ignored"},
		{"name of an external secret", in("secrets: [pw]") + "secrets: {pw: {external: true, name: other}}\n", ""},
		{"gateway's port on the loopback", in(`ports: ["127.0.0.1:80:80"]`), "compose.yaml:4: services.web.ports: port 80 of this node is the gateway's"},
		{"all addresses, then one", in(`ports: ["5432:1"]`) + "  x:\n    image: b\n    ports: ['127.0.0.1:5432:1']\n", "compose.yaml:7: services.x.ports: port 5432/tcp is taken by web"},
		{"one address, then all", in(`ports: ["127.0.0.1:5432:1"]`) + "  x:\n    image: b\n    ports: ['5432:1']\n", "compose.yaml:7: services.x.ports: port 5432/tcp is taken by web"},
		{"two addresses", in(`ports: ["127.0.0.1:5432:1"]`) + "  x:\n    image: b\n    ports: ['127.0.0.2:5432:1']\n", ""},
		{"strange tmpfs", in("tmpfs: '/a:x:y'"), `compose.yaml:4: services.web.tmpfs: "/a:x:y" is not a path and its options`},
	} {
		r, err := Load(t.Context(), Options{Files: []string{write(t, c.file)}, SingleNode: true, HTTPPort: 80, HTTPSPort: 443})
		var said []string
		if err != nil {
			if p := (*Problems)(nil); !errors.As(err, &p) {
				t.Fatalf("%s: %v", c.what, err)
			}
			said = strings.Split(err.Error(), "\n")
		} else {
			for _, w := range r.Warnings {
				said = append(said, w.String())
			}
		}
		got := strings.Join(said, "\n")
		if (c.want == "" && got != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: says\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}
