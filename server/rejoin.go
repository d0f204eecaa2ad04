package server

import (
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// knows reports whether a list of --join has a server that the membership has too.
func knows(m v1.Membership, join string) bool {
	return slices.ContainsFunc(strings.Split(join, ","), func(s string) bool { return slices.Contains(m.Servers, s) })
}

// joinsHere is for a node that has joined and is given --join: the servers that it
// names may have been removed or moved since, which is no reason not to start. A person
// who joins is told.
func (j *joined) joinsHere() error {
	if j.Join == "" || knows(j.membership, j.Join) {
		return nil
	}
	if !j.waits {
		return cluster.Invalidf("this machine is node %s of the cluster of %s already: leave out --join %s",
			j.membership.Node, strings.Join(j.membership.Servers, ", "), j.Join)
	}
	j.Log.Warn("no server that this node knows is where --join says; it uses those that it knows", "join", j.Join, "servers", j.membership.Servers)
	return nil
}
