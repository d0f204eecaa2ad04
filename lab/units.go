package lab

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Names of a machine's units.
const (
	UnitDocker   = "docker"
	UnitFairlead = "fairlead"
)

// Unit is a program that a machine keeps running, as an init system would.
type Unit struct {
	Name string   `json:"name"`
	Args []string `json:"args"` // the program first
	Env  []string `json:"env"`
	Log  string   `json:"log"`
	// After is a socket that must answer first.
	After string `json:"after,omitempty"`
	// Token says that it needs a join token the first time.
	Token bool `json:"token,omitempty"`
	// DataDir is where it keeps what it was told when it joined.
	DataDir string `json:"data_dir,omitempty"`
}

// runDir is Fairlead's on a machine. Its name is no other program's on this machine:
// Fairlead finds its own processes by such paths.
func runDir(lab, node string) string { return fmt.Sprintf("/run/fairlead-lab-%s-%s", lab, node) }

const dockerSocket = "/run/docker.sock" // on the machine

// Environment is what programs on a machine are started with, beside what the
// caller's is.
func Environment(d Dir, s State, node string) []string {
	path := []string{filepath.Dir(d.program())}
	if s.EngineDir != "" {
		path = append(path, s.EngineDir)
	}
	path = append(path, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	return []string{
		"PATH=" + strings.Join(path, ":"),
		"FAIRLEAD_SOCKET=" + runDir(s.Spec.Name, node) + "/fairlead.sock",
		"HOME=/root",
	}
}

// Units are what a machine runs.
func Units(d Dir, s State, m Machine) []Unit {
	env := Environment(d, s, m.Name)
	program := "dockerd"
	if s.EngineDir != "" {
		program = filepath.Join(s.EngineDir, "dockerd")
	}
	docker := Unit{
		Name: UnitDocker, Env: env, Log: d.disk(m.Name, "docker.log"),
		Args: []string{
			program, "--config-file", d.disk(m.Name, "daemon.json"), "-H", "unix://" + dockerSocket, "-H", "unix://" + d.DockerSocket(m.Name),
			"--data-root", d.disk(m.Name, "docker"), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
			"--cgroup-parent", filepath.Join("/fairlead-lab", d.group(), m.Name), "--exec-opt", "native.cgroupdriver=cgroupfs", "--shutdown-timeout", "5",
		},
	}
	node := []string{
		"--data-dir", d.disk(m.Name, "fairlead"), "--run-dir", runDir(s.Spec.Name, m.Name), "--node", m.Name,
		"--advertise", m.Address.String(), "--docker", "unix://" + dockerSocket, "--log-level", s.Spec.LogLevel,
	}
	fairlead := Unit{Name: UnitFairlead, Env: env, Log: d.disk(m.Name, "fairlead.log"), After: dockerSocket}
	fairlead.DataDir, fairlead.Token = d.disk(m.Name, "fairlead"), m.joins()
	role := "agent"
	if m.Server {
		role = "server"
		node = append(node, "--domain", s.Spec.Domain)
	}
	fairlead.Args = append([]string{d.program(), role}, node...)
	if m.joins() {
		fairlead.Args = append(fairlead.Args, "--join", s.Spec.Machines()[0].Address.String()+":7420")
	}
	switch {
	case m.Server && m.Gateway:
		fairlead.Args = append(fairlead.Args, "--traefik", s.Traefik)
	case m.Server:
		fairlead.Args = append(fairlead.Args, "--no-gateway")
	case m.Gateway:
		fairlead.Args = append(fairlead.Args, "--gateway", "--traefik", s.Traefik)
	}
	return []Unit{docker, fairlead}
}

// Ports are the ports of this machine that a lab has.
func Ports(s Spec) []Port {
	var out []Port
	for _, m := range s.Machines() {
		if m.Gateway {
			out = append(out, Port{Node: m.Name, To: 80}, Port{Node: m.Name, To: 443})
		}
	}
	return out
}
