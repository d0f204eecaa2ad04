package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

// gatewayFiles is what Traefik gets by files and not by its tree, as the store
// has it: the keys of certificates and the users stay sealed. It is kept on
// disk, so that a gateway that boots without a store serves TLS and asks for
// passwords as before.
type gatewayFiles struct {
	Version int                `json:"version"`
	Certs   []v1.CertRecord    `json:"certs,omitempty"`
	Users   []cluster.UserList `json:"users,omitempty"`
	// Files are both on a node that is no server, each encrypted to that node.
	Files []cluster.GatewayFile `json:"files,omitempty"`
}

const (
	gatewayFilesVersion = 1
	// filesGather is short: a route is held back for the users that it asks for.
	filesGather = 25 * time.Millisecond
)

func (n *nodeParts) gatewayFilesPath() string {
	return filepath.Join(n.DataDir, "gateway", "sealed.json")
}

// bootFiles writes Traefik's files from the disk, where a boot has taken them.
func (n *nodeParts) bootFiles(cfg gateway.Config) {
	if gateway.HasFiles(cfg) {
		return // what an earlier process wrote is at least as new
	}
	b, err := os.ReadFile(n.gatewayFilesPath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var f gatewayFiles
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Version != gatewayFilesVersion {
		err = fmt.Errorf("version %d is not %d", f.Version, gatewayFilesVersion)
	}
	if err != nil {
		n.Log.Error("could not read the last certificates and users; waiting for the store", "file", n.gatewayFilesPath(), "error", err)
		return
	}
	n.writeFiles(cfg, f)
}

// files writes Traefik's files whenever the certificates or user lists change.
func (n *nodeParts) files(cfg gateway.Config, mirror *store.Mirror) error {
	select {
	case <-mirror.Ready():
	case <-n.ctx.Done():
		return context.Cause(n.ctx)
	}
	var written uint64
	now := make(chan struct{}) // for a second try that no change brings
	close(now)
	for first := true; ; first = false {
		changed, gather := mirror.Changed(), filesGather
		if f, state := readFiles(mirror, cfg.Node, cfg.Now()); first || state != written {
			if n.writeFiles(cfg, f) {
				written = state
				n.keepFiles(f)
			} else {
				changed, gather = now, time.Second
			}
		}
		if err := waitFor(n.ctx, changed, gather); err != nil {
			return err
		}
	}
}

// readFiles reads what the files are made of; the second result changes whenever
// something is added, replaced or removed, and each hour: a certificate may have begun.
func readFiles(mirror *store.Mirror, node cluster.NodeID, now time.Time) (f gatewayFiles, state uint64) {
	f.Version = gatewayFilesVersion
	h := fnv.New64a()
	_, _ = fmt.Fprintln(h, now.Truncate(time.Hour).Unix())
	mirror.Read(func(v store.View) {
		for _, c := range store.All[v1.CertRecord](v, store.CertKey(""), nil) {
			f.Certs = append(f.Certs, c.V)
			_, _ = fmt.Fprintln(h, c.Key, c.Rev)
		}
		f.Users = store.UserLists(v)
		for _, x := range store.GatewayFiles(v) {
			if x.V.Node == node {
				f.Files = append(f.Files, x.V)
				_, _ = fmt.Fprintln(h, x.Key, x.Rev)
			}
		}
	})
	for _, u := range f.Users { // a list never changes under its ID
		_, _ = fmt.Fprintln(h, u.App, u.ID)
	}
	return f, h.Sum64()
}

// writeFiles opens what is sealed and writes it to tmpfs.
func (n *nodeParts) writeFiles(cfg gateway.Config, f gatewayFiles) bool {
	var certs []gateway.Cert
	for _, c := range f.Certs {
		key, err := n.keys.Open(c.Sealed, v1.CertContext(c.Name))
		if err != nil {
			n.Log.Error("could not open a certificate's key", "certificate", c.Name, "error", err)
			continue
		}
		certs = append(certs, gateway.Cert{Name: c.Name, CertPEM: []byte(c.Chain), KeyPEM: cluster.NewSecret(key)})
	}
	var users []gateway.UserList
	for _, u := range f.Users {
		a, err := secrets.OpenUsers(n.keys, u)
		if err != nil {
			n.Log.Error("could not open a user list; routes that ask for it answer 404", "app", u.App, "list", u.ID, "error", err)
			continue
		}
		users = append(users, gateway.UserList{ID: u.ID, Auth: a})
	}
	for _, x := range f.Files {
		s, err := n.openFile(x)
		if err != nil {
			n.Log.Error("could not open what was sealed to this gateway", "kind", x.Kind, "app", x.App, "name", x.Name, "error", err)
			continue
		}
		if s.Kind == cluster.GatewayCert {
			certs = append(certs, gateway.Cert{Name: s.Name, CertPEM: []byte(s.Chain), KeyPEM: cluster.NewSecret(s.Key)})
		} else if s.Auth != nil {
			users = append(users, gateway.UserList{ID: s.Name, Auth: *s.Auth})
		}
	}
	if err := errors.Join(gateway.WriteCertificates(cfg, certs), gateway.WriteUserLists(cfg, users)); err != nil {
		n.Log.Error("could not give Traefik its certificates and users", "error", err)
		return false
	}
	return true
}

// openFile opens what is encrypted to this node.
func (n *nodeParts) openFile(x cluster.GatewayFile) (s cluster.GatewaySecret, err error) {
	plain, err := secrets.OpenSealed(n.identity, x.Data)
	if err == nil {
		err = json.Unmarshal(plain, &s)
	}
	if err == nil && (s.Kind != x.Kind || s.App != x.App || s.Name != x.Name) {
		err = cluster.Invalidf("it is another's")
	}
	return s, err
}

// gatewaySecret opens a certificate or a user list as the API keeps it.
func (m *machine) gatewaySecret(id secrets.SourceID, value []byte) (s cluster.GatewaySecret, err error) {
	s = cluster.GatewaySecret{Kind: id.Kind, App: id.App, Name: id.Name}
	if id.Kind == cluster.GatewayCert {
		var c v1.CertRecord
		if err := json.Unmarshal(value, &c); err != nil {
			return s, err
		}
		s.Chain = c.Chain
		s.Key, err = m.key.Open(c.Sealed, v1.CertContext(c.Name))
		return s, err
	}
	var u cluster.UserList
	if err := json.Unmarshal(value, &u); err != nil {
		return s, err
	}
	a, err := secrets.OpenUsers(m.key, u)
	s.Auth = &a
	return s, err
}

func (n *nodeParts) keepFiles(f gatewayFiles) {
	b, err := json.Marshal(f)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(n.gatewayFilesPath()), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(n.gatewayFilesPath(), b)
	}
	if err != nil {
		n.Log.Error("could not keep certificates and users, sealed, for a start without the store", "error", err)
	}
}
