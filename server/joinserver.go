package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/secrets"
)

// settings are what a server that joined was told, kept on disk. The first server
// of a cluster has none.
type settings struct {
	v1.ServerMembership
	// Member is set once its etcd has voted: from then on its data is its own, and
	// nothing of it is ever removed.
	Member bool `json:"member"`
}

const (
	settingsFile = "server.json"
	secretsFile  = "secrets.key"
)

// clusterKeys are the keys that every server has. They are encrypted to the server
// that joins, and on its disk only as they are on the first one's.
type clusterKeys struct {
	Authority []byte `json:"authority"` // PEM
	Secrets   []byte `json:"secrets"`   // the file
}

// Format implements fmt.Formatter: keys that slip into a log line show nothing.
func (clusterKeys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[keys]")) }

func (m *machine) clusterKeys() ([]byte, error) {
	var k clusterKeys
	var err error
	if k.Authority, err = m.pki.Key(); err != nil {
		return nil, err
	}
	if k.Secrets, err = os.ReadFile(filepath.Join(m.DataDir, secretsFile)); err != nil {
		return nil, fmt.Errorf("read the key of the cluster's secrets: %w", err)
	}
	return json.Marshal(k)
}

func readSettings(dataDir string) (s settings, err error) {
	path := filepath.Join(dataDir, settingsFile)
	b, err := os.ReadFile(path) //nolint:gosec // a fixed name in our own directory
	if errors.Is(err, fs.ErrNotExist) {
		return s, cluster.NotFoundf("this server did not join another")
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, cluster.Invalidf("%s does not decode: %w; restore it, or `fairlead server rm` this one elsewhere and join again", path, err)
	}
	return s, nil
}

func (s settings) write(dataDir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dataDir, settingsFile), append(b, '\n'))
}

// joinServers makes this machine a server of the cluster that --join names, the
// first time; each step can be interrupted and is then taken up again.
func (m *machine) joinServers(ctx context.Context, token func() (string, error)) error {
	dir := filepath.Join(m.DataDir, "pki")
	s, err := readSettings(m.DataDir)
	joined := err == nil
	switch {
	case joined:
	case cluster.KindOf(err) != cluster.KindNotFound:
		return err
	case m.Join == "":
		return nil // the first server, or its cluster's only one
	case isJoined(m.DataDir):
		return errOfNode(m.DataDir)
	case pki.IsAuthority(dir):
		return cluster.Invalidf("%s is that of a server of another cluster: leave out --join, or run `fairlead system uninstall --purge` here first", m.DataDir)
	default:
		if s, err = m.askToServe(ctx, dir, token); err != nil {
			return err
		}
	}
	if len(s.Sealed) > 0 {
		if err := unpack(m.DataDir, dir, s); err != nil {
			return err
		}
		s.Sealed = nil
		if err := s.write(m.DataDir); err != nil {
			return err
		}
	}
	if s.External != m.external() {
		return cluster.Invalidf("this server joined a cluster whose etcd is %s", storeOf(s.External))
	}
	m.settings = &s
	if err := m.asJoined(s.Node, s.Pool, s.ServiceRange, joined); err != nil {
		return err
	}
	if m.AutoscalePeriod == defaultAutoscalePeriod {
		m.AutoscalePeriod = s.AutoscalePeriod
	}
	if m.Domain == defaultDomain {
		m.Domain = s.Domain
	}
	return nil
}

func errOfNode(dataDir string) error {
	return cluster.Invalidf("%s is that of a node: `fairlead node drain` it, then `fairlead system uninstall --purge` here, `fairlead node rm` on a server, and join as a server", dataDir)
}

// joinServersNow gets the cluster's keys and lets go of the directories again; the
// service then joins the store. A server that did so before needs nothing.
func joinServersNow(ctx context.Context, cfg Config, token func() (string, error)) error {
	if _, err := readSettings(cfg.DataDir); err == nil {
		return nil
	}
	_, release, err := openMachine(ctx, cfg, token, time.Now) //nolint:forbidigo // the command's own clock
	if err == nil {
		release()
	}
	return err
}

// askToServe asks a server for membership and keeps the answer.
func (m *machine) askToServe(ctx context.Context, dir string, token func() (string, error)) (s settings, err error) {
	text, err := token()
	if err != nil {
		return s, err
	}
	t, err := pki.ParseJoinToken(text)
	if err != nil {
		return s, err
	}
	identity, err := pki.NodeIdentity(dir)
	if err != nil {
		return s, err
	}
	nets, volumes := m.joinNets(), m.joinVolumes(ctx)
	s.ServerMembership, err = askPinned[v1.ServerMembership](ctx, m.Join, t.Fingerprint, "/v1/join-server",
		v1.ServerJoin{Token: t.Secret, Node: cluster.NodeID(m.Node), Recipient: identity.Recipient().String(), Version: m.Version, External: m.external(), Networks: nets, Volumes: volumes})
	if err != nil {
		return s, blameClock(err, m.now())
	}
	m.Log.Info("was given the cluster's keys", "cluster", s.Cluster, "servers", s.Servers)
	return s, s.write(m.DataDir)
}

// unpack writes the cluster's keys, the authority's certificate last.
func unpack(dataDir, dir string, s settings) error {
	identity, err := pki.NodeIdentity(dir)
	if err != nil {
		return err
	}
	plain, err := secrets.OpenSealed(identity, s.Sealed)
	if err != nil {
		return fmt.Errorf("the cluster's keys, as they came: %w", err)
	}
	var k clusterKeys
	if err := json.Unmarshal(plain, &k); err != nil {
		return fmt.Errorf("the cluster's keys, as they came: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dataDir, secretsFile), k.Secrets); err != nil {
		return err
	}
	return pki.SaveAuthority(dir, s.Cluster, []byte(s.CA), k.Authority)
}

// askPinned asks the servers of a list in turn, each by TLS of the authority with
// this fingerprint alone.
func askPinned[T any](ctx context.Context, list, fingerprint, path string, body any) (out T, err error) {
	for server := range strings.SplitSeq(list, ",") {
		if host, _, serr := net.SplitHostPort(server); serr != nil || host == "" {
			return out, cluster.Invalidf("--join %q: give ADDRESS:PORT of a server, such as 10.0.0.1:7420", server)
		}
		conf, perr := pki.Pinned(fingerprint)
		if perr != nil {
			return out, perr
		}
		tr := &http.Transport{TLSClientConfig: conf}
		out, err = ask[T](ctx, tr, http.MethodPost, "https://"+server+path, body)
		tr.CloseIdleConnections()
		if err == nil {
			return out, nil
		}
		err = fmt.Errorf("join at %s: %w", server, err)
		if cluster.KindOf(err) != cluster.KindTransient {
			return out, err
		}
	}
	return out, err
}
