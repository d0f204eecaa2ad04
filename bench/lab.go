package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/lab"
	"github.com/fairlead/fairlead/proc"
)

// bed is a lab of three nodes and the cluster on it: n1 is the server with the
// gateway, n2 and n3 run containers.
type bed struct {
	*node
	b       *bench
	root    string // of labs
	status  lab.Status
	engines map[string]*engine
}

const (
	labName   = "bench"
	labPrefix = "/var/tmp/fl-bench-lab-"
)

// lab runs f on a new lab that has the test application's image on every node, and
// removes every trace of it, however f ends. flags are of "lab up".
func (b *bench) lab(ctx context.Context, f func(*bed) error, flags ...string) (err error) {
	bin, err := b.binary(ctx)
	if err != nil {
		return err
	}
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp(filepath.Dir(labPrefix), filepath.Base(labPrefix)+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, "lab")
	if err != nil {
		return err
	}
	l := &bed{node: &node{bin: bin, dir: dir}, b: b, root: root}
	defer func() {
		if end := downLabs(bin, root); end != nil {
			b.left = append(b.left, end)
			fmt.Fprintln(os.Stderr, "error:", end)
		}
	}()
	if err := l.up(ctx, flags...); err != nil {
		return err
	}
	defer l.client.Close()
	if _, err := l.lab(ctx, "load", image); err != nil {
		return err
	}
	return f(l)
}

// downLabs takes down the labs below a directory.
func downLabs(bin, root string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, bin, "lab", "down", "--all", "--dir", root).CombinedOutput(); err != nil {
		return fmt.Errorf("take the lab down: %w: %s", err, out)
	}
	return os.RemoveAll(root)
}

// sweepLabs takes down what runs that were killed left.
func sweepLabs(ctx context.Context, b *bench) error {
	left, _ := filepath.Glob(labPrefix + "*")
	for _, root := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(root, labPrefix), "-")
		if n, err := strconv.Atoi(pid); err != nil || syscall.Kill(n, 0) == nil {
			continue
		}
		bin, err := b.binary(ctx)
		if err == nil {
			err = downLabs(bin, root)
		}
		if err != nil {
			return fmt.Errorf("left by an earlier run in %s: %w", root, err)
		}
	}
	return nil
}

// lab runs a command of the lab.
func (l *bed) lab(ctx context.Context, args ...string) (string, error) {
	full := append([]string{"lab", args[0], "--dir", l.root, "--name", labName}, args[1:]...)
	if args[0] == "up" { // what is cached is found by the home directory, and the commands have one of their own
		traefik, err := exec.CommandContext(ctx, filepath.Join(l.b.root, "scripts", "traefik")).Output()
		if err != nil {
			return "", fmt.Errorf("find Traefik: %w", err)
		}
		full = append(full, "--traefik", strings.TrimSpace(string(traefik)))
	}
	return l.fairlead(ctx, full...)
}

// up makes the lab, and learns how it is reached.
func (l *bed) up(ctx context.Context, flags ...string) (err error) {
	if _, err := l.lab(ctx, append([]string{"up", "--nodes", "3"}, flags...)...); err != nil {
		return err
	}
	out, err := l.lab(ctx, "status", "-o", "json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), &l.status); err != nil || len(l.status.Nodes) != 3 {
		return fmt.Errorf("lab status: %w\n%s", err, out)
	}
	l.api = l.status.Socket
	l.engines = map[string]*engine{}
	for _, n := range l.status.Nodes {
		l.engines[n.Name] = engineAt(strings.TrimPrefix(n.DockerHost, "unix://"))
	}
	for _, u := range l.status.URLs {
		if x, err := url.Parse(u); err == nil && x.Scheme == "http" {
			l.http, _ = strconv.Atoi(x.Port())
		}
	}
	if l.http == 0 && len(flags) == 0 {
		return fmt.Errorf("the lab has no gateway: %v", l.status.URLs)
	}
	l.client, err = client.New(client.Options{Socket: l.api})
	return err
}

// agent is the process of a node's agent; the node itself knows it by another number.
func (l *bed) agent(name string) (int, error) {
	found := proc.Find(func(args []string) bool {
		return len(args) > 1 && args[1] == "agent" && strings.HasPrefix(args[0], l.root) && slices.Contains(args, name)
	})
	if len(found) != 1 {
		return 0, fmt.Errorf("%d agents run on %s", len(found), name)
	}
	return found[0].PID, nil
}

// measureLab takes the figures of a cluster of three nodes.
func measureLab(ctx context.Context, b *bench) error {
	if err := sweepLabs(ctx, b); err != nil {
		return err
	}
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	return b.lab(ctx, func(l *bed) error {
		return errors.Join(l.memory(ctx, image), l.sixty(ctx, image), l.rolling(ctx, image), l.warm(ctx))
	})
}

// warm takes the lab down and makes it anew, three times.
func (l *bed) warm(ctx context.Context) error {
	var took []float64
	for range 3 {
		if _, err := l.lab(ctx, "down"); err != nil {
			return err
		}
		began := time.Now()
		if _, err := l.lab(ctx, "up", "--nodes", "3"); err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds())
	}
	l.b.set("lab_up_3_warm_s", median(took))
	return nil
}

// memory reads the agent's of n2, idle and with 50 tasks.
func (l *bed) memory(ctx context.Context, image string) error {
	pid, err := l.agent("n2")
	if err != nil {
		return err
	}
	read := func(key string) (resident float64, err error) {
		if err := pause(ctx, settle); err != nil {
			return 0, err
		}
		private, resident, err := memory(pid)
		if err == nil {
			l.b.set(key, private)
		}
		return resident, err
	}
	resident, err := read("agent_rss_mb")
	if err != nil {
		return err
	}
	l.b.set("agent_vmrss_mb", resident)
	if _, err := l.fairlead(ctx, "node", "label", "n2", "bench=yes"); err != nil {
		return err
	}
	web := service(image, "1", replicas)
	web["deploy"].(map[string]any)["placement"] = map[string]any{"constraints": []string{"node.labels.bench == yes"}}
	if _, err := l.deployFile(ctx, "one", web, replicas); err != nil {
		return err
	}
	if _, err := read("agent_rss_mb_50_tasks"); err != nil {
		return err
	}
	_, err = l.fairlead(ctx, "rm", "one", "--yes")
	return err
}

// sixty compares 60 replicas by Fairlead with 20 containers on each engine by its API alone.
func (l *bed) sixty(ctx context.Context, image string) error {
	const count = 60
	if _, err := l.deploy(ctx, image, "warm", count); err != nil {
		return err
	}
	tasks, err := l.client.Tasks(ctx, "warm", false)
	if err != nil {
		return err
	}
	t, err := l.engines[string(tasks[0].Node)].template(ctx, tasks[0].Container)
	if err != nil {
		return err
	}
	if _, err := l.fairlead(ctx, "rm", "warm", "--yes"); err != nil {
		return err
	}
	networks := map[string]string{}
	for name, e := range l.engines {
		if networks[name], err = e.network(ctx, labName); err != nil {
			return err
		}
	}
	var ratios []float64
	for i := range 3 {
		var floor, took time.Duration
		err := takeTurns(i,
			func() (err error) { floor, err = l.floor(ctx, t, networks, count/len(l.engines)); return err },
			func() error {
				d, err := l.deployAndRemove(ctx, image, fmt.Sprintf("pair%d", i), count)
				took = d[0]
				return err
			},
		)
		if err != nil {
			return err
		}
		ratios = append(ratios, took.Seconds()/floor.Seconds())
		l.b.say("  pair %d: %.2f s by the engines alone, %.2f s by Fairlead (%.2f)", i+1, floor.Seconds(), took.Seconds(), ratios[i])
	}
	l.b.set("deploy60_three_nodes_over_api", median(ratios))
	return nil
}

// floor makes containers on all engines at once, removes them, and returns how long
// making them took.
func (l *bed) floor(ctx context.Context, t template, networks map[string]string, each int) (time.Duration, error) {
	began := time.Now()
	made := map[string]*[]string{}
	g, gctx := errgroup.WithContext(ctx)
	for name, e := range l.engines {
		ids := new([]string)
		made[name] = ids
		g.Go(func() (err error) {
			*ids, err = e.start(gctx, t, networks[name], labName, each)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	g, gctx = errgroup.WithContext(ctx)
	for name, e := range l.engines {
		g.Go(func() error { return e.remove(gctx, *made[name]) })
	}
	return took, g.Wait()
}

// rolling updates twelve replicas on the three nodes under load.
func (l *bed) rolling(ctx context.Context, image string) error {
	r, err := l.underLoad(ctx, l.b, image, 12)
	if err != nil {
		return err
	}
	l.b.set("cluster_rolling_requests", r.requests)
	l.b.set("cluster_rolling_failed", r.failed)
	l.b.set("cluster_inside_requests", r.insideRequests)
	l.b.set("cluster_inside_failed", r.insideFailed)
	_, err = l.fairlead(ctx, "rm", "roll", "--yes")
	return err
}

// elsewhere counts an app's ready tasks that are not on a node.
func (l *bed) elsewhere(ctx context.Context, app cluster.AppName, not string) (int, error) {
	tasks, err := l.client.Tasks(ctx, app, false)
	count := 0
	for _, t := range tasks {
		if t.Ready && string(t.Node) != not {
			count++
		}
	}
	return count, err
}
