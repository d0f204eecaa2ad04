package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

const replicas = 50

// service is one entry of a Compose file: the test application, with the agent
// asking it over HTTP whether it works.
func service(image, version string, count int) map[string]any {
	return map[string]any{
		"image":       image,
		"environment": map[string]string{"VERSION": version},
		"expose":      []string{"8080"},
		"deploy":      map[string]any{"replicas": count, "update_config": map[string]string{"monitor": "1s"}},
		"x-fairlead":  map[string]any{"health": map[string]any{"http": "/health", "port": 8080}},
	}
}

func file(app string, services map[string]any) map[string]any {
	return map[string]any{"name": app, "services": services}
}

// measureDeploy compares 50 replicas by Fairlead with the same 50 containers by
// the Docker API alone. The two take turns, first one and then the other going
// first, so that a load that grows or shrinks meets both.
func measureDeploy(ctx context.Context, b *bench) error {
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	run := filepath.Base(b.dir)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.engine.clean(ctx, run); err != nil {
			b.left = append(b.left, err)
			fmt.Fprintln(os.Stderr, "error:", err)
		}
	}()
	network, err := b.engine.network(ctx, run)
	if err != nil {
		return err
	}
	return b.with(ctx, func(n *node) error {
		t, err := b.fifty(ctx, n, image)
		if err != nil {
			return err
		}
		var start, remove []float64
		for i := range b.pairs {
			var f, d [2]time.Duration // start and remove, of the floor and of Fairlead
			err := takeTurns(i,
				func() (err error) { f, err = b.floor(ctx, t, network, run); return },
				func() (err error) { d, err = n.deployAndRemove(ctx, image, fmt.Sprintf("pair%d", i), replicas); return },
			)
			if err != nil {
				return err
			}
			start = append(start, d[0].Seconds()/f[0].Seconds())
			remove = append(remove, d[1].Seconds()/f[1].Seconds())
			b.say("  pair %d: start %.2f s by the engine alone, %.2f s by Fairlead (%.2f); remove %.2f s, %.2f s (%.2f)",
				i+1, f[0].Seconds(), d[0].Seconds(), start[i], f[1].Seconds(), d[1].Seconds(), remove[i])
		}
		b.set("deploy50_over_api", median(start))
		b.set("remove50_over_api", median(remove))
		return nil
	})
}

// takeTurns runs one of a pair and then the other, in the other order every second time.
func takeTurns(i int, one, other func() error) error {
	if i%2 == 1 {
		one, other = other, one
	}
	if err := one(); err != nil {
		return err
	}
	return other()
}

// fifty deploys 50 replicas once to warm up, reads the server's memory, and
// returns how Fairlead makes such a container.
func (b *bench) fifty(ctx context.Context, n *node, image string) (template, error) {
	if _, err := n.deploy(ctx, image, "warm", replicas); err != nil {
		return template{}, err
	}
	tasks, err := n.client.Tasks(ctx, "warm", false)
	if err != nil {
		return template{}, err
	}
	t, err := b.engine.template(ctx, tasks[0].Container)
	if err != nil {
		return t, err
	}
	if err := pause(ctx, settle); err != nil {
		return t, err
	}
	private, _, err := memory(n.pid())
	if err != nil {
		return t, err
	}
	b.set("server_rss_mb_50_tasks", private)
	_, err = n.fairlead(ctx, "rm", "warm", "--yes")
	return t, err
}

// deploy returns the time from the start of the command to so many ready replicas.
func (n *node) deploy(ctx context.Context, image, app string, count int) (time.Duration, error) {
	return n.deployFile(ctx, app, service(image, "1", count), count)
}

func (n *node) deployFile(ctx context.Context, app string, web map[string]any, count int) (time.Duration, error) {
	path, err := n.compose(file(app, map[string]any{"web": web}))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := n.fairlead(ctx, "deploy", "--detach", "-f", path); err != nil {
		return 0, err
	}
	err = n.ready(ctx, cluster.AppName(app), "web", count)
	return time.Since(began), err
}

func (n *node) deployAndRemove(ctx context.Context, image, app string, count int) (took [2]time.Duration, err error) {
	if took[0], err = n.deploy(ctx, image, app, count); err != nil {
		return took, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return took, err
	}
	began := time.Now()
	_, err = n.fairlead(ctx, "rm", app, "--yes") // waits until nothing is left
	took[1] = time.Since(began)
	if err != nil {
		return took, err
	}
	tasks, err := n.client.Tasks(ctx, cluster.AppName(app), false)
	if err == nil && len(tasks) > 0 {
		err = fmt.Errorf("%d tasks are left after rm", len(tasks))
	}
	return took, err
}

func (b *bench) floor(ctx context.Context, t template, network, run string) (took [2]time.Duration, err error) {
	began := time.Now()
	ids, err := b.engine.start(ctx, t, network, run, replicas)
	took[0] = time.Since(began)
	if err != nil {
		return took, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return took, err
	}
	began = time.Now()
	err = b.engine.remove(ctx, ids)
	took[1] = time.Since(began)
	return took, err
}
