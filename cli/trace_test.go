package cli_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// What a container is made of is named by what it was pulled by, and by its engine's ID,
// which says that it is one, where there is nothing else: nodes of older versions say no digest.
func TestTraceNamesTheDigest(t *testing.T) {
	h := newHub(t)
	withFront(h)
	id := cluster.ServiceID{App: "store", Name: "front"}
	task := cluster.NewTaskID(id, 1, 1, 1, "")
	says := func(imageID, digest string) {
		st, ok := read[cluster.Status](h, store.StatusKey("n1", task))
		if !ok {
			t.Fatal("no status")
		}
		st.ImageID, st.ImageDigest = imageID, digest
		h.put(store.StatusKey("n1", task), st)
	}
	const pulled = "registry.test/front@sha256:1234"
	for _, c := range []struct{ imageID, digest, want string }{
		{"", "", ""},
		{"sha256:abcd", "", "none of a registry; on n1 it has the image ID sha256:abcd"},
		{"sha256:abcd", pulled, pulled},
	} {
		says(c.imageID, c.digest)
		got := ""
		for line := range strings.Lines(h.must("", "trace", "store/front").out) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "digest"); ok {
				got = strings.TrimSpace(value)
			}
		}
		if got != c.want {
			t.Errorf("trace says of %q, pulled by %q: %q, not %q", c.imageID, c.digest, got, c.want)
		}
	}
	for _, args := range [][]string{{"trace", "store/front", "-o", "json"}, {"inspect", "store/front.1"}, {"ps", "store", "-o", "wide"}} {
		if out := h.must("", args...).out; !strings.Contains(out, pulled) {
			t.Errorf("%s does not say it:\n%s", strings.Join(args, " "), out)
		}
	}
}

// A version that does not become healthy does not run: what does is led back to its own release.
func TestTraceSaysWhatRuns(t *testing.T) {
	h := newHub(t)
	const file = "name: shop\nservices: {web: {image: \"shop/web:%s\"}}\n"
	h.deploy(fmt.Sprintf(file, "good"))
	h.run("shop", "web")
	h.deploy(fmt.Sprintf(file, "bad"))
	out := strings.Join(strings.Fields(h.must("", "trace", "shop/web").out), " ")
	if !strings.Contains(out, "shop/web:good") {
		t.Fatalf("no task of the first version:\n%s", out)
	}
	task, wanted, _ := strings.Cut(out, " service shop/web ")
	if !strings.Contains(task, " release 1, ") || !strings.HasPrefix(wanted, "release 2, ") {
		t.Errorf("trace says\n%s", out)
	}
}
