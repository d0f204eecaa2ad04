package embedded

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
)

// space is what a member knows of its database when it decides about room in it.
type space struct {
	// Size of the file and what of it is in use; etcd takes no more writes once
	// Size reaches Quota, however much of it is free.
	Size, InUse, Quota int64
	// Alarm: this member has raised NOSPACE, so the whole cluster refuses writes.
	Alarm bool
	// History: there are revisions that compaction would forget.
	History bool
	// Compacted: some were forgotten since the last defragmentation. InUse may count them
	// still: their pages are free from the second write on, and an alarm lets none happen.
	Compacted bool
	Now       time.Time
	// Last is the last defragmentation, well or not; zero means none.
	Last time.Time
	// Tried: the last one was in this very round, and was for the alarm.
	Tried bool
}

// step is what to do next about the database's size.
type step int

const (
	rest       step = iota
	compact         // forget history up to now
	defragment      // give free pages back to the file system
	disarm          // take the NOSPACE alarm back
	giveUp          // nothing here makes room: a person has to
)

const (
	// A defragmentation holds up all requests to the member: it must be worth it.
	worthFree = 64 << 20        // free bytes, and half of the file or more,
	worthRest = time.Hour       // and not more often than this.
	nearRest  = 5 * time.Minute // the same near the quota, where it averts the alarm
)

// limit is what may be in use, so that writes go on for a while after an alarm.
func (s space) limit() int64 { return s.Quota / 10 * 9 }

// next decides. Applied again and again it comes to rest or gives up.
func (s space) next() step {
	if s.Alarm {
		again := !s.Last.IsZero() && s.Now.Sub(s.Last) >= nearRest
		switch {
		case s.History:
			return compact
		case s.Size <= s.limit():
			return disarm
		case (s.InUse <= s.limit() || s.Compacted || again) && !s.Tried:
			return defragment
		}
		return giveUp
	}
	free, idle := s.Size-s.InUse, s.Now.Sub(s.Last)
	if s.Last.IsZero() {
		idle = worthRest
	}
	near := s.Size >= s.Quota/4*3 && free >= s.Size/8
	if free >= worthFree && free >= s.Size/2 && idle >= worthRest || near && idle >= nearRest {
		return defragment
	}
	return rest
}

// trouble says in words what an operator should know, "" when all is well.
func (s space) trouble() string {
	use := fmt.Sprintf("%s of %s", units.BytesSize(float64(s.InUse)), units.BytesSize(float64(s.Quota)))
	switch {
	case s.Alarm && s.next() == giveUp:
		return "the store is full (" + use + " in use) and takes no change but deletions: start the server with a larger --etcd-quota"
	case s.Alarm:
		return "the store is full (" + use + " in use) and takes no change until it has made room, which it does by itself"
	case s.InUse > s.Quota/5*4:
		return "the store is nearly full (" + use + " in use): start the server with a larger --etcd-quota"
	}
	return ""
}
