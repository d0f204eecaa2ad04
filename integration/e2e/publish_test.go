package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// publishing is a Compose file whose one service is published on a port of the gateways.
func publishing(image string, port int) string {
	return fmt.Sprintf("name: taken\nservices:\n  web:\n    image: %s\n    healthcheck: %s\n    ports:\n      - \"%d:8080\"\n", image, healthcheck, port)
}

// A deploy ends well only when the gateways have its ports, and says what is in
// the way of one that they cannot have.
func TestPublishedPortThatAnotherProgramHas(t *testing.T) {
	n := start(t)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, free := l.Addr().(*net.TCPAddr).Port, need.Port(t)
	image := n.image()
	file := n.write("compose.yaml", publishing(image, taken))
	out, err := n.try("deploy", "-f", file)
	if code := exitCode(err); code != 1 {
		t.Errorf("a deploy whose port is taken exits with %d, want 1:\n%s", code, out)
	}
	for _, want := range []string{fmt.Sprintf("port %d/tcp (compose.yaml:7)", taken), "in use by e2e.test", "stop that program, or publish another port"} {
		if !strings.Contains(out, want) {
			t.Errorf("deploy does not say %q:\n%s", want, out)
		}
	}
	answers := func(port int) error {
		return load.Get(http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", port))
	}
	// As the advice says: another port, or an end of that program. When deploy ends, the port answers.
	n.do("deploy", "-f", n.write("compose.yaml", publishing(image, free)))
	if err := answers(free); err != nil {
		t.Errorf("right after the deploy: %v", err)
	}
	l.Close()
	n.do("deploy", "-f", n.write("compose.yaml", publishing(image, taken)))
	if err := answers(taken); err != nil {
		t.Errorf("right after the deploy: %v", err)
	}
	if out := n.do("status"); strings.Contains(out, "alarm") {
		t.Errorf("status has an alarm:\n%s", out)
	}
}
