package agent

import (
	"context"
	"maps"
	"time"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// removal is an image that is being removed.
type removal struct {
	names map[string]bool
	done  chan struct{}
}

// anyImage is the name of what brings does when it is not known what is brought.
const anyImage = ""

// removal begins to remove an image, the only one at a time; the returned function ends it.
func (c *imageCache) removal(u unusedImage) (done func()) {
	r := &removal{names: u.names(), done: make(chan struct{})}
	c.mu.Lock()
	c.removing = r
	c.mu.Unlock()
	return func() {
		c.clear()
		c.mu.Lock()
		c.removing = nil
		c.mu.Unlock()
		close(r.done)
	}
}

// namesOf are what a task calls its image.
func namesOf(s *cluster.TaskSpec) []string {
	names := []string{docker.Canonical(s.Image)}
	if s.ImageID != "" {
		names = append(names, s.ImageID)
	}
	return names
}

// kept waits while an image of one of names is being removed.
func (c *imageCache) kept(ctx context.Context, names ...string) error {
	c.mu.Lock()
	r := c.removing
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	for _, n := range names {
		if n != anyImage && !r.names[n] {
			continue
		}
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			return cluster.Transientf("its image is still being removed: %w", context.Cause(ctx))
		}
	}
	return nil
}

// comes are the names that are being given to images.
func (c *imageCache) comes() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]bool{}
	for n := range maps.Keys(c.coming) {
		out[n] = true
	}
	return out
}

// brings is Agent.Brings.
func (c *imageCache) brings(ctx context.Context, refs []string, f func() error) error {
	names := make([]string, len(refs))
	c.mu.Lock()
	for i, ref := range refs {
		if ref != anyImage {
			ref = docker.Canonical(ref)
		}
		names[i] = ref
		c.coming[names[i]]++
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range names {
			if c.coming[n]--; c.coming[n] == 0 {
				delete(c.coming, n)
			}
		}
	}()
	if err := c.kept(ctx, names...); err != nil {
		return err
	}
	err := f()
	if err != nil {
		return err
	}
	for _, n := range names {
		i, err := c.cfg.Engine.Image(ctx, n)
		if n != anyImage && err == nil {
			c.pulled.forget(func(p pulledImage) bool { return p.ID == i.ID })
		}
	}
	return nil
}

// here are the IDs of the images on the engine; nil when it does not say.
func (c *imageCache) here(ctx context.Context) map[string]bool {
	list, err := c.cfg.Engine.Images(ctx)
	if err != nil {
		return nil
	}
	out := make(map[string]bool, len(list))
	for _, i := range list {
		out[i.ID] = true
	}
	return out
}

// note records what was pulled, where the engine says what it is and what was there before. One
// that a release was pinned to may not be what the registry gives the next time.
func (c *imageCache) note(ctx context.Context, s *cluster.TaskSpec, before map[string]bool, began time.Time) {
	i, err := c.cfg.Engine.Image(ctx, s.Image)
	if before == nil || s.ImageID != "" || err != nil {
		return
	}
	now := c.cfg.Now()
	c.pulled.add(pulledImage{Ref: docker.Canonical(s.Image), ID: i.ID, Digest: i.PulledBy(s.Image), Used: now}, before, began)
	if err := c.pulled.save(now, false); err != nil {
		c.cfg.Log.Warn("could not keep on disk that an image was pulled; will retry", "image", s.Image, "error", err)
	}
}
