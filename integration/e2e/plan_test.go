package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPlanSaysWhatWouldWait: what plan foresees is what a deploy then comes to.
func TestPlanSaysWhatWouldWait(t *testing.T) {
	n := start(t)
	image := n.image()
	type nodeInfo struct {
		Memory int64 `json:"memory"`
	}
	memory := get[[]nodeInfo](n, "node", "ls")[0].Memory
	const app = `
name: %s
services:
  web:
    image: %s
    deploy: {replicas: %d, resources: {reservations: {memory: "%d"}}, update_config: {monitor: 1s, parallelism: 1}}
    environment: {VERSION: %q}
`
	type plan struct {
		Waits []struct {
			Service         string
			Wanted, Waiting int
			Beside          bool
			Reason          string
		} `json:"waits"`
	}
	file := n.write("big.yaml", fmt.Sprintf(app, "big", image, 2, memory*2/5, "v1"))
	if p := get[plan](n, "plan", "-f", file); len(p.Waits) != 0 {
		t.Fatalf("on an empty node: %+v", p)
	}
	n.do("deploy", "-f", file)

	other := n.write("other.yaml", fmt.Sprintf(app, "other", image, 3, memory/10, "v1"))
	p := get[plan](n, "plan", "-f", other)
	if len(p.Waits) != 1 || p.Waits[0].Service != "web" || p.Waits[0].Wanted != 3 || p.Waits[0].Waiting < 1 || p.Waits[0].Beside {
		t.Fatalf("%+v", p)
	}
	n.do("deploy", "-f", other, "-d")
	placed := p.Waits[0].Wanted - p.Waits[0].Waiting
	n.eventually(30*time.Second, "as many tasks as foreseen", func() error {
		if out := n.do("ps", "other"); len(n.ready("other")) != placed || strings.Count(out, p.Waits[0].Reason) != p.Waits[0].Waiting {
			return fmt.Errorf("not %d ready and %d waiting:\n%s", placed, p.Waits[0].Waiting, out)
		}
		return nil
	})
	// So does scale, of a count.
	if out := n.do("scale", "other/web=4"); !strings.Contains(out, fmt.Sprintf("warning: %d of 4 tasks of other/web cannot be placed now: ", 4-placed)) {
		t.Errorf("scale says\n%s", out)
	}
	n.do("rm", "other", "--yes")

	// An update needs room beside what runs.
	n.write("big.yaml", fmt.Sprintf(app, "big", image, 2, memory*2/5, "v2"))
	out := n.do("plan", "-f", file)
	if !strings.Contains(out, "2 of 2 replicas of web would wait: ") || !strings.Contains(out, "stop-first") {
		t.Errorf("plan says\n%s", out)
	}
}
