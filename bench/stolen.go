package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead/fairlead/integration/stolen"
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
		var w stolen.Walked
		if err = errors.Join(err, json.Unmarshal(out, &w)); err != nil {
			return fmt.Errorf("walk the store: %w: %s", err, out)
		}
		if len(w.Refused) > 0 {
			return fmt.Errorf("the certificate does not open what is its own: %v", w.Refused)
		}
		l.b.say("  %d keys, %d other calls; beyond its own: %v", w.Keys, w.Calls, w.Reached)
		b.set("stolen_node_keys_reachable", float64(len(w.Reached)))
		return nil
	})
}

// walk tries every key there is, and what is done to etcd itself, with the thief's
// certificate, and prints what that opened. disks are the lab's.
func walk(ctx context.Context, disks string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w, err := stolen.WalkDisks(ctx, disks, stolen.Way{URL: storeURL}, stolen.Thief{Node: thief})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(w)
}

// storeURL is where the store of a lab answers its nodes.
const storeURL = "https://10.99.0.1:7421"
