package cluster

import "testing"

// The note of a release begins with it.
func TestShortRevision(t *testing.T) {
	for long, want := range map[string]string{
		"71a07a35ed255da4e198d125aad0e31e4f1d6562":                                "71a07a35",
		"sha256:64b2de06a4dd94fe60768a3ffebcbc3f19599a23c605f10ab862a32c2270e8dd": "sha256:64b2de06",
		"1.10.0-rc.1": "1.10.0-rc.1",
	} {
		if got := ShortRevision(long); got != want {
			t.Errorf("%s: %s, not %s", long, got, want)
		}
	}
}
