package lab

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// Pace is how slow a machine's link is, in each direction. The zero value is as
// fast as it goes.
type Pace struct {
	// Rate is in bits a second; 0: no limit.
	Rate uint64 `json:"rate,omitempty"`
	// Delay is what each packet takes longer.
	Delay cluster.Duration `json:"delay,omitempty"`
	// Loss is the share of packets that are lost, 0 to 1.
	Loss float64 `json:"loss,omitempty"`
}

// bits are the units of a rate, in bits a second.
var bits = []struct { //nolint:gochecknoglobals // a table
	unit string
	of   float64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// ParsePace reads a pace as people write it: "10mbit", a delay, "5%".
func ParsePace(rate string, delay time.Duration, loss string) (Pace, error) {
	p := Pace{Delay: cluster.Duration(delay)}
	if rate != "" {
		for _, b := range bits {
			number, ok := strings.CutSuffix(strings.ToLower(rate), b.unit)
			if n, err := strconv.ParseFloat(number, 64); ok && err == nil {
				p.Rate = uint64(max(n*b.of, 0))
				break
			}
		}
		if p.Rate < 8_000 || p.Rate > 1e12 {
			return p, cluster.Invalidf("--rate %q: give 8kbit to 1000gbit, such as 10mbit", rate)
		}
	}
	if loss != "" {
		n, err := strconv.ParseFloat(strings.TrimSuffix(loss, "%"), 64)
		if err != nil || !(n >= 0 && n <= 100) {
			return p, cluster.Invalidf("--loss %q: give a share in percent, such as 5%%", loss)
		}
		p.Loss = n / 100
	}
	if delay < 0 || delay > 10*time.Second {
		return p, cluster.Invalidf("--delay %s: give 0s to 10s", delay)
	}
	return p, nil
}

// String is the pace in words.
func (p Pace) String() string {
	var out []string
	if p.Rate > 0 {
		for _, b := range bits {
			if float64(p.Rate) >= b.of {
				out = append(out, strconv.FormatFloat(float64(p.Rate)/b.of, 'g', 6, 64)+b.unit)
				break
			}
		}
	}
	if p.Delay > 0 {
		out = append(out, "+"+p.Delay.String())
	}
	if p.Loss > 0 {
		out = append(out, fmt.Sprintf("%g%% lost", p.Loss*100))
	}
	return strings.Join(out, ", ")
}

// bucket are the numbers of the kernel's token bucket for a rate: bytes a second, how
// many may go at once, and how many may wait.
func (p Pace) bucket() (rate uint64, burst, limit uint32) {
	rate = p.Rate / 8
	burst = uint32(min(max(rate/100, 16<<10), 4<<20))
	return rate, burst, burst + uint32(min(max(rate/5, 64<<10), 64<<20))
}

// mostFrames are how many frames may be under way in one direction.
const mostFrames = 4096

// frame is one that is under way.
type frame struct {
	due  time.Time
	data []byte
}

// carry carries frames from r to w, each so late, but for those that are lost, until r
// has ended. Frames that find too many under way are lost too, as on a real line.
func carry(r io.Reader, w io.Writer, delay time.Duration, lost func() bool) error {
	way := make(chan frame, mostFrames)
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		for f := range way {
			if wait := f.due.Sub(now()); wait > 0 {
				<-time.After(wait)
			}
			_, _ = w.Write(f.data) // a frame that cannot be sent is lost
		}
	}()
	buf := make([]byte, 128<<10) // more than the largest that the kernel puts together
	for {
		n, err := r.Read(buf)
		if err != nil {
			close(way)
			<-arrived
			return err
		}
		if lost() {
			continue
		}
		select {
		case way <- frame{now().Add(delay), append([]byte(nil), buf[:n]...)}:
		default:
		}
	}
}

func now() time.Time { return time.Now() } //nolint:forbidigo // nothing is decided by it but when to go on
