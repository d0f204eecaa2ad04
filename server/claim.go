package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded"
)

// claim is the cluster's own mark in its store: which cluster it is, and a text
// that only the key of its secrets opens.
type claim struct {
	ID    string `json:"id"`
	Probe []byte `json:"probe"`
}

const probeContext = "cluster/probe"

// claimStore marks an empty store as this cluster's, and refuses one that is
// another's, one that was this cluster's and is empty now, or one whose secrets this
// machine's key does not open: going on would mix two clusters, take all containers
// for forgotten ones, or lose every secret.
func (m *machine) claimStore(ctx context.Context, st store.Store) error {
	key := store.PrefixCluster + "claim"
	e, err := st.Get(ctx, key)
	if cluster.KindOf(err) == cluster.KindNotFound {
		switch {
		case m.servedFrom() != "":
			return m.emptied()
		case m.settings != nil:
			return cluster.Invalidf("this etcd holds no cluster, and this server joined cluster %s: name the etcd of the other servers with --etcd-endpoints", m.cluster)
		}
		probe, err := m.key.Seal([]byte(m.cluster), probeContext)
		if err != nil {
			return err
		}
		op, err := store.PutJSON(key, claim{ID: m.cluster, Probe: probe})
		if err != nil {
			return err
		}
		_, err = st.Commit(ctx, store.Txn{If: []store.Cond{{Key: key}}, Then: []store.Op{op}})
		return err
	}
	if err != nil {
		return err
	}
	var c claim
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return cluster.Invalidf("the store's mark %s does not decode: %w", key, err)
	}
	if c.ID != m.cluster {
		return cluster.Invalidf("this etcd holds cluster %s, and %s belongs to cluster %s: name another etcd with --etcd-endpoints, or bring that cluster's data directory", c.ID, m.DataDir, m.cluster)
	}
	if _, err := m.key.Open(c.Probe, probeContext); err != nil {
		return cluster.Invalidf("%s/secrets.key is not the key of this cluster's secrets: restore the one that was there", m.DataDir)
	}
	return nil
}

// emptied refuses an etcd without the cluster that this data directory has served.
func (m *machine) emptied() error {
	if from := m.servedFrom(); from != m.storeText() {
		return m.elsewhere(from)
	}
	ways := "Bring the etcd's data back"
	if !m.external() {
		ways += fmt.Sprintf("; where there are other servers, `fairlead server rm %s` there, `fairlead system uninstall --purge` here, and join again", m.Node)
	}
	if m.settings == nil {
		ways += "; or " + m.anew()
	}
	return cluster.Invalidf("this etcd holds no cluster any more, and this server served cluster %s from it: with an empty one all its containers would be removed. %s", m.cluster, ways)
}

// elsewhere refuses an etcd that is another than the cluster is in.
func (m *machine) elsewhere(from string) error {
	flags := "Give --etcd-endpoints " + from + " again"
	if from == ownEtcd {
		flags = "Leave out --etcd-endpoints"
	}
	ways := flags
	if m.external() && from != ownEtcd {
		ways += ", or bring the cluster's data to the new one first"
	}
	if m.settings == nil {
		ways += "; to begin anew there without what the cluster has, and have its containers removed, " + m.anew()
	}
	return cluster.Invalidf("%s holds no cluster, and this server served cluster %s from %s: with an empty one all its containers would be removed. %s", m.storeText(), m.cluster, from, ways)
}

// anew says how an empty etcd is taken all the same.
func (m *machine) anew() string {
	files := m.servedFile()
	if m.external() && embedded.HasData(m.etcdDir()) {
		files += " and " + m.etcdDir()
	}
	return "remove " + files + " to begin anew"
}

// storeText names the configured store for people.
func (m *machine) storeText() string {
	if m.external() {
		return strings.Join(m.EtcdEndpoints, ",")
	}
	return ownEtcd
}
