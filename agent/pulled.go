package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/atomicfile"
)

// pulledImage is an image that this agent itself pulled from a registry, by one name, or got from
// a node that had, and that was not on the machine before: it can be got again, and nobody else
// brought it here.
type pulledImage struct {
	Ref    string    `json:"ref"` // docker.Canonical
	ID     string    `json:"id"`
	Digest string    `json:"digest,omitempty"` // "name@sha256:…" in its registry; what another node sent has none
	Used   time.Time `json:"used"`             // when a task last had it
}

// names are those that can only mean this image: its ID and its digest.
func (i pulledImage) names() []string {
	if i.Digest == "" {
		return []string{i.ID}
	}
	_, digest, _ := strings.Cut(i.Digest, "@")
	return []string{i.ID, i.Digest, digest}
}

// among reports whether one of names can only mean this image.
func (i pulledImage) among(names map[string]bool) bool {
	return slices.ContainsFunc(i.names(), func(n string) bool { return names[n] })
}

const (
	pulledVersion = 1
	// maxPulled bounds the record; what falls out of it is never removed.
	maxPulled = 1000
	// usedGap bounds how often the record is written only because time has passed.
	usedGap = 10 * time.Minute
	// justUsed is how long before the record was written an image was used that was in use then.
	justUsed = 2 * gcEvery
)

// pulledImages is the record of all of them, kept on disk. What it does not know, as after it
// was lost, is not ours to remove.
type pulledImages struct {
	path string

	mu      sync.Mutex
	list    []pulledImage // those pulled last are last
	changed bool          // since it was written
	late    bool          // and that can wait
	written time.Time

	writing sync.Mutex
}

func newPulledImages(dir string) *pulledImages {
	return &pulledImages{path: filepath.Join(dir, "images.json")}
}

type pulledFile struct {
	Version int           `json:"version"`
	At      time.Time     `json:"at"` // when it was written
	Images  []pulledImage `json:"images"`
}

// load reads the record; with an error it stays empty.
func (p *pulledImages) load(now time.Time) error {
	b, err := os.ReadFile(p.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f pulledFile
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if f.Version != pulledVersion {
		return fmt.Errorf("%s: version %d is not %d", p.path, f.Version, pulledVersion)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list, p.written = f.Images, now
	for i := range p.list {
		if x := &p.list[i]; f.At.Sub(x.Used) <= justUsed {
			x.Used = x.Used.Add(usedGap) // until the next time that it would have been written
		}
	}
	return nil
}

// save writes the record if it has changed, and mere use only now and then.
func (p *pulledImages) save(now time.Time, atOnce bool) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	due := p.changed || p.late && (atOnce || now.Sub(p.written) >= usedGap || now.Before(p.written))
	list := slices.Clone(p.list)
	if due {
		p.changed, p.late = false, false
	}
	p.mu.Unlock()
	if !due {
		return nil
	}
	b, err := json.Marshal(pulledFile{Version: pulledVersion, At: now, Images: list})
	if err == nil {
		err = atomicfile.Write(p.path, b)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.changed = true
		return err
	}
	p.written = now
	return nil
}

func (p *pulledImages) all() []pulledImage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// add takes in what was pulled, unless it was on the engine when the pull began.
func (p *pulledImages) add(i pulledImage, before map[string]bool, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(func(x pulledImage) bool { return !before[x.ID] && x.Used.Before(began) }) // somebody removed it
	ours := slices.ContainsFunc(p.list, func(x pulledImage) bool { return x.ID == i.ID })
	if before[i.ID] && !ours {
		return
	}
	p.list = slices.DeleteFunc(p.list, func(x pulledImage) bool { return x.ID == i.ID && x.Ref == i.Ref })
	p.list = append(p.list, i)
	if n := len(p.list) - maxPulled; n > 0 {
		p.list = slices.Delete(p.list, 0, n)
	}
	p.changed = true
}

// forget drops what is not ours any more.
func (p *pulledImages) forget(which func(pulledImage) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(which)
}

func (p *pulledImages) forgetLocked(which func(pulledImage) bool) {
	n := len(p.list)
	p.list = slices.DeleteFunc(p.list, which)
	p.changed = p.changed || len(p.list) != n
}

// restore puts back what was dropped and is still there.
func (p *pulledImages) restore(dropped []pulledImage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(dropped, p.list...)
	p.changed = true
}

// touch takes note of what is used now. A name is of the image that it was pulled for last:
// those that had it before are used by their ID alone. Times to come, of a clock that was set
// back, are now.
func (p *pulledImages) touch(names map[string]bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := map[string]int{}
	for i, x := range p.list {
		last[x.Ref] = i
	}
	for i := range p.list {
		x := &p.list[i]
		used := names[x.Ref] && last[x.Ref] == i || x.among(names)
		if used && !x.Used.Equal(now) || x.Used.After(now) {
			x.Used, p.late = now, true
		}
	}
}
