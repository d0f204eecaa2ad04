package zaplog

import (
	"strings"
	"sync"
	"time"
	"unicode"

	"go.uber.org/zap/zapcore"
)

const (
	// firstGap is how long what was said is not said again; the gap doubles each time, up
	// to lastGap. What was not said for twice its gap is news once more.
	firstGap = 10 * time.Second
	lastGap  = 10 * time.Minute
	// subjects is how many are remembered.
	subjects = 1000
)

// said remembers what was said, and when.
type said struct {
	mu sync.Mutex
	of map[string]*subjectState
}

type subjectState struct {
	told, heard time.Time
	gap         time.Duration
	withheld    int
}

// again reports whether what is said of a subject is to be told now, and how often it was
// said since the last time without being told.
func (s *said) again(subject string, at time.Time) (withheld int, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.of[subject]
	switch {
	case st == nil || at.Sub(st.heard) > 2*st.gap:
		if st == nil && len(s.of) >= subjects || s.of == nil {
			s.of = map[string]*subjectState{}
		}
		s.of[subject] = &subjectState{told: at, heard: at, gap: firstGap}
		return 0, true
	case at.Sub(st.told) < st.gap:
		st.heard = at
		st.withheld++
		return 0, false
	}
	withheld = st.withheld
	st.told, st.heard, st.gap, st.withheld = at, at, min(2*st.gap, lastGap), 0
	return withheld, true
}

// subject is what an entry is about: its words, and the names and errors in it, without
// their digits: ports and counters differ each time.
func subject(e zapcore.Entry, fields []zapcore.Field) string {
	var b strings.Builder
	b.WriteString(e.Message)
	for _, f := range fields {
		switch err, is := f.Interface.(error); {
		case f.Type == zapcore.StringType:
			b.WriteString("\x00" + f.Key + "=" + f.String)
		case f.Type == zapcore.ErrorType && is:
			b.WriteString("\x00" + f.Key + "=" + err.Error())
		}
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, b.String())
}
