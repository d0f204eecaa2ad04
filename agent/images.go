package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead/fairlead/agent/docker"
	"github.com/fairlead/fairlead/cluster"
)

// imageCache remembers what references mean, until the engine says that images
// changed, and pulls each image once however many tasks want it.
type imageCache struct {
	cfg    *Config
	pulled *pulledImages

	mu    sync.Mutex
	age   int // counts clears, so that an answer from before one is not kept
	known map[string]docker.ImageInfo
	pulls map[string]*pull

	coming   map[string]int // names that are being given to images, and how often
	removing *removal
}

type pull struct {
	done chan struct{}
	err  error

	mu   sync.Mutex
	told []func(string)
	last string // progress
}

func newImageCache(cfg *Config) *imageCache {
	return &imageCache{
		cfg: cfg, known: map[string]docker.ImageInfo{}, pulls: map[string]*pull{},
		pulled: newPulledImages(cfg.StateDir), coming: map[string]int{},
	}
}

func (c *imageCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.known)
	c.age++
}

func (c *imageCache) info(ctx context.Context, ref string) (docker.ImageInfo, error) {
	c.mu.Lock()
	i, ok := c.known[ref]
	age := c.age
	c.mu.Unlock()
	if ok {
		return i, nil
	}
	i, err := c.cfg.Engine.Image(ctx, ref)
	if err != nil {
		return i, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age == age {
		c.known[ref], c.known[i.ID] = i, i
	}
	return i, nil
}

// pulledBy returns the digest by which the image with an ID, that a task's container is made
// of, was pulled; "" where there is none, or the engine does not say.
func (c *imageCache) pulledBy(ctx context.Context, s *cluster.TaskSpec, id string) string {
	if s.ImageID != "" && s.PullPolicy == pullNever {
		return "" // it was built; there are engines that have a digest of that too
	}
	i, err := c.info(ctx, id)
	if err != nil {
		return "" // the next look at the container asks again
	}
	return i.PulledBy(s.Image)
}

// image is what a task's container is made of.
type image struct {
	ref  string // to make the container of: the reference, or the pinned ID where the reference has moved on
	info docker.ImageInfo
}

// resolve finds a task's image on the node; errImageMissing when it is not there.
// It never asks a registry.
func (c *imageCache) resolve(ctx context.Context, s *cluster.TaskSpec) (image, error) {
	if err := c.kept(ctx, namesOf(s)...); err != nil {
		return image{}, err
	}
	i, err := c.info(ctx, s.Image)
	if err == nil && pinned(s, i) {
		return image{ref: s.Image, info: i}, nil
	}
	if err != nil && cluster.KindOf(err) != cluster.KindNotFound {
		return image{}, err
	}
	if s.ImageID == "" {
		return image{}, errImageMissing
	}
	i, err = c.info(ctx, s.ImageID)
	switch {
	case err == nil:
		return image{ref: i.ID, info: i}, nil
	case cluster.KindOf(err) == cluster.KindNotFound:
		return image{}, errImageMissing
	}
	return image{}, err
}

// pinned reports whether an image is the one that the release was made with.
func pinned(s *cluster.TaskSpec, i docker.ImageInfo) bool {
	if s.ImageID == "" || s.ImageID == i.ID {
		return true
	}
	for _, d := range i.Digests {
		if _, digest, _ := strings.Cut(d, "@"); digest == s.ImageID || d == s.ImageID {
			return true
		}
	}
	return false
}

// pull fetches a task's image; tasks that want the same one share the pull.
func (c *imageCache) pull(ctx context.Context, s *cluster.TaskSpec, progress func(string)) error {
	key := s.Platform + " " + s.Image
	c.mu.Lock()
	p := c.pulls[key]
	mine := p == nil
	if mine {
		p = &pull{done: make(chan struct{})}
		c.pulls[key] = p
	}
	c.mu.Unlock()
	p.mu.Lock()
	p.told = append(p.told, progress)
	last := p.last
	p.mu.Unlock()
	if last != "" {
		progress(last)
	}
	if mine {
		p.err = c.fetch(ctx, s, p.tell)
		c.mu.Lock()
		delete(c.pulls, key)
		c.mu.Unlock()
		c.clear()
		close(p.done)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.err != nil {
		return p.err
	}
	return c.check(ctx, s)
}

func (p *pull) tell(text string) {
	p.mu.Lock()
	p.last = text
	told := slices.Clone(p.told)
	p.mu.Unlock()
	for _, f := range told {
		f(text)
	}
}

// Policies that decide who is asked for an image: the registry whatever is there, and
// never the registry. What was built is of the second kind; other nodes may have it.
const (
	pullAlways = "always"
	pullNever  = "never"
)

// notPresent is why a task ends whose image may not be pulled.
func notPresent(s *cluster.TaskSpec) error {
	if s.ImageID != "" { // it was built
		return cluster.NotFoundf("image %s is not present on this node, and no other that answers has it: "+
			"deploy again to build it anew, or bring back a node that has it", s.Image)
	}
	return cluster.NotFoundf("image %s is not present on this node, and its pull policy is never", s.Image)
}

func (c *imageCache) fetch(ctx context.Context, s *cluster.TaskSpec, progress func(string)) error {
	if s.PullPolicy != pullAlways && c.cfg.Fetch != nil && !byDigest(s) {
		err := c.fromPeers(ctx, s, progress)
		switch {
		case err == nil:
			return nil
		case s.PullPolicy == pullNever && cluster.KindOf(err) == cluster.KindNotFound:
			return notPresent(s)
		case s.PullPolicy == pullNever:
			return fmt.Errorf("get image %s from another node: %w", s.Image, err)
		case cluster.KindOf(err) != cluster.KindNotFound && ctx.Err() == nil:
			c.cfg.Log.Warn("could not get an image from another node; asking its registry", "image", s.Image, "error", err)
		}
	}
	if s.PullPolicy == pullNever {
		return notPresent(s)
	}
	host, err := docker.RegistryHost(s.Image)
	if err != nil {
		return err
	}
	user, password, err := c.cfg.Credentials(ctx, host)
	if err != nil {
		return cluster.Transientf("credentials of %s: %w", host, err)
	}
	began := c.cfg.Now()
	before := c.here(ctx)
	err = c.cfg.Engine.Pull(ctx, s.Image, s.Platform, docker.Login{User: user, Password: password}, progress)
	if err == nil {
		c.note(ctx, s, before, began)
		return nil
	}
	had := "image " + s.Image + " not present and cannot be pulled: "
	if _, ierr := c.info(ctx, s.Image); ierr == nil {
		had = "image " + s.Image + " cannot be pulled: "
	}
	return &cluster.Error{Kind: cluster.KindOf(err), Msg: had + docker.Message(err)}
}

// byDigest reports that an image is asked for by its digest in a registry, which no node
// can give it in another's engine.
func byDigest(s *cluster.TaskSpec) bool { return s.ImageID == "" && strings.Contains(s.Image, "@") }

// maxLiars bounds how many nodes are asked in place of such as sent another image.
const maxLiars = 16

// fromPeers gets an image from another node: what was built or loaded there is in
// no registry, and what was pulled there need not come over the uplink again.
func (c *imageCache) fromPeers(ctx context.Context, s *cluster.TaskSpec, progress func(string)) error {
	ask := cluster.ImageAsk{Ref: s.Image, ID: s.ImageID}
	for {
		sent, from, err := c.fromPeer(ctx, s, ask, progress)
		another := cluster.KindOf(err) == cluster.KindInvalid
		switch {
		case !sent || err == nil || ctx.Err() != nil:
			return err
		case !another && !ask.Whole:
			ask.Whole = true // a layer that was not sent may have been removed here meanwhile
			continue
		case !another && cluster.KindOf(err) == cluster.KindTransient && !errors.Is(err, docker.ErrAway):
			return &cluster.Error{Kind: cluster.KindOther, Err: err} // sent again and again it does not pass
		case !another || from == "" || len(ask.Not) == maxLiars:
			return err
		}
		c.cfg.Log.Warn("a node sent another image than the one asked for; asking others", "node", from, "image", s.Image, "error", err)
		ask.Not, ask.Whole = append(ask.Not, from), false
	}
}

// fromPeer reports whether a node sent an archive, and which; older servers do not say.
func (c *imageCache) fromPeer(ctx context.Context, s *cluster.TaskSpec, ask cluster.ImageAsk, progress func(string)) (bool, cluster.NodeID, error) {
	sent, err := c.cfg.Fetch(ctx, ask)
	if err != nil {
		return false, "", err
	}
	defer func() { _ = sent.Close() }()
	progress("from another node")
	want := cluster.ImageWant{Ref: s.Image, ID: s.ImageID, Content: sent.Content}
	if i, err := c.cfg.Engine.Image(ctx, s.Image); s.ImageID != "" && err == nil && i.ID != s.ImageID {
		want.Ref = "" // the name has moved on here
	}
	began := c.cfg.Now()
	before := c.here(ctx)
	err = c.brings(ctx, []string{s.Image}, func() error { return c.cfg.Engine.Load(ctx, sent, want) })
	if err == nil && sent.Pulled {
		c.note(ctx, s, before, began)
	}
	return true, sent.From, err
}

// check refuses an image that is not the one pinned: the tag moved on.
func (c *imageCache) check(ctx context.Context, s *cluster.TaskSpec) error {
	if s.ImageID == "" {
		return nil
	}
	i, err := c.info(ctx, s.Image)
	if err != nil {
		return err
	}
	if pinned(s, i) {
		return nil
	}
	if _, err := c.info(ctx, s.ImageID); err == nil {
		return nil
	}
	return cluster.NotFoundf("image %s is now %s, not %s as when it was released: deploy again to use it", s.Image, i.ID, s.ImageID)
}
