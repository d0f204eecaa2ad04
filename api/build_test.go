package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// A server that was just started answers before its own node does: a build waits
// for it.
func TestBuildWaitsForANode(t *testing.T) {
	b := newBench(t)
	rev, err := b.store.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: store.AliveKey("n1"), Delete: true}}})
	if err != nil {
		t.Fatal(err)
	}
	b.await(func() bool {
		st, err := b.Status(t.Context())
		return err == nil && st.StoreRev >= rev
	})
	done := make(chan error, 1)
	go func() {
		var out bytes.Buffer
		_, err := b.Build(t.Context(), v1.BuildOptions{App: "shop", Service: "web"}, strings.NewReader("tar"), &out)
		done <- err
	}()
	b.put(store.AliveKey("n1"), true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// other is a node that takes images.
type other struct {
	api.ImageHost
	taken   string
	refuses error
}

func (o *other) Identity(context.Context, string) (cluster.ImageIdentity, error) {
	return cluster.ImageIdentity{}, cluster.NotFoundf("no image")
}

func (o *other) Have(context.Context, []string) (cluster.ImageHave, error) {
	return cluster.ImageHave{}, nil
}

func (o *other) Load(_ context.Context, tar io.Reader, _ cluster.ImageWant) error {
	b, err := io.ReadAll(tar)
	if o.refuses == nil {
		o.taken = string(b)
	}
	return errors.Join(err, o.refuses)
}

// What was built is on a second node before it is deployed: the next one that takes it.
// That none does is told, and fails no build.
func TestWhatIsBuiltIsOnASecondNode(t *testing.T) {
	const ref = "fairlead/shop-web:0123456789ab"
	sent := int64(len(ref))
	full := errors.New("the disk is full")
	for name, c := range map[string]struct {
		n2, n3 *other // nil: not in the cluster
		away   string
		want   *v1.BuildCopy
		on     string // who has it
	}{
		"a cluster of one":       {},
		"two":                    {n2: &other{}, want: &v1.BuildCopy{Node: "n2", Bytes: sent}, on: "n2"},
		"three":                  {n2: &other{}, n3: &other{}, want: &v1.BuildCopy{Node: "n2", Bytes: sent}, on: "n2"},
		"the first refuses it":   {n2: &other{refuses: full}, n3: &other{}, want: &v1.BuildCopy{Node: "n3", Bytes: sent}, on: "n3"},
		"the only other refuses": {n2: &other{refuses: full}, want: &v1.BuildCopy{Error: "n2: the disk is full"}},
		"the only other is away": {n2: &other{}, away: "n2", want: &v1.BuildCopy{Error: "n2: it does not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.host.at = map[cluster.NodeID]api.ImageHost{}
			for id, o := range map[cluster.NodeID]*other{"n2": c.n2, "n3": c.n3} {
				if o == nil {
					continue
				}
				b.host.at[id] = o
				b.put(store.NodeInfoKey(id), cluster.NodeInfo{ID: id})
				if string(id) != c.away {
					b.put(store.AliveKey(id), true)
				}
			}
			var out bytes.Buffer
			res, err := b.Build(t.Context(), v1.BuildOptions{App: "shop", Service: "web"}, strings.NewReader("tar"), &out)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, res.Copy); d != "" {
				t.Error(d)
			}
			// Whoever needs it by that name can tell whether another node sends it.
			var rec cluster.ImageRecord
			e, err := b.store.Get(t.Context(), store.ImageKey(ref))
			if err == nil {
				err = json.Unmarshal(e.Value, &rec)
			}
			if err != nil || rec.ID != res.ID || rec.Content != "what runs of "+res.ID || rec.By == "" {
				t.Errorf("it is noted as %+v, %v", rec, err)
			}
			for id, o := range map[string]*other{"n2": c.n2, "n3": c.n3} {
				want := ""
				if id == c.on {
					want = ref
				}
				if o != nil && o.taken != want {
					t.Errorf("%s took %q, should have taken %q", id, o.taken, want)
				}
			}
			if c.on != "" && !strings.Contains(out.String(), "copies the image to "+c.on) {
				t.Errorf("its progress does not say so: %s", &out)
			}
		})
	}
}

// Of more images than are noted the oldest are forgotten, but for those that tasks need.
func TestImagesOfTasksStayNoted(t *testing.T) {
	const most = 1000
	b := newBench(t)
	name := func(i int) string { return fmt.Sprintf("shop/web:%04d", i) }
	for i := range most + 1 { // and a task needs one of them
		b.put(store.ImageKey(name(i)), cluster.ImageRecord{Ref: name(i), Content: "c", At: time.Unix(int64(i), 0)})
	}
	b.put(store.PlacementKey("n1", "shop_web.1.x"), cluster.NodePlacement{Task: "shop_web.1.x", Node: "n1", Spec: cluster.TaskSpec{Image: name(0)}})
	if _, err := b.Build(t.Context(), v1.BuildOptions{App: "shop", Service: "web"}, strings.NewReader("tar"), io.Discard); err != nil {
		t.Fatal(err)
	}
	there := func(ref string) bool {
		_, err := b.store.Get(t.Context(), store.ImageKey(ref))
		return err == nil
	}
	if !there(name(0)) || there(name(1)) || !there(name(2)) || !there("fairlead/shop-web:0123456789ab") {
		t.Errorf("a task's is there: %v, the oldest: %v, the next: %v, the new one: %v", there(name(0)), there(name(1)), there(name(2)), there("fairlead/shop-web:0123456789ab"))
	}
}
