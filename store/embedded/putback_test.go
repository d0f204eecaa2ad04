package embedded_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/embedded/etcdtest"
)

// An operator puts the store back to an older state: whoever follows it, and asks for
// nothing meanwhile, is told of that state and of what changes from then on. A revision
// that was one change's before is another's now.
func TestAStoreThatIsPutBackIsFollowed(t *testing.T) {
	t.Parallel()
	srv := etcdtest.New(t)
	stop := srv.Start(t)
	t.Cleanup(func() { _ = stop() })
	follower, writer := srv.Client(t), srv.Client(t)
	put(t, writer, "app", "older")
	_ = stop()
	older := t.TempDir()
	copyTo := func(from, to string) {
		t.Helper()
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	copyTo(srv.Config.Dir, older)

	stop = srv.Start(t)
	m := store.NewMirror(follower, "app", hclog.NewNullLogger())
	go func() { _ = m.Run(t.Context()) }()
	<-m.Ready()
	says := func(want map[string]string) {
		t.Helper()
		var got map[string]string
		for end := time.After(90 * time.Second); ; {
			changed := m.Changed()
			got = map[string]string{}
			m.Read(func(v store.View) {
				for _, k := range v.Keys("") {
					e, _ := v.Entry(k)
					got[k] = string(e.Value)
				}
			})
			if fmt.Sprint(got) == fmt.Sprint(want) {
				return
			}
			select {
			case <-changed:
			case <-end:
				t.Fatalf("it says %v, want %v", got, want)
			}
		}
	}
	put(t, writer, "app", "newer 0")
	lost := put(t, writer, "app/lost", "of the lost history")
	for i := range 50 {
		put(t, writer, "app", fmt.Sprintf("newer %d", i))
	}
	says(map[string]string{"app": "newer 49", "app/lost": "of the lost history"})

	_ = stop()
	copyTo(older, srv.Config.Dir)
	stop = srv.Start(t)
	says(map[string]string{"app": "older"})
	put(t, writer, "app", "since")
	if again := put(t, writer, "app/lost", "of the history since"); again != lost {
		t.Errorf("the revision is %d, and was %d: the test is for one that comes again", again, lost)
	}
	says(map[string]string{"app": "since", "app/lost": "of the history since"})
}
