package cli

import (
	"testing"
	"time"
)

func TestSince(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("z", 2*3600)
	now := time.Date(2024, 3, 10, 12, 0, 0, 0, zone)
	for s, want := range map[string]string{
		"": "", "0": "", "0s": "",
		"10m": "2024-03-10T11:50:00+02:00", "1h30m": "2024-03-10T10:30:00+02:00", "1d": "2024-03-09T12:00:00+02:00", "2w": "2024-02-25T12:00:00+02:00",
		"2024-01-01": "2024-01-01T00:00:00+02:00", "2024-01-01T08:30": "2024-01-01T08:30:00+02:00", "2024-01-01 08:30:05": "2024-01-01T08:30:05+02:00",
		"2024-01-01T08:30:00Z": "2024-01-01T10:30:00+02:00", "1704098400": "2024-01-01T10:40:00+02:00",
		"-5m": "!", "yesterday": "!", "1.5d": "!", "d": "!", "2024-13-01": "!", "-3": "!",
	} {
		got, err := sinceTime(s, now)
		text := "!"
		if err == nil {
			text = ""
			if !got.IsZero() {
				text = got.In(zone).Format(time.RFC3339)
			}
		} else if Code(err) != codeUsage {
			t.Errorf("%q: code %d", s, Code(err))
		}
		if text != want {
			t.Errorf("%q is %s (%v), want %s", s, text, err, want)
		}
	}
}

func TestLastLines(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{"all": -1, "-1": -1, "0": 0, "50": 50} {
		if n, err := lastLines(s); err != nil || n != want {
			t.Errorf("%q is %d (%v)", s, n, err)
		}
	}
	for _, s := range []string{"", "some", "-2", "1.5"} {
		if n, err := lastLines(s); Code(err) != codeUsage {
			t.Errorf("%q is %d (%v)", s, n, err)
		}
	}
}
