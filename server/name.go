package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

// nameFile holds the name that a first server began with. One that joined has its name in
// its settings, a node in its membership.
func (c *Config) nameFile() string { return filepath.Join(c.DataDir, "node") }

// keptName is the name that a first server began with, "" before there is one. Another one
// that is given is refused: the containers and volumes are those of the node that it is.
func (c *Config) keptName() (string, error) {
	b, err := os.ReadFile(c.nameFile())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read this node's name: %w", err)
	}
	was := strings.TrimSpace(string(b))
	if err := cluster.ValidName("node", was); err != nil {
		return "", cluster.Invalidf("%s does not hold this node's name: %w; write into it the name that this machine's containers have as their label %s", c.nameFile(), err, cluster.LabelNode)
	}
	if was != c.Node && !c.hostName {
		return "", cluster.Invalidf("--node %s: the server of %s is node %s, and the containers and volumes here are that node's. Leave out --node; to begin anew as another node, which removes them, first run `fairlead system uninstall --purge` here", c.Node, c.DataDir, was)
	}
	return was, nil
}

// keepName has a first server be the node that it was at its first start, whatever the host
// is named now.
func (c *Config) keepName() error {
	was, err := c.keptName()
	if err != nil {
		return err
	}
	noted := was != ""
	if !noted && c.hostName {
		// A data directory of before has certificates with the name of its last start.
		was = string(pki.NodeOf(filepath.Join(c.DataDir, "pki")))
	}
	if was != "" && was != c.Node {
		c.Log.Warn("the host is not named as this node any more, which stays what it was", "node", was, "host", c.Node)
		c.Node = was
	}
	if noted {
		return nil
	}
	return atomicfile.Write(c.nameFile(), []byte(c.Node+"\n"))
}

// otherwise says what a server or node that joined is told and is not: its name is that of its
// containers and volumes, the ranges are the cluster's.
func (c *Config) otherwise(node cluster.NodeID, pool, services string) error {
	if c.Node != "" && c.Node != string(node) && !c.hostName {
		return cluster.Invalidf("--node %s: this machine joined as node %s, and the containers and volumes here are that node's. Leave out --node; to join as another node, first run `fairlead system uninstall --purge` here", c.Node, node)
	}
	for _, f := range []struct{ flag, given, fallback, is string }{
		{"--pool", c.Pool, defaultPool, pool},
		{"--service-range", c.ServiceRange, defaultServiceRange, services},
	} {
		if f.given != "" && f.given != f.is && f.given != f.fallback {
			return cluster.Invalidf("%s %s: the cluster that this server joined had %s; leave out %s, which is the first server's to say", f.flag, f.given, f.is, f.flag)
		}
	}
	return nil
}

// asJoined takes over what a server or node that joined is. What it is told otherwise is refused,
// but where it runs so already, with a unit from when that was ignored: there it is said.
func (c *Config) asJoined(node cluster.NodeID, pool, services string, runs bool) error {
	if err := c.otherwise(node, pool, services); err != nil {
		if !runs {
			return err
		}
		c.Log.Error("this machine is told what it is not, which is ignored", "error", err)
	}
	c.Node, c.Pool, c.ServiceRange = string(node), pool, services
	return nil
}
