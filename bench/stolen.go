package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// thief is whose certificate is stolen; it runs containers and is no gateway.
const thief = "n2"

// measureStolen walks every key of a cluster in use with the certificate of a node.
func measureStolen(ctx context.Context, b *bench) error {
	if err := sweepLabs(ctx, b); err != nil {
		return err
	}
	image, err := b.app(ctx)
	if err != nil {
		return err
	}
	return b.lab(ctx, func(l *bed) error {
		if _, err := l.deploy(ctx, image, "stolen", 6); err != nil {
			return err
		}
		secret := exec.CommandContext(ctx, l.bin, "secret", "set", "stolen/password")
		secret.Env, secret.Stdin = append(os.Environ(), "FAIRLEAD_SOCKET="+l.api), strings.NewReader("s3cret")
		if out, err := secret.CombinedOutput(); err != nil {
			return fmt.Errorf("set a secret: %w: %s", err, out)
		}
		pid, err := l.agent(thief)
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		// From the thief's own network: the store does not answer elsewhere.
		cmd := exec.CommandContext(ctx, "nsenter", "--net", "--target", fmt.Sprint(pid), self, "-walk", filepath.Join(l.root, labName, "nodes"))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var w walked
		if err = errors.Join(err, json.Unmarshal(out, &w)); err != nil {
			return fmt.Errorf("walk the store: %w: %s", err, out)
		}
		l.b.say("  %d keys, %d other calls; beyond its own: %v", w.Keys, w.Calls, w.Reached)
		b.set("stolen_node_keys_reachable", float64(len(w.Reached)))
		return nil
	})
}

// own is what a node may reach: read what is meant for it and where others are,
// write what it says of itself.
func own(key string, write bool) bool {
	says := []string{store.NodeInfoKey(thief), store.AliveKey(thief), store.AgentAckKey(thief)}
	if slices.Contains(says, key) || strings.HasPrefix(key, store.StatusPrefix(thief)) {
		return true
	}
	reads := []string{store.PlacementPrefix(thief), store.SealedPrefix(thief), store.PrefixEndpoints, store.PrefixNodeNets, store.PrefixServers}
	return !write && slices.ContainsFunc(reads, func(p string) bool { return strings.HasPrefix(key, p) })
}

// walk tries every key there is, and what is done to etcd itself, with the thief's
// certificate, and prints what that opened. disks are the lab's.
func walk(ctx context.Context, disks string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	at := filepath.Join(disks, "n1", "fairlead", "pki")
	conf, err := pki.ClientTLS(filepath.Join(at, "ca.crt"), filepath.Join(at, "root.pem"), filepath.Join(at, "root.pem"))
	if err != nil {
		return err
	}
	stolen, err := pki.OpenMember(filepath.Join(disks, thief, "fairlead", "pki"), time.Now)
	if err != nil {
		return err
	}
	connect := func(conf *tls.Config) (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: []string{storeURL}, TLS: conf, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	}
	root, err := connect(conf)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	all, err := root.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	as, err := connect(stolen.TLS())
	if err != nil {
		return err
	}
	defer as.Close() //nolint:errcheck // likewise
	var w walked
	if err := errors.Join(w.keys(ctx, as, all.Kvs), w.calls(ctx, as)); err != nil {
		return err
	}
	if w.own == 0 {
		return errors.New("the certificate opens nothing, not even what is its own: this shows nothing")
	}
	return json.NewEncoder(out).Encode(w)
}

// storeURL is where the store of a lab answers its nodes.
const storeURL = "https://10.99.0.1:7421"

// walked is what a stolen certificate was tried on, and what it opened that is not
// the node's own.
type walked struct {
	Keys, Calls int
	Reached     []string
	own         int
}

func (w *walked) try(what string, allowed bool, call func() error) error {
	err := call()
	switch {
	case err == nil && allowed:
		w.own++
	case err == nil:
		w.Reached = append(w.Reached, what)
	case !errors.Is(err, rpctypes.ErrPermissionDenied) && !strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("%s: %w", what, err) // neither reached nor refused
	}
	return nil
}

func (w *walked) keys(ctx context.Context, as *clientv3.Client, all []*mvccpb.KeyValue) error {
	for _, kv := range all {
		w.Keys++
		key := string(kv.Key)
		never := clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision+1_000_000_000) // what may be written stays as it is
		change := func(op clientv3.Op) func() error {
			return func() error { _, err := as.Txn(ctx).If(never).Then(op).Commit(); return err }
		}
		err := errors.Join(
			w.try("read "+key, own(key, false), func() error { _, err := as.Get(ctx, key); return err }),
			w.try("write "+key, own(key, true), change(clientv3.OpPut(key, "stolen"))),
			w.try("delete "+key, own(key, true), change(clientv3.OpDelete(key))),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walked) calls(ctx context.Context, as *clientv3.Client) error {
	for what, call := range map[string]func() error{
		"read everything": func() error { _, err := as.Get(ctx, "\x00", clientv3.WithFromKey()); return err },
		"list users":      func() error { _, err := as.UserList(ctx); return err },
		"list roles":      func() error { _, err := as.RoleList(ctx); return err },
		"add a user":      func() error { _, err := as.UserAdd(ctx, "thief", "x"); return err },
		"grant a role":    func() error { _, err := as.UserGrantRole(ctx, "thief", "root"); return err },
		"open the store":  func() error { _, err := as.AuthDisable(ctx); return err },
		"add a member":    func() error { _, err := as.MemberAdd(ctx, []string{"https://10.99.0.9:7422"}); return err },
		"defragment":      func() error { _, err := as.Defragment(ctx, storeURL); return err },
		"take a snapshot": func() error {
			r, err := as.Snapshot(ctx)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		},
	} {
		w.Calls++
		if err := w.try(what, false, call); err != nil {
			return err
		}
	}
	return nil
}
