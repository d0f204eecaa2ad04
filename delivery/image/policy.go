package image

import (
	"math/big"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/Masterminds/semver/v3"

	"github.com/fairlead/fairlead/cluster"
)

// Usage is how a policy is written.
const Usage = "NAME=REPOSITORY semver RANGE | newest numeric|alphabetical [desc] | digest TAG [filter REGEXP]"

// Parse reads a policy as people write it. A refusal says where.
func Parse(text string) (cluster.ImagePolicy, error) {
	var p cluster.ImagePolicy
	bad := func(at int, format string, args ...any) (cluster.ImagePolicy, error) {
		at = min(at, len(text))
		return p, cluster.Invalidf("at column %d of %q: %w", utf8.RuneCountInString(text[:at])+1, text, cluster.Invalidf(format, args...))
	}
	i := strings.IndexByte(text, '=')
	if i < 1 {
		return bad(0, "write %s", Usage)
	}
	p.Name = text[:i]
	at := i + 1
	word := func() (string, int) {
		for at < len(text) && text[at] == ' ' {
			at++
		}
		begin := at
		for at < len(text) && text[at] != ' ' {
			at++
		}
		return text[begin:at], begin
	}
	repoAt := at
	p.Repository, _ = word()
	rest, filter, filtered := cutWord(text, at, "filter")
	kind, kindAt := word()
	value := strings.TrimSpace(text[min(at, rest):rest])
	if filtered {
		p.Filter = strings.TrimSpace(text[filter:])
		if p.Filter == "" {
			return bad(filter, "filter needs a regular expression")
		}
		if err := checkFilter(p.Filter); err != nil {
			return bad(filter+1, "%w", err)
		}
	}
	switch kind {
	case "semver":
		if _, err := semver.NewConstraint(value); err != nil || value == "" {
			return bad(at+1, "%q is no range of versions: ^1.2, 1.x, >=1.4 <2", value)
		}
		p.Semver = value
	case "newest":
		p.Newest, kindAt = word()
		if p.Newest != cluster.NewestNumeric && p.Newest != cluster.NewestAlphabetical {
			return bad(kindAt, "newest numeric or newest alphabetical, not %q", p.Newest)
		}
		if at < rest {
			if more, moreAt := word(); moreAt < rest && more != "" {
				if more != "desc" {
					return bad(moreAt, "%q is not understood: desc takes the least, and filter REGEXP narrows", more)
				}
				p.Desc = true
			}
		}
		if tail := strings.TrimSpace(text[min(at, rest):rest]); tail != "" {
			return bad(at+1, "%q is not understood", tail)
		}
	case "digest":
		p.Digest = value
		if !cluster.ValidTag(value) {
			return bad(at+1, "%q is no tag to follow", value)
		}
	default:
		return bad(kindAt, "%q is no policy: semver, newest or digest", kind)
	}
	if err := p.Validate(); err != nil {
		where := 0
		if strings.Contains(err.Error(), "repository") {
			where = repoAt
		}
		return bad(where, "%w", err)
	}
	return p, nil
}

// cutWord finds a word after from: the text ends at end, and goes on after it at next.
func cutWord(text string, from int, word string) (end, next int, found bool) {
	i := strings.Index(text[from:]+" ", " "+word+" ")
	if i < 0 {
		return len(text), len(text), false
	}
	return from + i, min(len(text), from+i+1+len(word)), true
}

func checkFilter(expr string) error {
	re, err := regexp.Compile(expr)
	if err != nil {
		return cluster.Invalidf("%w", err)
	}
	if len(named(re)) > 1 {
		return cluster.Invalidf("the expression has several named groups: one is compared")
	}
	return nil
}

func named(re *regexp.Regexp) []int {
	var out []int
	for i, n := range re.SubexpNames() {
		if n != "" {
			out = append(out, i)
		}
	}
	return out
}

// Check refuses a policy whose range or expression cannot be read.
func Check(p cluster.ImagePolicy) error {
	if p.Semver != "" {
		if _, err := semver.NewConstraint(p.Semver); err != nil {
			return cluster.Invalidf("image policy %s: %q is no range of versions: %w", p.Name, p.Semver, err)
		}
	}
	if err := checkFilter(p.Filter); err != nil {
		return cluster.Invalidf("image policy %s: filter: %w", p.Name, err)
	}
	return nil
}

// Choose returns the tag that a policy asks for, and how many it was chosen from. What is
// no version, or no number, does not count. Without a choice the tag is "".
func Choose(p cluster.ImagePolicy, tags []string) (tag string, matching int, err error) {
	if err := Check(p); err != nil {
		return "", 0, err
	}
	var filter *regexp.Regexp
	group := 0
	if p.Filter != "" {
		filter = regexp.MustCompile(p.Filter)
		if g := named(filter); len(g) > 0 {
			group = g[0]
		}
	}
	better := judge(p)
	for _, t := range tags {
		if !cluster.ValidTag(t) {
			continue
		}
		compared := t
		if filter != nil {
			m := filter.FindStringSubmatch(t)
			if m == nil {
				continue
			}
			if group > 0 {
				compared = m[group]
			}
		}
		counts, wins := better(t, compared)
		if counts {
			matching++
		}
		if wins {
			tag = t
		}
	}
	return tag, matching, nil
}

// judge says of one tag after another whether it counts, and is better than all before.
func judge(p cluster.ImagePolicy) func(tag, compared string) (counts, wins bool) {
	best := ""
	switch {
	case p.Digest != "":
		return func(tag, _ string) (bool, bool) { return tag == p.Digest, tag == p.Digest }
	case p.Semver != "":
		within, _ := semver.NewConstraint(p.Semver) // checked
		var highest *semver.Version
		return func(tag, compared string) (bool, bool) {
			v := Version(compared)
			if v == nil || !within.Check(v) {
				return false, false
			}
			if highest != nil && (v.LessThan(highest) || v.Equal(highest) && !plainer(tag, best)) {
				return true, false
			}
			highest, best = v, tag
			return true, true
		}
	case p.Newest == cluster.NewestNumeric:
		var greatest *big.Rat
		return func(tag, compared string) (bool, bool) {
			if !numberRE.MatchString(compared) {
				return false, false
			}
			n, ok := new(big.Rat).SetString(compared)
			if !ok {
				return false, false
			}
			if greatest != nil {
				c := n.Cmp(greatest)
				if p.Desc {
					c = -c
				}
				if c < 0 || c == 0 && !plainer(tag, best) {
					return true, false
				}
			}
			greatest, best = n, tag
			return true, true
		}
	}
	last, any := "", false
	return func(tag, compared string) (bool, bool) {
		if any {
			c := strings.Compare(compared, last)
			if p.Desc {
				c = -c
			}
			if c < 0 || c == 0 && !plainer(tag, best) {
				return true, false
			}
		}
		any, last, best = true, compared, tag
		return true, true
	}
}

// plainer decides between tags that mean the same: the longer is moved less often (1.4 is
// moved to 1.4.1, 1.4.0 is not).
func plainer(a, b string) bool {
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a < b
}

var (
	// A number alone is more often a date or a build than a version.
	versionRE = regexp.MustCompile(`^v?[0-9]+\.[0-9]+(\.[0-9]+)?(-|\+|$)`)
	numberRE  = regexp.MustCompile(`^[0-9]{1,100}(\.[0-9]{1,100})?$`)
)

// Version is what a tag of two or three numbers says, nil for any other.
func Version(s string) *semver.Version {
	if !versionRE.MatchString(s) {
		return nil
	}
	v, err := semver.NewVersion(s)
	if err != nil {
		return nil
	}
	return v
}
