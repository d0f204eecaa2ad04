package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

const serviceLabel = "com.docker.swarm.service.name"

// swarm is Docker Swarm on the engines of a lab: n1 is its manager.
type swarm struct {
	*bed
	ids map[string]string // the swarm's ID of each node
}

// docker runs Docker's command line against the engine of a node.
func (l *bed) docker(ctx context.Context, node string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, n := range l.status.Nodes {
		if n.Name == node {
			out, err := exec.CommandContext(ctx, "docker", append([]string{"-H", n.DockerHost}, args...)...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("docker %s on %s: %w: %s", strings.Join(args, " "), node, err, out)
			}
			return strings.TrimSpace(string(out)), err
		}
	}
	return "", fmt.Errorf("the lab has no node %s", node)
}

// swarm makes one of the lab's engines.
func (l *bed) swarm(ctx context.Context) (*swarm, error) {
	s := &swarm{bed: l, ids: map[string]string{}}
	manager := l.status.Nodes[0]
	addr := manager.Address.String()
	if _, err := l.docker(ctx, manager.Name, "swarm", "init", "--advertise-addr", addr, "--listen-addr", addr+":2377"); err != nil {
		return nil, err
	}
	token, err := l.docker(ctx, manager.Name, "swarm", "join-token", "-q", "worker")
	if err != nil {
		return nil, err
	}
	for _, n := range l.status.Nodes {
		if n.Name != manager.Name {
			if _, err := l.docker(ctx, n.Name, "swarm", "join", "--token", token, "--advertise-addr", n.Address.String(), addr+":2377"); err != nil {
				return nil, err
			}
		}
		if s.ids[n.Name], err = l.docker(ctx, n.Name, "info", "--format", "{{.Swarm.NodeID}}"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// running counts the running tasks of a service that are not on a node.
func (s *swarm) running(ctx context.Context, service, not string) (int, error) {
	var tasks []struct {
		NodeID string
		Status struct{ State string }
	}
	q := url.Values{"filters": {fmt.Sprintf(`{"service":[%q],"desired-state":["running"]}`, service)}}
	err := s.engines[s.status.Nodes[0].Name].call(ctx, http.MethodGet, "/tasks?"+q.Encode(), nil, &tasks)
	count := 0
	for _, t := range tasks {
		if t.Status.State == "running" && t.NodeID != s.ids[not] {
			count++
		}
	}
	return count, err
}

// create returns the time from the start of the command to so many running tasks.
func (s *swarm) create(ctx context.Context, service, image string, count int) (time.Duration, error) {
	began := time.Now()
	if _, err := s.docker(ctx, s.status.Nodes[0].Name, "service", "create", "--detach", "--quiet", "--no-resolve-image",
		"--replicas", fmt.Sprint(count), "--name", service, image); err != nil {
		return 0, err
	}
	err := s.await(ctx, service, "", count)
	return time.Since(began), err
}

// stack deploys the Compose file of Fairlead's side as a stack, and returns the time
// from the start of the command to so many running tasks. As Fairlead does, it makes
// the app's own network first. A name in it stands for the tasks' addresses (dnsrr):
// an address of the service's own needs IPVS, which kernels may lack, and costs more.
func (s *swarm) stack(ctx context.Context, name, image string, count int) (time.Duration, error) {
	web := service(image, "1", count)
	web["deploy"].(map[string]any)["endpoint_mode"] = "dnsrr"
	path, err := s.compose(map[string]any{"version": "3.8", "services": map[string]any{"web": web}})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := s.docker(ctx, s.status.Nodes[0].Name, "stack", "deploy", "--resolve-image", "never", "-c", path, name); err != nil {
		return 0, err
	}
	err = s.await(ctx, name+"_web", "", count)
	return time.Since(began), err
}

func (s *swarm) await(ctx context.Context, service, not string, count int) error {
	return until(ctx, 3*time.Minute, 20*time.Millisecond, "the swarm's tasks run", func() error {
		n, err := s.running(ctx, service, not)
		if err == nil && n < count {
			err = fmt.Errorf("%d of %d", n, count)
		}
		return err
	})
}

// remove removes a service or a stack, and waits until its containers, which carry a
// label, are gone.
func (s *swarm) remove(ctx context.Context, what, name, label string) error {
	if _, err := s.docker(ctx, s.status.Nodes[0].Name, what, "rm", name); err != nil {
		return err
	}
	q := url.Values{"all": {"1"}, "filters": {fmt.Sprintf(`{"label":["%s=%s"]}`, label, name)}}.Encode()
	return until(ctx, 3*time.Minute, 100*time.Millisecond, "the swarm's containers are gone", func() error {
		for name, e := range s.engines {
			var list []struct{ ID string }
			if err := e.call(ctx, http.MethodGet, "/containers/json?"+q, nil, &list); err != nil || len(list) > 0 {
				return errors.Join(err, fmt.Errorf("%d on %s", len(list), name))
			}
		}
		return nil
	})
}

// measureSwarm compares Fairlead with Swarm on the engines of one lab.
func measureSwarm(ctx context.Context, b *bench) error {
	if err := sweepLabs(ctx, b); err != nil {
		return err
	}
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	return b.lab(ctx, func(l *bed) error {
		s, err := l.swarm(ctx)
		if err != nil {
			return err
		}
		if err := s.fifty(ctx, image); err != nil {
			return err
		}
		return s.cuts(ctx, image)
	})
}

func (s *swarm) fifty(ctx context.Context, image string) error {
	ways := []struct {
		name string
		make func(name string) (time.Duration, error)
	}{
		{"Fairlead", func(name string) (time.Duration, error) {
			took, err := s.deployAndRemove(ctx, image, name, replicas)
			return took[0], err
		}},
		{"a stack of Swarm", func(name string) (time.Duration, error) {
			took, err := s.stack(ctx, name, image, replicas)
			return took, errors.Join(err, pause(ctx, time.Second), s.remove(ctx, "stack", name, "com.docker.stack.namespace"))
		}},
		{"a service of Swarm without a network", func(name string) (time.Duration, error) {
			took, err := s.create(ctx, name, image, replicas)
			return took, errors.Join(err, pause(ctx, time.Second), s.remove(ctx, "service", name, serviceLabel))
		}},
	}
	var stack, bare []float64
	for i := range 4 { // the first warms up
		took := make([]float64, len(ways))
		for j := range ways {
			w := (i + j) % len(ways) // each begins once
			d, err := ways[w].make(fmt.Sprintf("turn%d-%d", i, w))
			if err != nil {
				return fmt.Errorf("%s: %w", ways[w].name, err)
			}
			took[w] = d.Seconds()
		}
		if i == 0 {
			continue
		}
		stack, bare = append(stack, took[0]/took[1]), append(bare, took[0]/took[2])
		for w := range ways {
			s.b.say("  turn %d: %.2f s by %s", i, took[w], ways[w].name)
		}
	}
	s.b.set("deploy50_over_swarm", median(stack))
	s.b.set("deploy50_over_swarm_no_network", median(bare))
	return nil
}

// cuts takes turns with the cables of n3 and n2, first for Fairlead, then for Swarm.
func (s *swarm) cuts(ctx context.Context, image string) error {
	const count, trials = 6, 5
	if _, err := s.deploy(ctx, image, "cut", count); err != nil {
		return err
	}
	var ours, theirs []float64
	for i := range trials {
		took, err := s.cut(ctx, i, count, func(not string) (int, error) { return s.elsewhere(ctx, "cut", not) })
		if err != nil {
			return fmt.Errorf("fairlead: %w", err)
		}
		ours = append(ours, took.Seconds())
	}
	if _, err := s.fairlead(ctx, "rm", "cut", "--yes"); err != nil {
		return err
	}
	if _, err := s.create(ctx, "cut", image, count); err != nil {
		return err
	}
	for i := range trials {
		took, err := s.cut(ctx, i, count, func(not string) (int, error) { return s.running(ctx, "cut", not) })
		if err != nil {
			return fmt.Errorf("swarm: %w", err)
		}
		theirs = append(theirs, took.Seconds())
	}
	s.b.say("  cut to replaced: Fairlead %.1f s, Swarm %.1f s", ours, theirs)
	s.b.set("node_cut_to_replaced_s_p50", median(ours))
	s.b.set("swarm_node_cut_to_replaced_s_p50", median(theirs))
	return s.remove(ctx, "service", "cut", serviceLabel)
}

// cut takes a node's cable out until so many tasks are elsewhere, and returns how
// long that took; then it puts it in again, and waits until the node is back for both.
func (s *swarm) cut(ctx context.Context, trial, count int, elsewhere func(not string) (int, error)) (time.Duration, error) {
	victim := []string{"n3", "n2"}[trial%2]
	if n, err := elsewhere(victim); err != nil || n >= count {
		return 0, errors.Join(err, fmt.Errorf("%s has none of the tasks: %d are elsewhere", victim, n))
	}
	began := time.Now()
	if _, err := s.lab(ctx, "cut", victim); err != nil {
		return 0, err
	}
	err := until(ctx, 3*time.Minute, 50*time.Millisecond, "the tasks of a node that was cut off run elsewhere", func() error {
		n, err := elsewhere(victim)
		if err == nil && n < count {
			err = fmt.Errorf("%d of %d", n, count)
		}
		return err
	})
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	if _, err := s.lab(ctx, "heal", victim); err != nil {
		return took, err
	}
	err = until(ctx, 2*time.Minute, 200*time.Millisecond, "the node is back", func() error {
		state, err := s.docker(ctx, s.status.Nodes[0].Name, "node", "inspect", "--format", "{{.Status.State}}", s.ids[victim])
		if err == nil && state != "ready" {
			err = fmt.Errorf("it is %s to the swarm", state)
		}
		nodes, nerr := s.client.Nodes(ctx)
		for _, n := range nodes {
			if string(n.ID) == victim && !n.Alive {
				nerr = fmt.Errorf("%s is not alive to Fairlead", victim)
			}
		}
		return errors.Join(err, nerr)
	})
	if err != nil {
		return took, err
	}
	return took, pause(ctx, 5*time.Second) // what it had too much is stopped
}
