package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	gonet "net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/agent"
	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"

	"github.com/fairlead/fairlead/integration/need"
)

func TestAgentDeliversSecretsThatNobodyElseSees(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("api", 1, cluster.TaskSpec{
		Networks: netRef(n), User: "1234:1234", ReadOnly: true,
		Env:       map[string]string{"DB_PASSWORD": "overwritten", "PLAIN": "seen"},
		SecretEnv: map[string]string{"DB_PASSWORD": "db"},
		Secrets: []cluster.FileRef{
			{Name: "db", Target: "/run/secrets/db"},
			{Name: "key", Target: "/etc/app/key.pem", UID: "1234", GID: "1234", Mode: 0o400},
		},
		Configs: []cluster.FileRef{{Name: "conf", Target: "/etc/app/conf"}},
		Health:  &cluster.Health{Test: []string{"CMD", "testapp", "check"}},
	})
	n.place(p)
	s := n.await(p.Task, "waiting", 10*time.Second, inState(cluster.StateWaiting))
	if s.Reason != "waits for config conf, secret db, secret key" {
		t.Errorf("reason %q", s.Reason)
	}
	n.seal(p.Task, cluster.Payload{
		Secrets: map[string][]byte{"db": []byte("hunter2\nsecond line"), "key": []byte("pem-0f-the-k3y")},
		Configs: map[string][]byte{"conf": []byte("a=b")},
	})
	s = n.await(p.Task, "ready", 30*time.Second, ready)
	net := p.Spec.Networks[0].Name
	for path, want := range map[string]string{
		"/env?name=DB_PASSWORD": "hunter2\nsecond line", "/env?name=PLAIN": "seen", "/file?path=/run/secrets/db": "hunter2\nsecond line",
		"/file?path=/etc/app/key.pem": "pem-0f-the-k3y", "/file?path=/etc/app/conf": "a=b",
	} {
		if got, err := n.get(s, net, path); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, args := range [][]string{{"inspect", s.Container}, {"inspect", testImage}} {
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("hunter2")) || bytes.Contains(out, []byte("pem-0f-the-k3y")) {
			t.Errorf("docker %v shows a secret", args)
		}
	}
	var out bytes.Buffer
	exit, err := n.agent.Exec(t.Context(), p.Task, cluster.ExecOptions{Command: []string{"testapp", "env", "DB_PASSWORD"}}, agent.ExecStreams{Out: &out, Err: &out})
	if err != nil || exit != 0 || !strings.Contains(out.String(), "hunter2") {
		t.Errorf("exec: %q, %d, %v", out.String(), exit, err)
	}
	if fs, _ := exec.CommandContext(t.Context(), "stat", "-f", "-c", "%T", filepath.Join(n.run, "tasks")).Output(); strings.TrimSpace(string(fs)) != "tmpfs" {
		t.Errorf("secrets are on %s", fs)
	}
	p.Desire = cluster.DesireStop
	n.place(p)
	n.await(p.Task, "stopped", 20*time.Second, inState(cluster.StateStopped))
	if left, _ := os.ReadDir(filepath.Join(n.run, "tasks")); len(left) > 0 {
		t.Errorf("left in memory: %v", left)
	}
}

func TestAgentHonoursTheSpec(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	bind := filepath.Join(t.TempDir(), "made", "when", "missing")
	vol := n.clusterI + "_data"
	if out, err := exec.CommandContext(t.Context(), "docker", "volume", "create", vol).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", vol).Run() })
	p := n.placement("web", 2, cluster.TaskSpec{
		Networks: []cluster.NetworkRef{
			{Name: cluster.NetworkName(n.clusterI + "_front")}, {Name: cluster.NetworkName(n.clusterI + "_back"), Internal: true},
		},
		Env:    map[string]string{"WHERE": "{{.Node.ID}}/{{.Task.Slot}}", "OWN": "{{range .}}x{{end}}"},
		Labels: map[string]string{"a": "b", "com.docker.compose.project": "never"}, WorkingDir: "/tmp", StopSignal: "SIGUSR1",
		Mounts: []cluster.Mount{
			{Type: cluster.MountVolume, Source: vol, Target: "/data"},
			{Type: cluster.MountVolume, Source: n.clusterI + "_new", Target: "/new"},
			{Type: cluster.MountBind, Source: bind, Target: "/bind", ReadOnly: true},
			{Type: cluster.MountTmpfs, Target: "/scratch", TmpfsSize: 1 << 20, TmpfsMode: 0o1777},
		},
		Resources: cluster.Resources{ReserveCPU: 250, LimitCPU: 500, LimitMemory: 64 << 20, ReserveMemory: 32 << 20, LimitPids: 50},
		CapDrop:   []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"}, SecurityOpt: []string{"no-new-privileges:true"},
		Sysctls: map[string]string{"net.core.somaxconn": "512"}, Ulimits: []cluster.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}},
		Devices: []string{"/dev/null:/dev/nil:rw"}, ShmSize: 1 << 20, ExtraHosts: []string{"elsewhere:10.9.8.7"},
		DNS: []string{"10.9.8.8"}, DNSSearch: []string{"example.test"}, DNSOptions: []string{"ndots:1"}, GroupAdd: []string{"77"},
		NodePorts: []cluster.PublishedPort{{Target: 8080, Protocol: "tcp", Mode: "node", HostIP: "127.0.0.1"}}, TTY: true, StdinOpen: true,
	})
	n.place(p)
	s := n.await(p.Task, "ready", 30*time.Second, ready)
	if len(s.Addresses) != 2 {
		t.Errorf("addresses %v", s.Addresses)
	}
	var gateway string
	for _, x := range lastNetworks(n) {
		if x.Name == p.Spec.Networks[0].Name {
			gateway = x.Gateway.String()
		}
		if x.Internal != (x.Name == p.Spec.Networks[1].Name) || len(x.Bridge) > 15 || !x.Subnet.Contains(x.Gateway) {
			t.Errorf("network %+v", x)
		}
	}
	for format, want := range map[string]string{
		"{{.Name}}": "/" + string(p.Task), "{{.Config.Image}}": testImage, "{{.HostConfig.RestartPolicy.Name}}": "no",
		`{{index .Config.Labels "a"}}`: "b", `{{index .Config.Labels "com.docker.compose.project"}}`: "",
		`{{index .Config.Labels "com.docker.stack.namespace"}}`: string(p.App), `{{index .Config.Labels "com.docker.swarm.service.name"}}`: string(p.App) + "_web",
		"{{.Config.WorkingDir}}": "/tmp", "{{.Config.StopSignal}}": "SIGUSR1", "{{.HostConfig.NanoCpus}}": "500000000", "{{.HostConfig.CpuShares}}": "256",
		"{{.HostConfig.Memory}}": fmt.Sprint(64 << 20), "{{.HostConfig.MemoryReservation}}": fmt.Sprint(32 << 20), "{{.HostConfig.PidsLimit}}": "50",
		"{{.HostConfig.CapDrop}}": "[ALL]", "{{.HostConfig.CapAdd}}": "[CAP_NET_BIND_SERVICE]", "{{.HostConfig.SecurityOpt}}": "[no-new-privileges:true]",
		"{{.HostConfig.Sysctls}}": "map[net.core.somaxconn:512]", "{{.HostConfig.ShmSize}}": fmt.Sprint(1 << 20), "{{.HostConfig.ExtraHosts}}": "[elsewhere:10.9.8.7]",
		"{{.HostConfig.Dns}}": "[" + gateway + " 10.9.8.8]", "{{.HostConfig.DnsSearch}}": "[example.test " + n.clusterI + "]", "{{.HostConfig.DnsOptions}}": "[ndots:1]",
		"{{.HostConfig.GroupAdd}}": "[77]", "{{.HostConfig.LogConfig.Type}}": "local", "{{.Config.Tty}} {{.Config.OpenStdin}}": "true true",
		"{{range .HostConfig.Devices}}{{.PathInContainer}}{{.CgroupPermissions}}{{end}}":   "/dev/nilrw",
		"{{range .HostConfig.Ulimits}}{{.Name}}={{.Soft}}:{{.Hard}}{{end}}":                "nofile=100:200",
		`{{range .Mounts}}{{if eq .Destination "/data"}}{{.Name}}{{end}}{{end}}`:           vol,
		`{{range .Mounts}}{{if eq .Destination "/bind"}}{{.Source}} {{.RW}}{{end}}{{end}}`: bind + " false",
	} {
		out, err := exec.CommandContext(t.Context(), "docker", "inspect", "-f", format, s.Container).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", format, got, err, want)
		}
	}
	for name, want := range map[string]string{"WHERE": "n1/2", "OWN": "{{range .}}x{{end}}"} {
		if got, err := n.get(s, p.Spec.Networks[0].Name, "/env?name="+name); err != nil || got != want {
			t.Errorf("%s=%q, %v; want %q", name, got, err, want)
		}
	}
	out, err := exec.CommandContext(t.Context(), "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}}", s.Container).CombinedOutput()
	if err != nil || strings.Contains(string(out), "web ") || strings.Contains(string(out), "[web") {
		t.Errorf("aliases %s, %v", out, err)
	}
	checkVolumesStay(t, n, p, vol)
}

// checkVolumesStay: volumes outlive their tasks, adopted and made ones alike.
func checkVolumesStay(t *testing.T, n *agentNode, p cluster.NodePlacement, vol string) {
	t.Helper()
	p.Desire = cluster.DesireStop
	n.place(p)
	n.await(p.Task, "stopped", 20*time.Second, inState(cluster.StateStopped))
	n.unplace(p.Task)
	for name, label := range map[string]string{vol: "", n.clusterI + "_new": n.clusterI} {
		out, err := exec.CommandContext(t.Context(), "docker", "volume", "inspect", "-f", `{{index .Labels "`+cluster.LabelCluster+`"}}`, name).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || strings.ReplaceAll(got, "<no value>", "") != label {
			t.Errorf("volume %s: %q, %v; want %q", name, got, err, label)
		}
	}
	ext := n.placement("ext", 1, cluster.TaskSpec{NetworkMode: "none", Mounts: []cluster.Mount{
		{Type: cluster.MountVolume, Source: n.clusterI + "_absent", Target: "/x", External: true},
	}})
	n.place(ext)
	s := n.await(ext.Task, "failed", 20*time.Second, inState(cluster.StateFailed))
	if !strings.Contains(s.Reason, "does not exist and is external") {
		t.Errorf("reason %q", s.Reason)
	}
}

func lastNetworks(n *agentNode) []agent.Network {
	var last []agent.Network
	for {
		select {
		case last = <-n.nets:
		default:
			return last
		}
	}
}

func TestAgentStreams(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{Networks: netRef(n), Env: map[string]string{"LOOPBACK": "1"}})
	n.place(p)
	n.await(p.Task, "ready", 20*time.Second, ready)

	ctx, cancel := context.WithTimeout(t.Context(), need.Patience*20*time.Second)
	defer cancel()
	lines := make(chan cluster.LogLine, 10)
	done := make(chan error, 1)
	go func() {
		done <- n.agent.Logs(ctx, p.Task, cluster.LogOptions{Follow: true, Tail: -1}, func(l cluster.LogLine) error { lines <- l; return nil })
	}()
	l := <-lines
	if l.Text != "serving on 127.0.0.1:8080" || l.Stream != "stdout" || l.Task != p.Task || time.Since(l.Time).Abs() > time.Minute {
		t.Errorf("line %+v", l)
	}

	// Its port is open on its loopback address only, and reached all the same.
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (gonet.Conn, error) { return n.agent.Dial(ctx, p.Task, 8080) }, DisableKeepAlives: true}}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://task/", nil)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.HasPrefix(string(body), "hello from ") {
		t.Errorf("body %q", body)
	}

	if err := n.agent.CopyTo(ctx, p.Task, "/", tarOf(map[string][]byte{"copied": []byte("there and back")})); err != nil {
		t.Fatal(err)
	}
	r, err := n.agent.CopyFrom(ctx, p.Task, "/copied")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	tr := tar.NewReader(r)
	if _, err := tr.Next(); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(tr); string(b) != "there and back" {
		t.Errorf("copied %q", b)
	}

	var out, errw bytes.Buffer
	exit, err := n.agent.Exec(ctx, p.Task, cluster.ExecOptions{Command: []string{"testapp", "exit", "5"}}, agent.ExecStreams{Out: &out, Err: &errw})
	if err != nil || exit != 5 || out.String() != "about to exit\n" {
		t.Errorf("exec: %d, %v, %q, %q", exit, err, out.String(), errw.String())
	}

	images, err := n.agent.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.agent.ImageID(ctx, testImage)
	found := false
	for _, i := range images {
		found = found || i.ID == id
	}
	if err != nil || !found {
		t.Errorf("image %s, %v, among %d", id, err, len(images))
	}
	if _, err := n.agent.ImageID(ctx, "fairlead-no-such-image"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("absent image: %v", err)
	}
	if _, err := n.agent.Build(ctx, docker.Build{Tags: []string{"fairlead-test-broken"}, Progress: io.Discard, Context: tarOf(map[string][]byte{"Dockerfile": []byte("FROM scratch\nCOPY nothing /\n")})}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a broken build: %v", err)
	}

	p.Desire = cluster.DesireStop
	n.place(p)
	n.await(p.Task, "stopped", 20*time.Second, inState(cluster.StateStopped))
	if err := <-done; err != nil {
		t.Errorf("logs ended with %v", err)
	}
	if l := <-lines; l.Text != "got terminated" {
		t.Errorf("last line %+v", l)
	}
}

func TestAgentWaitsForConnectionsThenForTheGraceThenKills(t *testing.T) {
	n := newAgentNode(t)
	n.start()
	p := n.placement("web", 1, cluster.TaskSpec{Networks: netRef(n), StopGrace: cluster.Duration(time.Minute), Health: &cluster.Health{TCPPort: 8080}})
	deaf := n.placement("deaf", 1, cluster.TaskSpec{Networks: netRef(n), StopGrace: cluster.Duration(time.Second), Env: map[string]string{"IGNORE_TERM": "1"}})
	n.place(p, deaf)
	s := n.await(p.Task, "ready", 20*time.Second, ready)
	n.await(deaf.Task, "ready", 20*time.Second, ready)
	slow, asked := make(chan error, 1), time.Now()
	go func() {
		body, err := n.get(s, p.Spec.Networks[0].Name, "/slow?for=10s")
		if err == nil && body != "done" {
			err = fmt.Errorf("body %q", body)
		}
		slow <- err
	}()
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	p.Desire, deaf.Desire = cluster.DesireStop, cluster.DesireStop
	n.place(p, deaf)
	n.await(p.Task, "waiting for its connections", 5*time.Second, func(s cluster.Status) bool {
		return s.State == cluster.StateStopping && s.Reason == "waiting for its connections to end"
	})
	n.await(deaf.Task, "killed", 20*time.Second, inState(cluster.StateStopped))
	if took := time.Since(began); took < time.Second {
		t.Errorf("the deaf one had only %s of grace", took)
	}
	n.await(p.Task, "stopped", 20*time.Second, inState(cluster.StateStopped))
	if took := time.Since(asked); took < 10*time.Second {
		t.Errorf("stopped %s after a request that takes 10s", took)
	}
	if took := time.Since(began); took > 55*time.Second {
		t.Errorf("stopped after %s, though it had no connection long before the end of its grace", took)
	}
	if err := <-slow; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
}
