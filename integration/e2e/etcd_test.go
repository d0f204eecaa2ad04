package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/etcdd"
	"github.com/fairlead/fairlead/integration/load"
)

// On an etcd of an operator's, of an older and of the current version: an update under
// load, and the etcd killed: what runs goes on, and nothing acknowledged is lost.
func TestOperatorsEtcd(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			e := etcdd.Start(t, version)
			n := start(t, e.Flags()...)
			image := n.image()
			n.do("deploy", "-f", n.write("compose.yaml", web(image, "operated", "1", 4, "")))
			l := n.startLoad([]load.Request{{Name: "GET", Method: "GET", URL: "http://operated.example.com/"}})
			n.do("deploy", "-f", n.write("compose.yaml", web(image, "operated", "2", 4, "")))
			cmd := n.command(t.Context(), "secret", "set", "operated/kept")
			cmd.Stdin = strings.NewReader("value")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("secret set: %v\n%s", err, out)
			}

			e.Kill()
			if out, err := n.try("scale", "operated/web=2", "--timeout", "2s"); err == nil {
				t.Errorf("a change was acknowledged without etcd:\n%s", out)
			}
			n.stop(syscall.SIGKILL)
			e.Up()
			n.up()
			n.eventually(time.Minute, "changes work again", func() error {
				_, err := n.try("scale", "operated/web=3")
				return err
			})
			l.WantNone(t, "while the app was updated, etcd and the server killed and started")
			if body, err := n.answer("http://operated.example.com/"); err != nil || !strings.HasPrefix(body, "2 ") {
				t.Errorf("it answers %q, %v", body, err)
			}
			if out := n.do("secret", "ls", "operated"); !strings.Contains(out, "operated/kept") {
				t.Errorf("an acknowledged secret is lost:\n%s", out)
			}
		})
	}
}
