package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"

	"github.com/fairlead/fairlead/integration/registryd"
)

// When the disk is full the agent removes the images that it pulled itself and that nothing
// uses, and no others: what a person pulled or named stays.
func TestAgentRemovesUnusedImagesWhenTheDiskIsFull(t *testing.T) {
	n := newAgentNode(t)
	r := registryd.Start(t, "", "")
	repo := r.Host + "/" + n.clusterI
	push := func(tag string, version string) {
		t.Helper()
		r.Push(n.clusterI, n.init, []string{"VERSION=" + version}, tag)
	}
	id := func(ref string) string {
		t.Helper()
		i, err := n.engine.Image(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		return i.ID
	}
	mine := n.clusterI + "-mine:1"
	t.Cleanup(func() {
		n.clean() // or the images of its containers would stay, without a name
		out, _ := exec.Command("docker", "images", "--digests", "--format", "{{.Repository}}@{{.Digest}}", repo).Output()
		for ref := range strings.FieldsSeq(string(out)) {
			_ = exec.Command("docker", "rmi", "-f", ref).Run()
		}
		for _, ref := range []string{mine, repo + ":1", repo + ":latest", repo + ":mine", repo + ":person", repo + ":peer"} {
			_ = exec.Command("docker", "rmi", "-f", ref).Run()
		}
	})
	var free, later atomic.Int64
	free.Store(50)
	push("peer", "5")
	tar := filepath.Join(t.TempDir(), "peer.tar")
	for _, args := range [][]string{{"pull", repo + ":peer"}, {"save", "-o", tar, repo + ":peer"}, {"rmi", repo + ":peer"}} {
		if out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	n.start(func(c *agent.Config) {
		c.Fetch = func(_ context.Context, ask cluster.ImageAsk) (cluster.ImageSent, error) {
			if ask.Ref != repo+":peer" {
				return cluster.ImageSent{}, cluster.NotFoundf("no other node")
			}
			f, err := os.Open(tar)
			return cluster.ImageSent{ReadCloser: f, From: "n2", Pulled: true}, err
		}
		c.ImageGC = agent.ImageGC{High: 85, Low: 80, Every: 100 * time.Millisecond}
		c.DiskUse = func(string) (agent.DiskUse, error) { return agent.DiskUse{Total: 100, Free: free.Load()}, nil }
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	run := func(tag string) cluster.NodePlacement {
		t.Helper()
		policy := "always"
		if tag == "peer" {
			policy = "missing"
		}
		p := n.placement("web", 1, cluster.TaskSpec{Image: repo + ":" + tag, NetworkMode: "none", PullPolicy: policy, Command: []string{"serve"}})
		n.place(p)
		n.await(p.Task, "running "+tag, 30*time.Second, ready)
		return p
	}
	end := func(p cluster.NodePlacement) {
		t.Helper()
		n.unplace(p.Task)
		n.until("the container gone", 30*time.Second, func() bool { return len(n.containers()) == 0 }, func() string { return "" })
	}
	push("person", "0")
	if out, err := exec.CommandContext(t.Context(), "docker", "pull", repo+":person").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	end(run("person"))
	push("1", "1")
	end(run("1"))
	end(run("peer"))
	push("mine", "2")
	end(run("mine"))
	if err := n.engine.Tag(t.Context(), repo+":mine", mine); err != nil {
		t.Fatal(err)
	}
	push("latest", "3")
	end(run("latest"))
	before := id(repo + ":latest")
	push("latest", "4")
	run("latest")
	stay := []string{repo + ":person", mine, id(repo + ":latest")}
	free.Store(5)
	time.Sleep(time.Second)
	id(repo + ":peer")
	id(repo + ":1") // none is removed within the hour
	later.Store(int64(2 * time.Hour))
	gone := func(ref string) bool {
		_, err := n.engine.Image(t.Context(), ref)
		return cluster.KindOf(err) == cluster.KindNotFound && !errors.Is(err, docker.ErrAway)
	}
	n.until("unused images gone", 20*time.Second, func() bool { return gone(repo+":1") && gone(repo+":peer") && gone(before) }, func() string { return "" })
	time.Sleep(time.Second)
	for _, ref := range stay {
		id(ref)
	}
	run("1") // pulled again
}
