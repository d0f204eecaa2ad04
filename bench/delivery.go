package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/gitd"
)

const hookKey = "bench-signs-its-webhooks"

// measureDelivery lets an app follow a Git server under load, and then two hundred apps
// of their own.
func measureDelivery(ctx context.Context, b *bench) error {
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	if err := b.with(ctx, func(n *node) error { return b.followed(ctx, n, image) }); err != nil {
		return err
	}
	return b.with(ctx, func(n *node) error { return b.manyDeliveries(ctx, n, image) })
}

// followed pushes one version after the other, each with its webhook, as a forge sends it
// after a push; before some of them one that is never healthy, which is gone back from.
func (b *bench) followed(ctx context.Context, n *node, image string) error {
	const versions, badBefore = 10, 4 // the 4th and the 8th
	git, err := gitd.New(ctx, n.dir, "pub", "password")
	if err != nil {
		return err
	}
	defer git.Close()
	push := func(version, broken string) (time.Time, error) {
		web := service(image, version, 2)
		if broken != "" {
			web["environment"].(map[string]string)["BROKEN"] = broken
		}
		web["x-fairlead"].(map[string]any)["routes"] = []map[string]any{{"host": "pub.example.com", "port": 8080}}
		content, err := json.Marshal(file("pub", map[string]any{"web": web}))
		if err != nil {
			return time.Time{}, err
		}
		if err := git.Write("compose.yaml", string(content)); err != nil {
			return time.Time{}, err
		}
		if _, err := git.Commit(ctx, "version "+version); err != nil {
			return time.Time{}, err
		}
		began := time.Now()
		return began, git.Push(ctx)
	}
	if _, err := push("0", ""); err != nil {
		return err
	}
	if err := n.follows(ctx, git); err != nil {
		return err
	}
	l := n.load(ctx, "http://pub.example.com/")
	defer l.stop()
	var pushed, hooked []float64
	bad := 0
	for i := 1; i <= versions; i++ {
		version := fmt.Sprint(i)
		if i%badBefore == 0 {
			if _, err := push("bad", "health"); err != nil {
				return err
			}
			if err := n.goneBack(ctx, "pub"); err != nil {
				return err
			}
			bad++
		}
		began, err := push(version, "")
		if err != nil {
			return err
		}
		asked := time.Now()
		if err := n.webhook(ctx, "pub"); err != nil {
			return err
		}
		at, err := n.served(ctx, "http://pub.example.com/", version+" ")
		if err != nil {
			return err
		}
		pushed = append(pushed, at.Sub(began).Seconds())
		hooked = append(hooked, at.Sub(asked).Seconds())
		if _, err := n.fairlead(ctx, "delivery", "reconcile", "pub"); err != nil { // the rollout ends before the next
			return err
		}
	}
	l.stop()
	for _, e := range l.examples {
		b.say("  failed: %s", e)
	}
	b.say("  %d versions, %.1f to %.1f s after the webhook; %d requests", versions, quantile(hooked, 0), quantile(hooked, 1), l.requests.Load())
	b.set("push_to_served_s_p50", quantile(pushed, 0.5))
	b.set("webhook_to_served_s_p50", quantile(hooked, 0.5))
	b.set("delivery_bad_commits", float64(bad))
	b.set("delivery_requests", float64(l.requests.Load()))
	b.set("delivery_failed_requests", float64(l.failed.Load()))
	return nil
}

// servedLine is what TestDeliveryOnThreeNodes says of each image that was pushed.
var servedLine = regexp.MustCompile(`image pushed to served: ([0-9.]+) s, webhook to served: ([0-9.]+) s`)

// measureLabDelivery lets the test of a whole delivery say how long images took: it has a
// registry, a Git server, two gateways and three nodes.
func measureLabDelivery(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "20m", "-v", "-run", "^TestDeliveryOnThreeNodes$/^distro$", "./integration/lab")
	cmd.Dir, cmd.Env = b.root, append(os.Environ(), "FAIRLEAD_MUST_RUN=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the delivery in a lab failed: %w\n%s", err, out)
	}
	var pushed, hooked []float64
	for _, m := range servedLine.FindAllStringSubmatch(string(out), -1) {
		p, perr := strconv.ParseFloat(m[1], 64)
		h, herr := strconv.ParseFloat(m[2], 64)
		if err := errors.Join(perr, herr); err != nil {
			return err
		}
		pushed, hooked = append(pushed, p), append(hooked, h)
	}
	if len(pushed) < 5 {
		return fmt.Errorf("it says of %d images alone how long they took\n%s", len(pushed), out)
	}
	b.say("  %d images, %.1f to %.1f s after the webhook", len(hooked), quantile(hooked, 0), quantile(hooked, 1))
	b.set("lab_image_push_to_served_s_p50", quantile(pushed, 0.5))
	b.set("lab_image_webhook_to_served_s_p50", quantile(hooked, 0.5))
	return nil
}

// follows lets pub follow the server's branch, told by webhooks.
func (n *node) follows(ctx context.Context, git *gitd.Server) error {
	for name, value := range map[string]string{"pub/git": git.Password, "pub/hook": hookKey} {
		if err := n.secret(ctx, name, value); err != nil {
			return err
		}
	}
	_, err := n.fairlead(ctx, "delivery", "create", "pub", git.URL, "--branch", "main", "--secret", "git", "--ca", git.CA,
		"--webhook", "hook", "--interval", "1h", "--on-failure", "rollback")
	return err
}

// goneBack sends a webhook, and waits until the delivery has gone back from what it brought.
func (n *node) goneBack(ctx context.Context, delivery string) error {
	if err := n.webhook(ctx, delivery); err != nil {
		return err
	}
	return until(ctx, 5*time.Minute, time.Second, delivery+" has gone back", func() error {
		out, err := n.fairlead(ctx, "delivery", "get", delivery, "-o", "json")
		if err == nil && !strings.Contains(out, `"phase": "held"`) {
			err = fmt.Errorf("it says %.1000s", out)
		}
		return err
	})
}

// manyDeliveries lets two hundred apps without replicas follow a directory each, and
// measures the server and the processes that it starts, looking each minute.
func (b *bench) manyDeliveries(ctx context.Context, n *node, image string) error {
	const many = 200
	git, err := gitd.New(ctx, n.dir, "many", "password")
	if err != nil {
		return err
	}
	defer git.Close()
	publish := func(version string) (commit string, _ error) {
		for i := range many {
			content, err := json.Marshal(file(fmt.Sprintf("app%d", i), map[string]any{"web": service(image, version, 0)}))
			if err != nil {
				return "", err
			}
			if err := git.Write(fmt.Sprintf("app%d/compose.yaml", i), string(content)); err != nil {
				return "", err
			}
		}
		commit, err := git.Commit(ctx, "version "+version+" of all of them")
		if err != nil {
			return "", err
		}
		return commit, git.Push(ctx)
	}
	first, err := publish("1")
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range many {
		app := fmt.Sprintf("app%d", i)
		if err := n.secret(ctx, app+"/git", git.Password); err != nil {
			return err
		}
		if _, err := n.fairlead(ctx, "delivery", "create", app, git.URL, "--branch", "main", "--path", app, "--secret", "git", "--ca", git.CA, "--detach"); err != nil {
			return err
		}
	}
	if err := n.allAt(ctx, first, many); err != nil {
		return err
	}
	b.set("deliveries_200_ready_s", time.Since(began).Seconds())
	if err := pause(ctx, settle); err != nil {
		return err
	}
	if err := b.looking(ctx, n, git); err != nil {
		return err
	}
	second, err := publish("2")
	if err != nil {
		return err
	}
	began = time.Now()
	if err := n.allAt(ctx, second, many); err != nil {
		return err
	}
	b.set("deliveries_200_followed_s", time.Since(began).Seconds())
	return nil
}

// looking measures a server, and the processes that it starts, while its deliveries look
// at their sources.
func (b *bench) looking(ctx context.Context, n *node, git *gitd.Server) error {
	const window = 3 * time.Minute
	before, err := familyTime(n.pid())
	if err != nil {
		return err
	}
	requests, began := git.Requests(), time.Now()
	most := 0.0
	for time.Since(began) < window {
		private, err := familyMemory(n.pid())
		if err != nil {
			return err
		}
		most = max(most, private)
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	after, err := familyTime(n.pid())
	if err != nil {
		return err
	}
	took := time.Since(began)
	b.set("deliveries_200_cpu_percent", 100*(after-before).Seconds()/took.Seconds())
	b.set("deliveries_200_requests_per_minute", float64(git.Requests()-requests)/took.Minutes())
	private, _, err := memory(n.pid())
	if err != nil {
		return err
	}
	b.set("deliveries_200_rss_mb", private)
	b.set("deliveries_200_peak_mb", most)
	return nil
}

// allAt waits until so many deliveries are ready at a commit.
func (n *node) allAt(ctx context.Context, commit string, many int) error {
	return until(ctx, 10*time.Minute, time.Second, "all are ready at "+commit, func() error {
		out, err := n.fairlead(ctx, "delivery", "get", "-o", "json")
		if err != nil {
			return err
		}
		var all []v1.DeliveryStatus
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			return err
		}
		there := 0
		for _, d := range all {
			if d.State.Phase == cluster.PhaseReady && d.State.Applied != nil && d.State.Applied.Origin.Revision == commit {
				there++
			}
		}
		if there < many {
			return fmt.Errorf("%d of %d are", there, many)
		}
		return nil
	})
}

// secret sets a secret of an app.
func (n *node) secret(ctx context.Context, ref, value string) error {
	cmd := exec.CommandContext(ctx, n.bin, "secret", "set", ref)
	cmd.Env = append(os.Environ(), "FAIRLEAD_SOCKET="+n.socket(), "HOME="+n.dir)
	cmd.Stdin = strings.NewReader(value)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("secret set %s: %w: %s", ref, err, out)
	}
	return nil
}

// webhook sends one as GitHub does.
func (n *node) webhook(ctx context.Context, delivery string) error {
	const body = `{"ref": "refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(hookKey))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://fairlead/v1/hooks/"+delivery, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", n.socket())
	}}}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the webhook is answered with %s", res.Status)
	}
	return nil
}

// served asks every 10 ms until an answer begins so.
func (n *node) served(ctx context.Context, url, with string) (time.Time, error) {
	c := n.traefik(true)
	defer c.CloseIdleConnections()
	var at time.Time
	err := until(ctx, 2*time.Minute, 10*time.Millisecond, url+" answers "+with, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := c.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		if at = time.Now(); err == nil && !strings.HasPrefix(string(body), with) {
			err = fmt.Errorf("it answers %q", body)
		}
		return err
	})
	return at, err
}
