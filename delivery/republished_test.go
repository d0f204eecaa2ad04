package delivery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery"
)

// A version of a package that is published again with other content is news, and so is none
// that is another one.
func TestAVersionThatIsPublishedAgainIsNews(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	for _, tc := range []struct {
		what    string
		was, is cluster.Origin
		says    string
	}{
		{"of a repository", cluster.Origin{Ref: "shop", Revision: "1.0.0@" + a}, cluster.Origin{Ref: "shop", Revision: "1.0.0@" + b}, "1.0.0 was published again with other content: it was 1.0.0@sha256:aaaaaaaa"},
		{"of a registry", cluster.Origin{Ref: "shop 1.0.0", Revision: a}, cluster.Origin{Ref: "shop 1.0.0", Revision: b}, "1.0.0 was published again with other content: it was sha256:aaaaaaaa"},
		{"the same", cluster.Origin{Ref: "shop", Revision: "1.0.0@" + a}, cluster.Origin{Ref: "shop", Revision: "1.0.0@" + a}, ""},
		{"another version", cluster.Origin{Ref: "shop", Revision: "1.0.0@" + a}, cluster.Origin{Ref: "shop", Revision: "1.1.0@" + b}, ""},
		{"another version of a registry", cluster.Origin{Ref: "shop 1.0.0", Revision: a}, cluster.Origin{Ref: "shop 1.1.0", Revision: b}, ""},
		{"a tag that is moved", cluster.Origin{Ref: "latest", Revision: a}, cluster.Origin{Ref: "latest", Revision: b}, ""},
		{"a commit", cluster.Origin{Ref: "main", Revision: revision(1)}, cluster.Origin{Ref: "main", Revision: revision(2)}, ""},
		{"another place", cluster.Origin{URL: "x", Ref: "shop", Revision: "1.0.0@" + a}, cluster.Origin{URL: "y", Ref: "shop", Revision: "1.0.0@" + b}, ""},
		{"the first time", cluster.Origin{}, cluster.Origin{Ref: "shop", Revision: "1.0.0@" + b}, ""},
	} {
		st := cluster.DeliveryState{Seen: &tc.was}
		if tc.was.Revision == "" {
			st.Seen = nil
		}
		got := delivery.Looked(item("shop", st), delivery.Look{Origin: tc.is, Verdict: delivery.Keep}, time.Unix(100, 0))
		said := ""
		for _, e := range got.History {
			said += e.Event + ": " + e.Message
		}
		if tc.says != "" {
			tc.says = cluster.EventForced + ": " + tc.says
		}
		if said != tc.says {
			t.Errorf("%s: %q, not %q", tc.what, said, tc.says)
		}
	}
}

// A tag of Git that is moved is news as well; that a range has a newer tag is none, and a
// branch moves on with each commit.
func TestATagThatIsMovedIsNews(t *testing.T) {
	const url = "https://git.example.com/shop.git"
	seen := func(ref string, n int) cluster.Origin {
		return cluster.Origin{URL: url, Ref: ref, Revision: revision(n)}
	}
	for _, tc := range []struct {
		what    string
		src     cluster.SourceSpec
		was, is cluster.Origin
		news    bool
	}{
		{"a tag that is moved", cluster.SourceSpec{Tag: "v1"}, seen("v1", 1), seen("v1", 2), true},
		{"one that is not", cluster.SourceSpec{Tag: "v1"}, seen("v1", 1), seen("v1", 1), false},
		{"another tag", cluster.SourceSpec{Tag: "v2"}, seen("v1", 1), seen("v2", 2), false},
		{"the highest of a range that is moved", cluster.SourceSpec{Semver: "1.x"}, seen("v1.2.0", 1), seen("v1.2.0", 2), true},
		{"a newer one in a range", cluster.SourceSpec{Semver: "1.x"}, seen("v1.2.0", 1), seen("v1.3.0", 2), false},
		{"a branch", cluster.SourceSpec{Branch: "main"}, seen("main", 1), seen("main", 2), false},
		{"the repository's own branch", cluster.SourceSpec{}, seen("main", 1), seen("main", 2), false},
		{"another repository", cluster.SourceSpec{Tag: "v1"}, cluster.Origin{Ref: "v1", Revision: revision(1)}, seen("v1", 2), false},
	} {
		i := item("shop", cluster.DeliveryState{Seen: &tc.was})
		i.Spec.Source = tc.src
		i.Spec.Source.Kind, i.Spec.Source.URL = cluster.SourceGit, url
		at := time.Unix(100, 0)
		looked := delivery.Looked(i, delivery.Look{Origin: tc.is, Verdict: delivery.Keep}, at)
		missed := delivery.Missed(i, delivery.Look{Origin: tc.is}, cluster.Invalidf("it cannot be read"), at)
		for how, st := range map[string]cluster.DeliveryState{"looked": looked, "missed": missed} {
			said := ""
			for _, e := range st.History {
				if e.Event == cluster.EventForced {
					said += e.Message
				}
			}
			want := ""
			if tc.news {
				want = "the tag " + tc.is.Ref + " was moved: it was at " + cluster.ShortRevision(tc.was.Revision)
			}
			if said != want {
				t.Errorf("%s, %s: %q, not %q", tc.what, how, said, want)
			}
		}
	}
}
