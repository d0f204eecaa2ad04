package names

import "time"

// situation is what there is to decide on.
type situation struct {
	Now     time.Time
	Running bool
	Broken  bool // it runs, and does not answer
	Current bool // it is of the server's own program
	// NotBefore is when the next process may be started: each that ends early
	// makes it later.
	NotBefore time.Time
	// Due are the parts that the process does not serve as they should be, each
	// with the time before which it is not tried again.
	Due []due
}

type due struct {
	part      part
	notBefore time.Time
}

// step is what to do next.
type step struct {
	do   action
	part part          // to feed
	wait time.Duration // to rest at most; 0 is until something happens
}

type action uint8

const (
	rest action = iota
	start
	end
	replace
	feed
)

// feedOrder puts endpoints first: a network is then asked once it can be answered.
var feedOrder = []part{partEndpoints, partContainers, partNetworks} //nolint:gochecknoglobals // a constant

// next decides. The process that there is serves on until another one does, and
// is fed meanwhile.
func next(s situation) step {
	wait := func(t time.Time) time.Duration { return max(t.Sub(s.Now), time.Millisecond) }
	early := s.Now.Before(s.NotBefore)
	switch {
	case s.Running && s.Broken:
		return step{do: end}
	case !s.Running && early:
		return step{do: rest, wait: wait(s.NotBefore)}
	case !s.Running:
		return step{do: start}
	case !s.Current && !early:
		return step{do: replace}
	}
	out := step{do: rest}
	if !s.Current {
		out.wait = wait(s.NotBefore)
	}
	for _, p := range feedOrder {
		for _, d := range s.Due {
			switch {
			case d.part != p:
			case !s.Now.Before(d.notBefore):
				return step{do: feed, part: p}
			case out.wait == 0 || wait(d.notBefore) < out.wait:
				out.wait = wait(d.notBefore)
			}
		}
	}
	return out
}

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
	// stableAfter is how long a process must have lived not to have failed.
	stableAfter = 5 * time.Second
	// refusedPause is for what the process could not do, a port that another
	// program has for example. It tries by itself too.
	refusedPause = 2 * time.Second
)

// pause is how long to wait after so many processes in a row that failed.
func pause(failed int) time.Duration {
	if failed == 0 {
		return 0
	}
	return min(firstPause<<min(failed-1, 10), maxPause)
}
