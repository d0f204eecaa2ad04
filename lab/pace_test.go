package lab

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

func TestParsePace(t *testing.T) {
	for _, c := range []struct {
		rate  string
		delay time.Duration
		loss  string
		want  Pace
		words string
		err   string
	}{
		{"10mbit", 0, "", Pace{Rate: 10e6}, "10mbit", ""},
		{"1.5Gbit", 50 * time.Millisecond, "5%", Pace{Rate: 1.5e9, Delay: cluster.Duration(50 * time.Millisecond), Loss: 0.05}, "1.5gbit, +50ms, 5% lost", ""},
		{"", 0, "100", Pace{Loss: 1}, "100% lost", ""},
		{"8000bit", 0, "", Pace{Rate: 8000}, "8kbit", ""},
		{"", 0, "", Pace{}, "", ""},
		{"10", 0, "", Pace{}, "", "--rate"},
		{"10mbyte", 0, "", Pace{}, "", "--rate"},
		{"-10mbit", 0, "", Pace{}, "", "--rate"},
		{"1bit", 0, "", Pace{}, "", "--rate"},
		{"nanmbit", 0, "", Pace{}, "", "--rate"},
		{"", 0, "101%", Pace{}, "", "--loss"},
		{"", 0, "nan", Pace{}, "", "--loss"},
		{"", -1, "", Pace{}, "", "--delay"},
	} {
		got, err := ParsePace(c.rate, c.delay, c.loss)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil && (got != c.want || got.String() != c.words) {
			t.Errorf("%+v is %+v, %q", c, got, got)
		}
	}
}

// A line's end hands out frames as they come in, and keeps when they go out.
type wire struct {
	in  chan []byte
	out []time.Duration
	who []byte
	t0  time.Time
}

func (e *wire) Read(b []byte) (int, error) {
	f, ok := <-e.in
	if !ok {
		return 0, io.EOF
	}
	return copy(b, f), nil
}

func (e *wire) Write(b []byte) (int, error) {
	e.out, e.who = append(e.out, time.Since(e.t0)), append(e.who, b[0])
	return len(b), nil
}

func TestFramesAreLateAndLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &wire{in: make(chan []byte), t0: time.Now()}
		n := 0
		done := make(chan error)
		go func() { done <- carry(e, e, 30*time.Millisecond, func() bool { n++; return n == 2 }) }()
		for i := range byte(4) {
			e.in <- []byte{i}
			if i == 2 {
				<-time.After(10 * time.Millisecond)
			}
		}
		close(e.in)
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Errorf("it ended with %v", err)
		}
		if want := []time.Duration{30e6, 30e6, 40e6}; !slices.Equal(e.out, want) || string(e.who) != "\x00\x02\x03" {
			t.Errorf("frames %v arrived after %v, want %v", e.who, e.out, want)
		}
	})
}

func TestTooManyFramesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &wire{in: make(chan []byte), t0: time.Now()}
		done := make(chan error)
		go func() { done <- carry(e, e, time.Second, func() bool { return false }) }()
		for range 2 * mostFrames {
			e.in <- []byte{1}
		}
		close(e.in)
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Errorf("it ended with %v", err)
		}
		if got := len(e.out); got < mostFrames || got > mostFrames+1 {
			t.Errorf("%d frames arrived, want %d", got, mostFrames)
		}
	})
}

func TestBucketHoldsAPacket(t *testing.T) {
	for _, rate := range []uint64{8_000, 1e6, 1e9, 1e12} {
		r, burst, limit := Pace{Rate: rate}.bucket()
		if r != rate/8 || burst < 1600 || limit <= burst {
			t.Errorf("%d bit/s: %d %d %d", rate, r, burst, limit)
		}
	}
}
