package image_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
)

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		policy, tags, want string
		matching           int
	}{
		{"semver 1.x", "1.0.0 1.10.0 1.9.0 2.0.0 latest", "1.10.0", 3},
		{"semver 1.x", "1.0.0 1.1.0-rc.1 1.2.0-beta", "1.0.0", 1},
		{"semver >=1.1.0-0 <2", "1.0.0 1.1.0-rc.1 1.1.0-rc.2 2.0.0", "1.1.0-rc.2", 2},
		{"semver >=1.0", "v1.4.0 1.3.0 20260101 7 sha-abc", "v1.4.0", 2},
		{"semver 1.x", "1.4 1.4.0", "1.4.0", 2},
		{"semver 1.x", "v1.4.0 1.4.0", "v1.4.0", 2},
		{"semver 1.x", "2.0.0 nightly", "", 0},
		{"semver 1.x filter ^(?P<v>.*)-alpine$", "1.2.0-alpine 1.3.0 1.1.0-alpine", "1.2.0-alpine", 2},
		{"newest numeric", "9 10 2 x -3 1e9", "10", 3},
		{"newest numeric desc", "9 10 2", "2", 3},
		{"newest numeric filter ^main-[0-9a-f]+-(?P<ts>[0-9]+)$", "main-ab-9 main-cd-10 dev-ef-11 main-1", "main-cd-10", 2},
		{"newest numeric filter ^b(?P<n>[0-9]+)", "b07 b7 b007", "b007", 3},
		{"newest numeric", "99999999999999999999999999999999999998 99999999999999999999999999999999999999", "99999999999999999999999999999999999999", 2},
		{"newest alphabetical", "2026-01-09 2026-01-10 2025-12-31", "2026-01-10", 3},
		{"newest alphabetical desc filter ^2026", "2026-01-09 2026-01-10 2025-12-31", "2026-01-09", 2},
		{"digest latest", "latest 1.0.0", "latest", 1},
		{"digest latest", "1.0.0", "", 0},
	} {
		p, err := image.Parse("web=registry.example.com:5000/shop/web " + tc.policy)
		if err != nil {
			t.Errorf("%s: %v", tc.policy, err)
			continue
		}
		if again, err := image.Parse(p.String()); err != nil || again != p {
			t.Errorf("%s: written as %q it is read as %+v, %v", tc.policy, p, again, err)
		}
		tags := append(strings.Fields(tc.tags), "", "not a tag", strings.Repeat("x", 200), "-9.9.9")
		if got, n, err := image.Choose(p, tags); got != tc.want || n != tc.matching || err != nil {
			t.Errorf("%s of %s: %q of %d, %v; want %q of %d", tc.policy, tc.tags, got, n, err, tc.want, tc.matching)
		}
	}
}

func TestBadPoliciesAreRefusedWhereTheyAreBad(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "at column 1",
		"web":                               "at column 1",
		"Web=r.io/x semver 1":               "at column 1 ",
		"web=r.io/x:1 semver 1":             "at column 5 ",
		"web=r.io/X semver 1":               "at column 5 ",
		"web=r.io/x":                        "at column 11 ",
		"web=r.io/x semvr 1":                "at column 12 ",
		"web=r.io/x semver":                 "at column 18 ",
		"web=r.io/x semver one":             "at column 19 ",
		"web=r.io/x newest":                 "at column 18 ",
		"web=r.io/x newest first":           "at column 19 ",
		"web=r.io/x newest numeric up":      "at column 27 ",
		"web=r.io/x newest numeric desc x":  "at column 32 ",
		"web=r.io/x digest a:b":             "at column 19 ",
		"web=r.io/x semver 1 filter":        "at column 27 ",
		"web=r.io/x semver 1 filter (":      "at column 28 ",
		"web=r.io/x digest latest filter x": "at column 1 ",
		"web=r.io/x newest numeric filter (?P<a>.)(?P<b>.)": "at column 34 ",
	} {
		if p, err := image.Parse(text); err == nil || !strings.Contains(err.Error(), want) || cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%q: %+v, %v; want %q", text, p, err, want)
		}
	}
}

// The choice is one of the tags, none that counts is better, and order and repetition do
// not matter.
func TestLawChoice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.IntRange(0, 3)
		tag := rapid.Custom(func(t *rapid.T) string {
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				return fmt.Sprintf("%d", rapid.IntRange(0, 20).Draw(t, "n"))
			case 1:
				return fmt.Sprintf("v%d.%d.%d", part.Draw(t, "a"), part.Draw(t, "b"), part.Draw(t, "c"))
			case 2:
				return fmt.Sprintf("%d.%d.%d-rc.%d", part.Draw(t, "a"), part.Draw(t, "b"), part.Draw(t, "c"), part.Draw(t, "d"))
			case 3:
				return fmt.Sprintf("%d.%d", part.Draw(t, "a"), part.Draw(t, "b"))
			}
			return rapid.StringMatching(`[a-z0-9._-]{0,6}`).Draw(t, "any")
		})
		tags := rapid.SliceOfN(tag, 0, 20).Draw(t, "tags")
		kind := rapid.SampledFrom([]string{"semver >=1.0", "semver 1.x", "semver ~1.2.0-0", "newest numeric", "newest numeric desc", "newest alphabetical", "newest alphabetical desc", "digest 1.2"}).Draw(t, "policy")
		p, err := image.Parse("web=r.io/x " + kind)
		if err != nil {
			t.Fatal(err)
		}
		got, n, err := image.Choose(p, tags)
		if err != nil {
			t.Fatal(err)
		}
		if (got == "") != (n == 0) || got != "" && !slices.Contains(tags, got) {
			t.Fatalf("%q of %d", got, n)
		}
		mixed := append(slices.Clone(tags), tags[:len(tags)/2]...)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if again, _, _ := image.Choose(p, mixed); again != got {
			t.Fatalf("%q, and in another order %q", got, again)
		}
		for _, one := range tags {
			if alone, _, _ := image.Choose(p, []string{one}); alone == "" {
				continue
			}
			if pair, _, _ := image.Choose(p, []string{one, got}); pair != got {
				t.Fatalf("%q was chosen, and %q is better", got, one)
			}
			if p.Semver != "" && semver.MustParse(got).LessThan(semver.MustParse(one)) {
				t.Fatalf("%q was chosen, and %q is higher", got, one)
			}
		}
	})
}
