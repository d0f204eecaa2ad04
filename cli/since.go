package cli

import (
	"strconv"
	"time"
)

// lastLines reads --tail: -1 is all.
func lastLines(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < -1 {
		return 0, usagef("--tail %q is not a number of lines: write for example 50, or all", s)
	}
	return n, nil
}

// sinceTime reads --since, a time ago or a date, as Docker does, and days and
// weeks too. "" and 0 are no limit.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[s[len(s)-1]]
	ago, err := time.ParseDuration(s)
	if n, nerr := strconv.ParseUint(s[:len(s)-1], 10, 12); nerr == nil && unit > 0 {
		ago, err = time.Duration(n)*unit, nil
	}
	switch {
	case err == nil && ago == 0:
		return time.Time{}, nil
	case err == nil && ago > 0:
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, usagef("--since %q is no time: write how long ago, as 10m, 36h, 2d or 1w, or a date, as 2024-01-31 or 2024-01-31T08:00 (of this machine's time zone, or with one: 2024-01-31T08:00:00Z)", s)
}
