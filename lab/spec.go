package lab

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/fairlead/fairlead/cluster"
)

// DefaultRoot is where labs keep what their machines have on disk.
const DefaultRoot = "/var/lib/fairlead-lab"

// DefaultName is the name of a lab that is given none.
const DefaultName = "lab"

// Engines by name; a directory with dockerd and runc is one too.
const (
	EngineDistro  = "distro"  // the dockerd of this machine's packages
	EngineCurrent = "current" // the one of `make engine`
)

// Spec is the lab that is wanted.
type Spec struct {
	Name     string `json:"name"`
	Nodes    int    `json:"nodes"`
	Servers  int    `json:"servers"`
	Gateways int    `json:"gateways"`
	Engine   string `json:"engine"` // distro, current, or a directory
	Domain   string `json:"domain"` // default host of routes is <service>.<app>.<domain>
	// LogLevel is of Fairlead on each machine.
	LogLevel string `json:"log_level"`
}

// MostNodes is how many nodes a lab may have: their addresses are on one network.
const MostNodes = 100

// labName is short: it is part of the path of sockets, which have 107 bytes.
var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// ValidName refuses a name that a lab cannot have.
func ValidName(name string) error {
	if !labName.MatchString(name) {
		return cluster.Invalidf("lab name %q: use 1 to 20 lower-case letters, digits and -", name)
	}
	return nil
}

// Validate refuses a lab that cannot be.
func (s Spec) Validate() error {
	if err := ValidName(s.Name); err != nil {
		return err
	}
	switch {
	case s.Nodes < 1 || s.Nodes > MostNodes:
		return cluster.Invalidf("--nodes %d: a lab has 1 to %d nodes", s.Nodes, MostNodes)
	case s.Servers < 1 || s.Servers > s.Nodes:
		return cluster.Invalidf("--servers %d: of %d nodes 1 to %d are servers", s.Servers, s.Nodes, s.Nodes)
	case s.Gateways < 0 || s.Gateways > s.Nodes:
		return cluster.Invalidf("--gateways %d: of %d nodes 0 to %d have one", s.Gateways, s.Nodes, s.Nodes)
	}
	return nil
}

// Machine is one node of a lab.
type Machine struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Server  bool       `json:"server"`
	Gateway bool       `json:"gateway"`
}

// first is the machine that makes the cluster; the others join it.
const first = "n1"

// joins reports whether the machine needs a token the first time.
func (m Machine) joins() bool { return m.Name != first }

// network is the same in every lab: each has a switch of its own.
var network = netip.MustParsePrefix("10.99.0.0/24") //nolint:gochecknoglobals // a constant that Go has no literal for

// switchAddress is the rack's own on the switch, the machines' default route.
func switchAddress() netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, 254}) }

// Machines lists the lab's nodes: the servers first, and the gateways on the first of all.
func (s Spec) Machines() []Machine {
	var out []Machine
	addr := network.Addr()
	for i := range s.Nodes {
		addr = addr.Next()
		out = append(out, Machine{Name: fmt.Sprintf("n%d", i+1), Address: addr, Server: i < s.Servers, Gateway: i < s.Gateways})
	}
	return out
}

// Machine finds a node by its name.
func (s Spec) Machine(name string) (Machine, error) {
	var names []string
	for _, m := range s.Machines() {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Machine{}, cluster.NotFoundf("lab %s has no node %q; it has %s", s.Name, name, strings.Join(names, ", "))
}

// Dir is a lab's directory.
type Dir string

// DirOf is the directory of a lab below root.
func DirOf(root, name string) Dir { return Dir(filepath.Join(root, name)) }

// command is a command about this lab and no other, as it is typed.
func (d Dir) command(what string) string {
	root, name := filepath.Split(string(d))
	out := "fairlead lab"
	if name != DefaultName {
		out += " --name " + name
	}
	if root = filepath.Clean(root); root != DefaultRoot {
		if strings.IndexFunc(root, special) >= 0 {
			root = "'" + strings.ReplaceAll(root, "'", `'\''`) + "'"
		}
		out += " --dir " + root
	}
	return out + " " + what
}

// special reports whether a shell may read a character as something else than itself.
func special(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+,:@%=", r)
}

func (d Dir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// group names the control groups of the lab's machines. Labs of the same name in other
// directories have others.
func (d Dir) group() string {
	sum := sha256.Sum256([]byte(d))
	return fmt.Sprintf("%s-%x", filepath.Base(string(d)), sum[:4])
}

// markName is the file that a lab's directory has from its first instant to its last.
const markName = ".fairlead-lab"

func (d Dir) mark() string    { return d.path(markName) }
func (d Dir) state() string   { return d.path("lab.json") }
func (d Dir) control() string { return d.path("run", "rack.sock") }
func (d Dir) program() string { return d.path("bin", "fairlead") }
func (d Dir) disks() string   { return d.path("nodes") }

// snapshot is where a named copy of all disks is.
func (d Dir) snapshot(name string) string { return d.path("snapshots", name) }

// disk is what a machine keeps while its power is off.
func (d Dir) disk(node string, elem ...string) string {
	return filepath.Join(append([]string{d.disks(), node}, elem...)...)
}

// DockerSocket is where a node's engine answers, on this machine and on the node.
func (d Dir) DockerSocket(node string) string { return d.path("run", node, "docker.sock") }

// APISocket is where the API of a server of the lab answers on this machine.
func (d Dir) APISocket(node string) string { return d.path("run", node, "fairlead.sock") }

// Streams are the standard streams of a program.
type Streams struct{ In, Out, Err *os.File }
