package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDeliveryFromArtifact lets an app follow a tag in a registry that has its files, with
// a login: the tag is moved, and the registry goes away.
func TestDeliveryFromArtifact(t *testing.T) {
	n := start(t)
	image := n.image()
	reg := n.registry("ann", "geheim")
	push := func(version string) string {
		t.Helper()
		return reg.PushFiles("shop/config", map[string]string{"compose.yaml": web(image, "six", version, 1, "")}, "stable")
	}
	serves := func(version string) {
		t.Helper()
		n.eventually(time.Minute, "it serves "+version, func() error {
			body, err := n.answer("http://six.example.com/")
			if err == nil && !strings.HasPrefix(body, version+" ") {
				err = fmt.Errorf("it answers %q", body)
			}
			return err
		})
	}
	first := push("1.0.0")
	n.secret("six/registry", "wrong")
	from := []string{"delivery", "create", "six", "oci://" + reg.Host + "/shop/config", "--plain-http", "--tag", "stable", "--user", "ann", "--secret", "registry", "--interval", "5s"}
	if out, err := n.try(from...); err == nil {
		t.Errorf("with another password:\n%s", out)
	}
	n.secret("six/registry", reg.Password)
	n.do(append(from, "--replace")...)
	serves("1.0.0")
	if out := n.do("trace", "six/web"); !strings.Contains(out, first) {
		t.Errorf("trace does not name %s:\n%s", first, out)
	}

	second := push("1.1.0")
	serves("1.1.0")
	n.traced("six/web", second, first)

	reg.Kill()
	n.do("delivery", "reconcile", "six", "-d")
	n.eventually(time.Minute, "it says that the registry is away", func() error {
		if out := n.do("delivery", "describe", "six"); !strings.Contains(out, "refused") {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
	serves("1.1.0")
	reg.Up()
	third := push("1.2.0")
	serves("1.2.0")
	if out := n.do("delivery", "history", "six", "-o", "json"); !strings.Contains(out, third) || !strings.Contains(out, first) {
		t.Errorf("its history is\n%s", out)
	}
}
