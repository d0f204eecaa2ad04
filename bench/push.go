package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/fairlead/fairlead/api/v1"
)

const (
	pushBulk   = 64 << 20 // bytes of the layer that stays
	pushChange = 1 << 20  // of the layer that changes
)

// measurePush gives an image to the three nodes of a lab, changes one layer, and gives
// it to them again.
func measurePush(ctx context.Context, b *bench) error {
	if err := sweepLabs(ctx, b); err != nil {
		return err
	}
	return b.lab(ctx, func(l *bed) error {
		var times, sent []float64
		for i := range b.pairs {
			first, second, err := l.pushTwice(ctx, i)
			if err != nil {
				return err
			}
			times = append(times, second.took.Seconds()/first.took.Seconds())
			sent = append(sent, float64(second.bytes)/float64(first.bytes))
			b.say("  pair %d: %.2f s and %d bytes, then %.2f s and %d bytes", i+1, first.took.Seconds(), first.bytes, second.took.Seconds(), second.bytes)
		}
		b.set("image_push_second_over_first", median(times))
		b.set("image_push_second_bytes_over_first", median(sent))
		return nil
	})
}

// pushTwice pushes an image that no node has, and again with its upper layer changed.
func (l *bed) pushTwice(ctx context.Context, i int) (first, second sending, err error) {
	ref := imageOf(l.b.dir) + fmt.Sprintf("-push%d", i)
	dir := filepath.Join(l.dir, "push")
	dockerfile := []byte("FROM scratch\nCOPY bulk /bulk\nCOPY change /change\nCMD [\"/none\"]\n")
	if err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, "Dockerfile"), dockerfile, 0o600), noise(filepath.Join(dir, "bulk"), pushBulk)); err != nil {
		return first, second, err
	}
	defer func() {
		_ = exec.CommandContext(context.WithoutCancel(ctx), "docker", "rmi", "-f", ref).Run()
	}()
	for _, s := range []*sending{&first, &second} {
		if err := noise(filepath.Join(dir, "change"), pushChange); err != nil {
			return first, second, err
		}
		if out, err := exec.CommandContext(ctx, "docker", "build", "-q", "-t", ref, dir).CombinedOutput(); err != nil {
			return first, second, fmt.Errorf("docker build: %w\n%s", err, out)
		}
		if *s, err = l.push(ctx, ref); err != nil {
			return first, second, err
		}
	}
	return first, second, nil
}

// noise writes a file that nothing packs.
func noise(path string, size int) error {
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	return os.WriteFile(path, data, 0o600)
}

// sending is what a push took: time, and the bytes that left the user's machine and
// the first node.
type sending struct {
	took  time.Duration
	bytes int64
}

func (l *bed) push(ctx context.Context, ref string) (sending, error) {
	began := time.Now()
	out, err := l.fairlead(ctx, "image", "push", ref, "-o", "json")
	s := sending{took: time.Since(began)}
	if err != nil {
		return s, err
	}
	var res struct{ Nodes []v1.PushedNode }
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&res); err != nil || len(res.Nodes) != 3 {
		return s, fmt.Errorf("image push: %w\n%s", err, out)
	}
	for _, n := range res.Nodes {
		s.bytes += n.Bytes
	}
	return s, nil
}
