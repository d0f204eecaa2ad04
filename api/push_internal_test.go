package api

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func pushNode(id, arch string, alive bool, a cluster.Availability) cluster.Node {
	return cluster.Node{
		NodeSpec: cluster.NodeSpec{ID: cluster.NodeID(id), Availability: a}, Alive: alive,
		Info: cluster.NodeInfo{ID: cluster.NodeID(id), OS: "linux", Arch: arch},
	}
}

func TestPushTargets(t *testing.T) {
	nodes := []cluster.Node{
		pushNode("arm", "arm64", true, cluster.Active), pushNode("away", "amd64", false, cluster.Active),
		pushNode("n1", "amd64", true, cluster.Active), pushNode("n2", "amd64", true, ""),
		pushNode("paused", "amd64", true, cluster.Pause),
	}
	for _, c := range []struct {
		name    string
		named   []cluster.NodeID
		to      []cluster.NodeID
		skipped string // nodes
		err     string
	}{
		{name: "all that take tasks", to: []cluster.NodeID{"n1", "n2"}, skipped: "arm away paused"},
		{name: "one", named: []cluster.NodeID{"n2"}, to: []cluster.NodeID{"n2"}},
		{name: "one that takes no tasks", named: []cluster.NodeID{"paused"}, to: []cluster.NodeID{"paused"}},
		{name: "one of another platform", named: []cluster.NodeID{"n1", "arm"}, err: "linux/arm64"},
		{name: "one that is away", named: []cluster.NodeID{"away"}, err: "does not answer"},
		{name: "one that is not there", named: []cluster.NodeID{"n1", "n9"}, err: `no node "n9"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			to, skipped, err := pushTargets(nodes, v1.ImagePush{Ref: "a:1", OS: "linux", Arch: "amd64", Nodes: c.named})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			var left []string
			for _, s := range skipped {
				left = append(left, string(s.Node))
			}
			if err != nil || !slices.Equal(to, c.to) || strings.Join(left, " ") != c.skipped {
				t.Errorf("%v, not %v: %v", to, left, err)
			}
		})
	}
}

// A built image goes to nodes of its platform that take tasks, the next by name first;
// those that are away are told.
func TestSparesOfABuilder(t *testing.T) {
	nodes := []cluster.Node{
		pushNode("a", "amd64", true, cluster.Active), pushNode("b", "x86_64", true, ""), pushNode("c", "amd64", false, cluster.Active),
		pushNode("d", "amd64", true, cluster.Pause), pushNode("e", "amd64", true, cluster.Active),
		pushNode("f", "arm64", true, cluster.Active), pushNode("g", "arm64", true, cluster.Active),
	}
	for _, c := range []struct {
		builder  cluster.NodeID
		platform string
		want     string
	}{
		{"a", "", "b e, away c"},
		{"b", "", "e a, away c"},
		{"e", "", "a b, away c"},
		{"d", "", "e a b, away c"}, // one that takes no tasks may build
		{"f", "", "g, away "},
		{"a", "linux/arm64/v8", "f g, away "},
		{"a", "linux/amd64", "b e, away c"},
		{"a", "linux/riscv64", ", away "},
	} {
		to, away := spares(nodes, c.builder, c.platform)
		var got, gone []string
		for _, n := range to {
			got = append(got, string(n))
		}
		for _, s := range away {
			gone = append(gone, string(s.Node))
		}
		if s := strings.Join(got, " ") + ", away " + strings.Join(gone, " "); s != c.want {
			t.Errorf("built on %s for %q: %s; want %s", c.builder, c.platform, s, c.want)
		}
	}
}

// What the client has least to send to goes first; then names decide.
func TestTheNodeThatLacksLeastTakesAPush(t *testing.T) {
	layers := func(n int) cluster.ImageHave { return cluster.ImageHave{Layers: n} }
	want := []candidate{
		{node: "z", present: true},
		{node: "y", have: layers(3)},
		{node: "a", have: layers(1)},
		{node: "x", have: cluster.ImageHave{Blobs: []string{"b"}}},
		{node: "b"},
		{node: "c"},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, lacksLess)
	for i := range want {
		if got[i].node != want[i].node {
			t.Errorf("%d: %s, not %s", i, got[i].node, want[i].node)
		}
	}
}

// stockedHost is a node with an image, or without, whose layers may vanish.
type stockedHost struct {
	ImageHost
	id     string
	have   cluster.ImageHave
	loaded []string
	refuse string // what Load refuses
	tagged string
	goes   bool // its image is removed before it can be given a name

	content, sent string // of the image that it has, and of what comes
}

func (h *stockedHost) Identity(context.Context, string) (cluster.ImageIdentity, error) {
	if h.id == "" {
		return cluster.ImageIdentity{}, cluster.NotFoundf("no image")
	}
	return cluster.ImageIdentity{ID: h.id, Content: h.content}, nil
}

func (h *stockedHost) ImageLayers(context.Context, string) ([]string, error) {
	return []string{"1", "2"}, nil
}

func (h *stockedHost) Have(context.Context, []string) (cluster.ImageHave, error) { return h.have, nil }

func (h *stockedHost) Save(_ context.Context, _ string, have cluster.ImageHave) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("12"[have.Layers:])), nil
}

func (h *stockedHost) Tag(_ context.Context, id, ref string) error {
	if h.goes {
		return cluster.NotFoundf("no image")
	}
	h.tagged += id + " " + ref
	return nil
}

func (h *stockedHost) Load(_ context.Context, tar io.Reader, want cluster.ImageWant) error {
	b, err := io.ReadAll(tar)
	h.loaded = append(h.loaded, string(b))
	if want.Content != "" && want.Content != h.sent {
		return cluster.Invalidf("another image was sent")
	}
	if string(b) == h.refuse {
		return errors.New("no layer 1")
	}
	return err
}

func TestCopyImage(t *testing.T) {
	from := &stockedHost{id: "x"}
	for _, c := range []struct {
		name   string
		to     stockedHost
		want   string // content
		loaded string
		bytes  int64
		fails  bool
		tagged string // so that the node does not take it for its own
	}{
		{name: "nothing there", loaded: "12", bytes: 2},
		{name: "a layer there", to: stockedHost{id: "old", have: cluster.ImageHave{Layers: 1}}, loaded: "2", bytes: 1},
		{name: "a layer that vanishes", to: stockedHost{have: cluster.ImageHave{Layers: 1}, refuse: "2"}, loaded: "2 12", bytes: 3},
		{name: "the image there", to: stockedHost{id: "x"}, tagged: "x a:1"},
		{name: "the image was there", to: stockedHost{id: "x", goes: true}, loaded: "12", bytes: 2},
		{name: "an image of that ID that is another", to: stockedHost{id: "x", content: "evil", sent: "good"}, want: "good", loaded: "12", bytes: 2},
		{name: "another image is sent, and not once more", to: stockedHost{have: cluster.ImageHave{Layers: 1}, sent: "evil"}, want: "good", loaded: "2", bytes: 1, fails: true},
		{name: "a node that takes none", to: stockedHost{refuse: "12"}, loaded: "12", bytes: 2, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := copyImage(t.Context(), from, &c.to, cluster.ImageWant{Ref: "a:1", Content: c.want})
			if got := strings.Join(c.to.loaded, " "); got != c.loaded || c.to.tagged != c.tagged || n != c.bytes || (err != nil) != c.fails {
				t.Errorf("took %q, %d bytes, tagged %q: %v", got, n, c.to.tagged, err)
			}
		})
	}
}

func TestKeepImage(t *testing.T) {
	h := &stockedHost{id: "x"}
	if err := keepImage(t.Context(), h, "a:1"); err != nil || h.tagged != "x a:1" {
		t.Errorf("%q, %v", h.tagged, err)
	}
	if err := keepImage(t.Context(), &stockedHost{}, "a:1"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("an image that is gone: %v", err)
	}
}
