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
