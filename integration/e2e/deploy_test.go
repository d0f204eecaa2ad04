package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/need"
)

// image makes the test application an image of its own name, once a test.
func (n *node) image() string {
	n.t.Helper()
	dir := filepath.Join(n.dir, "image")
	n.write("image/Dockerfile", "FROM scratch\nCOPY app /app\nEXPOSE 8080\nENTRYPOINT [\"/app\"]\n")
	if err := os.Link(app, filepath.Join(dir, "app")); err != nil {
		n.t.Fatal(err)
	}
	ref := "fairlead-e2e:" + filepath.Base(n.dir)
	if out, err := n.docker("build", "-q", "-t", ref, dir).CombinedOutput(); err != nil {
		n.t.Fatalf("docker build: %v\n%s", err, out)
	}
	n.made = append(n.made, ref)
	return ref
}

const healthcheck = `{test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 3, start_period: 20s}`

// web is a Compose file with one routed service. Its start_period is for a slow machine:
// what does not listen yet when its time is up is called broken.
func web(image, name, version string, replicas int, more string) string {
	return fmt.Sprintf(`
name: %s
services:
  web:
    image: %s
    environment: {VERSION: %q}
    expose: ["8080"]
    deploy: {replicas: %d, update_config: {monitor: 1s}}
    x-fairlead: {health: {port: 8080, http: /health, interval: 1s, timeout: 10s, start_period: 10s}, routes: [{host: %s.example.com, port: 8080}]}
%s`, name, image, version, replicas, name, more)
}

// answer fetches a URL through the gateway.
func (n *node) answer(url string) (string, error) {
	return n.answerTo(n.client(false), url)
}

func (n *node) answerTo(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, b)
	}
	return string(b), err
}

type task struct {
	Address string `json:"address"`
	ID      string `json:"id"`
	State   string `json:"state"`
	Ready   bool   `json:"ready"`
	Version string `json:"version"`
	Cont    string `json:"container"`
}

func (n *node) ready(app string) (out []task) {
	n.t.Helper()
	for _, t := range get[[]task](n, "ps", app) {
		if t.Ready {
			out = append(out, t)
		}
	}
	return out
}

func TestShop(t *testing.T) {
	n := start(t, "--autoscale-period", "2s")
	build := exec.Command("../../examples/shop/build.sh")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		out, _ := exec.Command("sh", "-c", "docker images -q 'fairlead/shop-*' | sort -u | xargs -r docker rmi -f").CombinedOutput()
		t.Logf("images removed: %d bytes of output", len(out))
	})
	n.do("deploy", "-f", "../../examples/shop/compose.yaml")
	body, err := n.answer("http://shop.localhost/")
	if err != nil || !strings.Contains(body, "The shop") {
		t.Fatalf("the shop answers %q, %v", body, err)
	}
	t.Run("the worker's orders arrive through api and password", func(t *testing.T) {
		n.eventually(20*time.Second, "an order", func() error {
			body, err := n.answer("http://shop.localhost/")
			if err == nil && strings.Contains(body, ">0 orders") {
				err = fmt.Errorf("no orders yet")
			}
			return err
		})
	})
	t.Run("deploying again changes nothing", func(t *testing.T) {
		before := n.ready("shop")
		out := n.do("deploy", "-f", "../../examples/shop/compose.yaml")
		if !strings.Contains(out, "nothing to change") {
			t.Errorf("a second deploy says %q", out)
		}
		if after := n.ready("shop"); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("tasks changed from %v to %v", before, after)
		}
	})
	t.Run("no secret is seen from outside", func(t *testing.T) { noSecretSeen(t, n, "shop", "store", "store-password") })
	t.Run("only web is exposed", func(t *testing.T) {
		out := n.do("exposure")
		if !strings.Contains(out, "http://shop.localhost") || strings.Contains(out, "shop/api") || strings.Contains(out, "shop/store") {
			t.Errorf("exposure prints\n%s", out)
		}
	})
	if out := n.do("explain", "shop/api.1"); !strings.Contains(out, ": running and ready\n") || !strings.Contains(out, "there is no other node") {
		t.Errorf("explain of a task prints\n%s", out)
	}
	t.Run("it grows under load and shrinks after it", func(t *testing.T) {
		// A reservation that a busy machine's share is enough to outgrow.
		sooner := n.write("sooner.yaml", `services: {web: {deploy: {resources: {reservations: {cpus: "0.1"}}}, x-fairlead: {autoscale: {down_window: 4s}}}}`)
		n.do("deploy", "-f", "../../examples/shop/compose.yaml", "-f", sooner)
		web := func() (have int) {
			for _, x := range n.ready("shop") {
				if strings.HasPrefix(x.Address, "shop/web.") {
					have++
				}
			}
			return have
		}
		if have := web(); have != 2 {
			t.Fatalf("%d ready without load, want 2", have)
		}
		visit := load.Request{Name: "visit", Method: http.MethodGet, URL: "http://shop.localhost/", KeepAlive: true, Every: time.Millisecond}
		l := n.startLoad([]load.Request{visit, visit, visit, visit})
		n.eventually(60*time.Second, "it grows under load", func() error {
			if have := web(); have < 3 {
				return fmt.Errorf("%d ready", have)
			}
			return nil
		})
		l.WantNone(t, "while it grew")
		n.eventually(90*time.Second, "it shrinks after the load", func() error {
			if have := web(); have != 2 {
				return fmt.Errorf("%d ready", have)
			}
			return nil
		})
	})
	n.do("rm", "shop", "--yes")
	if tasks := get[[]task](n, "ps"); len(tasks) != 0 {
		t.Errorf("tasks left after rm: %v", tasks)
	}
}

// noSecretSeen reads the password where it belongs, and looks for it where it does not.
func noSecretSeen(t *testing.T, n *node, app, service, secret string) {
	t.Helper()
	var password string
	for _, task := range n.ready(app) {
		if strings.HasPrefix(task.Address, app+"/"+service+".") {
			pid, err := n.docker("inspect", "-f", "{{.State.Pid}}", task.Cont).Output()
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(fmt.Sprintf("/proc/%s/root/run/secrets/%s", strings.TrimSpace(string(pid)), secret))
			if err != nil {
				t.Fatal(err)
			}
			password = string(b)
		}
	}
	if len(password) != 32 {
		t.Fatalf("secret %s has %d characters, want 32", secret, len(password))
	}
	asked := [][]string{{"ps", "-o", "json"}, {"history", app, "--release", "1"}, {"logs", app}, {"secret", "inspect", app + "/" + secret, "-o", "json"}}
	for _, task := range n.ready(app) {
		of := task.Address[:strings.LastIndex(task.Address, ".")]
		asked = append(asked, []string{"inspect", of}, []string{"inspect", task.Address}, []string{"explain", of})
		out, err := n.docker("inspect", task.Cont).Output()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), password) {
			t.Errorf("docker inspect of %s shows the password", task.Address)
		}
	}
	for _, args := range asked {
		if strings.Contains(n.do(args...), password) {
			t.Errorf("fairlead %v shows the password", args)
		}
	}
	out, err := exec.Command("grep", "-rlF", password, n.data).CombinedOutput()
	if err == nil {
		t.Errorf("the password is on disk in\n%s", out)
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if strings.Contains(string(log), password) {
		t.Error("the server's log shows the password")
	}
}

func TestScale(t *testing.T) {
	n := start(t)
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "scale", "1", 1, "")))
	for _, count := range []int{20, 3} {
		n.do("scale", fmt.Sprintf("scale/web=%d", count))
		n.eventually(90*time.Second, fmt.Sprintf("%d tasks", count), func() error {
			if have := len(get[[]task](n, "ps", "scale")); have != count {
				return fmt.Errorf("%d tasks", have)
			}
			if have := len(n.ready("scale")); have != count {
				return fmt.Errorf("%d ready", have)
			}
			return nil
		})
		if _, err := n.answer("http://scale.example.com/"); err != nil {
			t.Error(err)
		}
	}
}

func TestRollingUpdateLosesNoRequest(t *testing.T) {
	n := start(t)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "roll", "1", 10, calling(image))))
	l := n.startLoad(load.EveryKind("http://roll.example.com/"))
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "roll", "2", 10, calling(image))))
	time.Sleep(time.Second) // requests after the end of the rollout count too
	l.WantNone(t, "from outside")
	if body, err := n.answer("http://roll.example.com/"); err != nil || !strings.HasPrefix(body, "2 ") {
		t.Errorf("after the update it answers %q, %v", body, err)
	}
	n.noCallFailed()
}

// noCallFailed asks the caller how its calls went.
func (n *node) noCallFailed() {
	n.t.Helper()
	c, err := n.counted()
	if err != nil || c.Failed > 0 || c.Requests < 100 {
		n.t.Errorf("%v: %s", err, c)
	}
	n.t.Logf("from inside: %d requests, %d failed", c.Requests, c.Failed)
}

func TestBrokenVersionGoesBack(t *testing.T) {
	for _, broken := range []string{"health", "crash"} {
		t.Run(broken, func(t *testing.T) {
			n := start(t)
			image := n.image()
			n.do("deploy", "-f", n.write("compose.yaml", web(image, "back", "1", 2, "")))
			l := n.startLoad(load.EveryKind("http://back.example.com/"))
			bad := strings.Replace(web(image, "back", "2", 2, ""), `VERSION: "2"`, `VERSION: "2", BROKEN: `+broken, 1)
			if broken == "crash" { // what is declared beside it does not take the old tasks' address away
				bad = strings.Replace(bad, "host: back.example.com", "host: moved.example.com", 1)
			}
			out, err := n.try("deploy", "-f", n.write("compose.yaml", bad))
			if code := exitCode(err); code != 1 {
				t.Errorf("a deploy that fails exits with %d, want 1:\n%s", code, out)
			}
			want := map[string]string{"health": "this version is broken", "crash": "this version cannot start"}[broken]
			if !strings.Contains(out, want) {
				t.Errorf("the reason %q is not in\n%s", want, out)
			}
			l.WantNone(t, "while it went back")
			if body, err := n.answer("http://back.example.com/"); err != nil || !strings.HasPrefix(body, "1 ") {
				t.Errorf("after it went back it answers %q, %v", body, err)
			}
			if out := n.do("exposure", "back"); !strings.Contains(out, "back.example.com") {
				t.Errorf("exposure does not show what answers:\n%s", out)
			}
		})
	}
}

// A version that moves to another published port and another network, and does not
// start: what serves is reached as before, during the update and after it went back.
func TestBrokenVersionThatMovesGoesBack(t *testing.T) {
	n := start(t)
	image, was, moved := n.image(), need.Port(t), need.Port(t)
	file := func(version, network string, port int) string {
		both := "    networks: [left, joined]\nnetworks: {left: {}, joined: {}}\n"
		return strings.Replace(web(image, "move", version, 2, calling(image)+both), `expose: ["8080"]`,
			fmt.Sprintf("ports: [\"%d:8080\"]\n    networks: [%s]", port, network), 1)
	}
	n.do("deploy", "-f", n.write("compose.yaml", file("1", "left", was)))
	url := fmt.Sprintf("http://127.0.0.1:%d/", was)
	l := load.Start(t, func(bool) *http.Client {
		return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	}, load.EveryKind(url))
	bad := strings.Replace(file("2", "joined", moved), `VERSION: "2"`, `VERSION: "2", BROKEN: crash`, 1)
	if out, err := n.try("deploy", "-f", n.write("compose.yaml", bad)); exitCode(err) != 1 {
		t.Errorf("a deploy that fails: %v\n%s", err, out)
	}
	time.Sleep(time.Second)
	l.WantNone(t, "while it went back")
	if err := load.Get(http.DefaultClient, url); err != nil {
		t.Errorf("after it went back: %v", err)
	}
	n.noCallFailed()
	if out := n.do("exposure", "move"); !strings.Contains(out, fmt.Sprintf(":%d ", was)) {
		t.Errorf("exposure does not show what answers:\n%s", out)
	}
}

func exitCode(err error) int {
	if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec returns it bare
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// What is killed may lose what it held; everything else goes on.
func TestServerKilled(t *testing.T) {
	n := start(t)
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "kill", "1", 3, "")))
	before := n.ready("kill")
	l := n.startLoad(load.EveryKind("http://kill.example.com/"))
	n.stop(syscall.SIGKILL)
	time.Sleep(2 * time.Second) // requests go on while the server is away
	n.up()
	n.eventually(30*time.Second, "the tasks are ready again", func() error {
		if after := n.ready("kill"); fmt.Sprint(after) != fmt.Sprint(before) {
			return fmt.Errorf("tasks changed from %v to %v", before, after)
		}
		return nil
	})
	l.WantNone(t, "server killed and started")
	n.do("scale", "kill/web=4")
	n.eventually(30*time.Second, "it still scales", func() error {
		if have := len(n.ready("kill")); have != 4 {
			return fmt.Errorf("%d ready", have)
		}
		return nil
	})
}

func TestReplicaKilled(t *testing.T) {
	n := start(t)
	n.do("deploy", "-f", n.write("compose.yaml", web(n.image(), "replica", "1", 3, "")))
	victim := n.ready("replica")[0]
	l := n.startLoad(load.EveryKind("http://replica.example.com/"))
	time.Sleep(500 * time.Millisecond)
	if out, err := exec.Command("docker", "kill", victim.Cont).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.eventually(30*time.Second, "three are ready again", func() error {
		if have := len(n.ready("replica")); have != 3 {
			return fmt.Errorf("%d ready", have)
		}
		return nil
	})
	// Only what was in flight on it may fail: at most one request for each of the four workers.
	l.WantAtMost(t, "a replica killed", 4)
}

func TestRollback(t *testing.T) {
	n := start(t)
	image := n.image()
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "undo", "1", 2, "")))
	n.do("deploy", "-f", n.write("compose.yaml", web(image, "undo", "2", 2, "")))
	n.do("rollback", "undo")
	if body, err := n.answer("http://undo.example.com/"); err != nil || !strings.HasPrefix(body, "1 ") {
		t.Errorf("after the rollback it answers %q, %v", body, err)
	}
	if h := get[[]struct{ Number int }](n, "history", "undo"); len(h) != 3 {
		t.Errorf("history has %d releases, want 3", len(h))
	}
}

func TestAutoscaling(t *testing.T) {
	n := start(t, "--autoscale-period", "2s")
	more := strings.Replace(web(n.image(), "grow", "1", 1, ""), "deploy: {replicas: 1,", `deploy: {resources: {reservations: {cpus: "0.2", memory: 32M}},`, 1)
	more = strings.Replace(more, "port: 8080}]}", "port: 8080}], autoscale: {min: 1, max: 4, cpu: 50%, down_window: 4s}}", 1)
	n.do("deploy", "-f", n.write("compose.yaml", more))
	if have := len(n.ready("grow")); have != 1 {
		t.Fatalf("%d ready without load, want 1", have)
	}
	burn := load.Request{Name: "burn", Method: http.MethodGet, URL: "http://grow.example.com/burn", KeepAlive: true}
	l := n.startLoad([]load.Request{burn, burn})
	n.eventually(60*time.Second, "it grows under load", func() error {
		if have := len(n.ready("grow")); have < 3 {
			return fmt.Errorf("%d ready", have)
		}
		return nil
	})
	l.WantNone(t, "while it grew")
	n.eventually(90*time.Second, "it shrinks after the load", func() error {
		if have := len(get[[]task](n, "ps", "grow")); have != 1 {
			return fmt.Errorf("%d tasks", have)
		}
		return nil
	})
}
