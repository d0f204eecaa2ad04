package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// ImageGC says when images that nothing uses are removed: from when the file system that the
// engine keeps them on is more than High percent full until it is less than Low percent full.
// A part of the disk, not a size: small disks hold small images, and on a large one a rollback
// that pulls again costs little. High 0: never.
type ImageGC struct {
	High, Low int
	Every     time.Duration // between looks at the disk; 0: a minute
}

// DiskUse is how full a file system is, in bytes, of what others than root may use.
type DiskUse struct{ Total, Free int64 }

func diskUse(dir string) (DiskUse, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return DiskUse{}, fmt.Errorf("look how full %s is: %w", dir, err)
	}
	block := int64(fs.Bsize)                               //nolint:unconvert // it is 32 bits wide elsewhere
	root := int64(fs.Bfree) - int64(fs.Bavail)             //nolint:gosec // no disk has 2^63 blocks
	total, free := int64(fs.Blocks)-root, int64(fs.Bavail) //nolint:gosec // as above
	return DiskUse{Total: total * block, Free: free * block}, nil
}

// above reports whether more than percent of the disk is used.
func (u DiskUse) above(percent int) bool { return (u.Total-u.Free)*100 > u.Total*int64(percent) }

// below reports whether less than percent of the disk is used.
func (u DiskUse) below(percent int) bool { return (u.Total-u.Free)*100 < u.Total*int64(percent) }

// fuller reports whether a larger part of u is used than of other.
func (u DiskUse) fuller(other DiskUse) bool {
	return float64(u.Free)/float64(u.Total) < float64(other.Free)/float64(other.Total)
}

// collecting reports whether images are to be removed, where they were being or not.
func (g ImageGC) collecting(was bool, u DiskUse) bool {
	switch {
	case g.High <= 0 || u.Total <= 0:
		return false
	case u.above(g.High):
		return true
	}
	return was && !u.below(g.Low)
}

const (
	// imageUnusedFor is how long an image stays that nothing uses, however full the disk is: going
	// back just after an update needs no pull.
	imageUnusedFor = time.Hour
	// imageRefusedFor is how long an image is left alone that the engine would not remove.
	imageRefusedFor = time.Hour
)

// unusedImage is an image to remove.
type unusedImage struct {
	ID   string
	Refs []string // its tags, all ours; of one that has none, the digests by which it was pulled
	Used time.Time
	Size int64
	rows []pulledImage // what the record has of it
}

// names are all that a task or container may call it.
func (u unusedImage) names() map[string]bool {
	out := map[string]bool{}
	for _, r := range u.Refs {
		out[r] = true
	}
	for _, r := range u.rows {
		for _, n := range r.names() {
			out[n] = true
		}
	}
	return out
}

// unusedState is what toRemove decides on. Names are canonical references, IDs and digests.
type unusedState struct {
	Now     time.Time
	GC      ImageGC
	Disk    DiskUse
	Pulled  []pulledImage
	Images  []cluster.Image // on the engine
	Busy    map[string]bool // that containers use, whoever made them
	Named   map[string]bool // that placements name
	Refused map[string]time.Time
}

// toRemove are the images to remove, those that were not used for longest first, until less
// than GC.Low percent of the disk would be used if they shared no layers. As they do, the next
// look finds out how much it was: a disk may also take its time to say so.
func toRemove(s unusedState) []unusedImage {
	var out []unusedImage
	for _, i := range s.Images {
		if u, ok := s.unused(i); ok {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b unusedImage) int { return cmp.Or(a.Used.Compare(b.Used), strings.Compare(a.ID, b.ID)) })
	left := s.Disk
	for n, u := range out {
		if left.below(s.GC.Low) {
			return out[:n]
		}
		left.Free += u.Size
	}
	return out
}

// unused reports whether an image may be removed, and how.
func (s unusedState) unused(i cluster.Image) (unusedImage, bool) {
	u := unusedImage{ID: i.ID, Refs: slices.Sorted(slices.Values(i.Tags)), Size: i.Size}
	tags := map[string]bool{}
	for _, p := range s.Pulled {
		if p.ID != i.ID {
			continue
		}
		u.rows = append(u.rows, p)
		tags[p.Ref] = true
		if p.Used.After(u.Used) {
			u.Used = p.Used
		}
		if p.Digest != "" && len(i.Tags) == 0 && !slices.Contains(u.Refs, p.Digest) {
			u.Refs = append(u.Refs, p.Digest)
		}
	}
	foreign := slices.ContainsFunc(i.Tags, func(t string) bool { return !tags[t] }) // it is somebody's; nothing would become free
	at, refused := s.Refused[i.ID]
	refused = refused && s.Now.Sub(at) < imageRefusedFor && !at.After(s.Now)
	if len(u.rows) == 0 || len(u.Refs) == 0 || foreign || refused || s.Now.Sub(u.Used) < imageUnusedFor {
		return u, false
	}
	for n := range maps.Keys(u.names()) {
		if s.Busy[n] || s.Named[n] {
			return u, false
		}
	}
	return u, true
}
