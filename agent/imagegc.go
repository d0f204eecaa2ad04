package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/docker/go-units"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/outage"
)

const (
	gcEvery     = time.Minute
	removeLimit = time.Minute // of one image: less than the time that a task waits for it
)

// imageGC removes images that nothing uses while the disk is full. Nothing waits for it but a
// task whose own image is just being removed.
type imageGC struct {
	a          *Agent
	collecting bool
	refused    map[string]time.Time // by ID
	disk, kept outage.Outage
	engine     outage.Outage
}

func (g *imageGC) run(ctx context.Context) error {
	g.refused = map[string]time.Time{}
	for ctx.Err() == nil {
		pause(ctx, cmp.Or(g.a.cfg.ImageGC.Every, gcEvery))
		if ctx.Err() == nil {
			g.look(ctx)
		}
	}
	g.save(true)
	return context.Cause(ctx)
}

func (g *imageGC) save(atOnce bool) {
	if err := g.a.images.pulled.save(g.a.cfg.Now(), atOnce); err != nil {
		g.kept.Failed(g.a.cfg.Log, "could not keep on disk which images were pulled; will retry", "error", err)
		return
	}
	g.kept.Over(g.a.cfg.Log, "which images were pulled is kept on disk again")
}

// look looks at the disk, and does what there is to do.
func (g *imageGC) look(ctx context.Context) {
	a, now := g.a, g.a.cfg.Now()
	named, pinned := a.imagesNamed()
	used := maps.Clone(named)
	maps.Copy(used, a.imagesOfContainers())
	a.images.pulled.touch(used, now)
	// What a task wants as it was released may not be what its name means in the registry.
	a.images.pulled.forget(func(p pulledImage) bool { return p.among(pinned) })
	g.save(false)
	a.mu.Lock()
	ready, dirs := a.synced && a.engineUp, a.info.ImageDirs
	a.mu.Unlock()
	if !ready || a.cfg.ImageGC.High <= 0 {
		return
	}
	use, err := g.fullest(dirs)
	if err != nil {
		g.disk.Failed(a.cfg.Log, "cannot tell how full the disk of images is", "error", err)
		return
	}
	g.disk.Over(a.cfg.Log, "can tell how full the disk of images is")
	if g.collecting = a.cfg.ImageGC.collecting(g.collecting, use); !g.collecting || !g.any(now) {
		return
	}
	err = g.collect(ctx, unusedState{Now: now, GC: a.cfg.ImageGC, Disk: use, Named: named, Refused: g.refused})
	g.save(false)
	switch {
	case err == nil:
		g.engine.Over(a.cfg.Log, "unused images can be removed again")
	case ctx.Err() == nil && !errors.Is(err, docker.ErrAway):
		g.engine.Failed(a.cfg.Log, "could not look for unused images; will retry", "error", err)
	}
}

// any reports whether it is worth asking the engine.
func (g *imageGC) any(now time.Time) bool {
	maps.DeleteFunc(g.refused, func(_ string, at time.Time) bool { return now.Sub(at) >= imageRefusedFor || at.After(now) })
	return slices.ContainsFunc(g.a.images.pulled.all(), func(p pulledImage) bool {
		_, refused := g.refused[p.ID]
		return !refused && now.Sub(p.Used) >= imageUnusedFor
	})
}

// fullest is the use of the file system that is fullest.
func (g *imageGC) fullest(dirs []string) (DiskUse, error) {
	var out DiskUse
	var errs []error
	for _, d := range dirs {
		u, err := g.a.cfg.DiskUse(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if u.Total > 0 && (out.Total == 0 || u.fuller(out)) {
			out = u
		}
	}
	if out.Total == 0 {
		return out, errors.Join(append(errs, cluster.NotFoundf("the engine names no directory of images that is here"))...)
	}
	return out, nil
}

// collect removes what toRemove says.
func (g *imageGC) collect(ctx context.Context, s unusedState) error {
	lctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var err error
	if s.Images, err = g.a.cfg.Engine.Images(lctx); err != nil {
		return err
	}
	if s.Busy, err = g.a.cfg.Engine.ImageUses(lctx); err != nil {
		return err
	}
	pulled := g.a.images.pulled
	pulled.touch(s.Busy, s.Now)
	here := map[string]bool{}
	for _, i := range s.Images {
		here[i.ID] = true
	}
	pulled.forget(func(p pulledImage) bool { return !here[p.ID] && s.Now.Sub(p.Used) >= imageUnusedFor }) // not one that came just now
	s.Pulled = pulled.all()
	for _, u := range toRemove(s) {
		if err := g.remove(ctx, u, s.Now); err != nil {
			return err
		}
	}
	return nil
}

// remove removes an image, unless somebody has come to need it.
func (g *imageGC) remove(ctx context.Context, u unusedImage, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	c, log := g.a.images, g.a.cfg.Log
	done := c.removal(u)
	defer done()
	// A task is placed here before it asks for its image, and waits while that is being
	// removed: it is either seen here, or finds no image and pulls it.
	named, _ := g.a.imagesNamed()
	maps.Copy(named, c.comes())
	names := u.names()
	if named[anyImage] || slices.ContainsFunc(slices.Collect(maps.Keys(names)), func(n string) bool { return named[n] }) {
		return nil
	}
	refs, err := g.refsNow(ctx, u)
	if err != nil || len(refs) == 0 {
		return err
	}
	u.Refs = refs
	// First it is not ours any more: what a person pulls again after a crash is theirs.
	c.pulled.forget(func(p pulledImage) bool { return p.ID == u.ID })
	g.save(false)
	if err := g.removeRefs(ctx, u); err != nil {
		c.pulled.restore(u.rows)
		if errors.Is(err, docker.ErrAway) || ctx.Err() != nil {
			return err
		}
		g.refused[u.ID] = now
		log.Info("the engine keeps an image that nothing seems to use; will try again later", "image", u.Refs[0], "error", docker.Message(err))
		return nil
	}
	log.Info("removed an image that nothing used, as the disk is full", "image", u.Refs[0], "id", u.ID,
		"size", units.BytesSize(float64(u.Size)), "last_used", u.Used.UTC().Format(time.RFC3339))
	return nil
}

// refsNow are the references to remove an image by; none where a name means another image by now.
func (g *imageGC) refsNow(ctx context.Context, u unusedImage) ([]string, error) {
	var refs []string
	for _, ref := range u.Refs {
		i, err := g.a.cfg.Engine.Image(ctx, ref)
		switch {
		case cluster.KindOf(err) == cluster.KindNotFound:
			continue
		case err != nil:
			return nil, err
		case i.ID != u.ID:
			return nil, nil
		}
		refs = append(refs, ref)
	}
	if len(refs) > 0 {
		return refs, nil
	}
	// containerd's image store forgets by which name an image came whose tag has moved on.
	i, err := g.a.cfg.Engine.Image(ctx, u.ID)
	if cluster.KindOf(err) == cluster.KindNotFound || err == nil && i.HasName() {
		return nil, nil
	}
	return []string{u.ID}, err
}

// removeRefs takes an image's names from it, and with the last one the engine removes it.
func (g *imageGC) removeRefs(ctx context.Context, u unusedImage) error {
	for _, ref := range u.Refs {
		if err := g.a.cfg.Engine.RemoveImage(ctx, ref); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
	}
	// Engines remove the digests of a repository with its last tag, but not of another one.
	for _, r := range u.rows {
		i, err := g.a.cfg.Engine.Image(ctx, u.ID)
		if err != nil || len(i.Tags) > 0 || r.Digest == "" || !slices.Contains(i.Digests, r.Digest) {
			continue
		}
		if err := g.a.cfg.Engine.RemoveImage(ctx, r.Digest); err != nil {
			return fmt.Errorf("remove %s: %w", r.Digest, err)
		}
	}
	return nil
}

// imagesNamed are what this node's placements call their images, and those of them that are
// pinned to what a release was made with.
func (a *Agent) imagesNamed() (names, pinned map[string]bool) {
	names, pinned = map[string]bool{}, map[string]bool{}
	for _, t := range a.all() {
		t.mu.Lock()
		if p := t.placement; p != nil {
			names[docker.Canonical(p.Spec.Image)] = true
			if id := p.Spec.ImageID; id != "" {
				names[id], pinned[id] = true, true
			}
		}
		t.mu.Unlock()
	}
	return names, pinned
}

// imagesOfContainers are the IDs of the images of this node's tasks.
func (a *Agent) imagesOfContainers() map[string]bool {
	out := map[string]bool{}
	for _, t := range a.all() {
		t.mu.Lock()
		if c := t.container; c != nil && c.ImageID != "" {
			out[c.ImageID] = true
		}
		t.mu.Unlock()
	}
	return out
}

// Pulled reports whether an image was got from a registry by a name.
func (a *Agent) Pulled(ref, id string) bool {
	name := docker.Canonical(ref)
	return slices.ContainsFunc(a.images.pulled.all(), func(p pulledImage) bool { return p.Ref == name && p.ID == id })
}

// Brings runs f, which gives images on the engine the names refs: they are not removed
// meanwhile, and are not this agent's to remove any more. An empty name is any.
func (a *Agent) Brings(ctx context.Context, refs []string, f func() error) error {
	return a.images.brings(ctx, refs, f)
}
