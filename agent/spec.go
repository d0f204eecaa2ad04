package agent

import (
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/agent/taskinit"
	"github.com/fairlead/fairlead/cluster"
)

// containerOf is the container that a placement asks for.
func (a *Agent) containerOf(p *cluster.NodePlacement, img image, nets []docker.Network, files []docker.File) (docker.Create, error) {
	s := &p.Spec
	c := docker.Create{
		Name: string(p.Task), Image: img.ref, Labels: a.labels(p, s.Labels, true), Entrypoint: s.Entrypoint, Command: s.Command,
		Files: files, Spec: s,
	}
	a.mu.Lock()
	data := a.templateData(p)
	logDriver := a.info.LogDriver
	a.mu.Unlock()
	var err error
	if c.Hostname, err = expand("hostname", s.Hostname, data); err != nil {
		return c, err
	}
	for _, kv := range s.SortedEnv() {
		v, err := expand("environment", kv, data)
		if err != nil {
			return c, err
		}
		c.Env = append(c.Env, v)
	}
	for _, m := range s.Mounts {
		if m.Source, err = expand("volume", m.Source, data); err != nil {
			return c, err
		}
		c.Mounts = append(c.Mounts, m)
	}
	if logDriver == "" || logDriver == "json-file" {
		// The engine's own default never throws a line away.
		c.LogDriver, c.LogOpts = "local", map[string]string{"max-size": "10m", "max-file": "3"}
	}
	for i, n := range nets {
		at := docker.Attachment{ID: n.ID}
		if a.nets.ours(n) {
			at.Address = a.nets.addresses.give(p.Task, s.Networks[i].Name, n)
		}
		c.Networks = append(c.Networks, at)
		if n.Gateway.IsValid() && len(c.DNS) == 0 {
			c.DNS = append(c.DNS, n.Gateway.String())
		}
	}
	c.DNS, c.DNSSearch = append(c.DNS, s.DNS...), s.DNSSearch
	if len(nets) > 0 {
		c.DNSSearch = searchDomains(s, p.App, nodeDomains)
	}
	if len(s.SecretEnv) > 0 {
		throughInit(&c, img.info)
	}
	return c, nil
}

// throughInit has the container's program, and its health check, started by the
// init, which adds the secrets to the environment.
func throughInit(c *docker.Create, img docker.ImageInfo) {
	argv, cmd := c.Entrypoint, c.Command
	if len(argv) == 0 && len(cmd) == 0 { // as the engine does
		cmd = img.Command
	}
	if argv == nil {
		argv = img.Entrypoint
	}
	c.Command = slices.Concat(argv, cmd)
	c.Entrypoint = []string{taskinit.Program, taskinit.Command}
	test := img.HealthTest
	if h := c.Spec.Health; h != nil && len(h.Test) > 0 {
		test = h.Test
	}
	if cmd := healthCommand(test); cmd != nil {
		c.HealthTest = slices.Concat([]string{"CMD", taskinit.Program, taskinit.Command}, cmd)
	}
}

// labels are what every object of a task carries.
func (a *Agent) labels(p *cluster.NodePlacement, own map[string]string, container bool) map[string]string {
	l := map[string]string{}
	for k, v := range own {
		// Compose takes containers with its project label for its own, and removes them as orphans.
		if !strings.HasPrefix(k, "com.docker.compose.") {
			l[k] = v
		}
	}
	maps.Copy(l, map[string]string{
		cluster.LabelCluster: a.cfg.ClusterID, cluster.LabelApp: string(p.App), cluster.LabelStack: string(p.App),
	})
	if container {
		maps.Copy(l, map[string]string{
			cluster.LabelNode: string(a.cfg.Node), cluster.LabelTask: string(p.Task), cluster.LabelService: string(p.Name),
			cluster.LabelSlot: strconv.Itoa(p.Slot), cluster.LabelVersion: p.Version,
			cluster.LabelSwarmService: string(p.App) + "_" + string(p.Name), cluster.LabelSwarmTask: string(p.Task),
		})
	}
	return l
}

// templates' data, in Swarm's words.
type templateData struct {
	Service struct {
		ID, Name string
		Labels   map[string]string
	}
	Node struct {
		ID, Hostname string
		Platform     struct{ OS, Architecture string }
	}
	Task struct {
		ID, Name string
		Slot     int
	}
}

// templateData needs a.mu.
func (a *Agent) templateData(p *cluster.NodePlacement) templateData {
	var d templateData
	d.Service.ID, d.Service.Name, d.Service.Labels = p.String(), string(p.App)+"_"+string(p.Name), p.Spec.Labels
	d.Node.ID, d.Node.Hostname = string(a.cfg.Node), a.info.Hostname
	d.Node.Platform.OS, d.Node.Platform.Architecture = a.info.OS, a.info.Arch
	if d.Node.Platform.OS == "" {
		d.Node.Platform.OS, d.Node.Platform.Architecture = runtime.GOOS, runtime.GOARCH
	}
	d.Task.ID, d.Task.Name, d.Task.Slot = string(p.Task), string(p.Task), p.Slot
	return d
}

var templated = regexp.MustCompile(`{{-?\s*\.(Service|Node|Task)\.`)

func expand(what, s string, data templateData) (string, error) {
	if !templated.MatchString(s) { // programs have templates of their own
		return s, nil
	}
	t, err := template.New(what).Option("missingkey=error").Parse(s)
	if err != nil {
		return "", cluster.Invalidf("%s %q: %w", what, s, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", cluster.Invalidf("%s %q: %w", what, s, err)
	}
	return b.String(), nil
}
