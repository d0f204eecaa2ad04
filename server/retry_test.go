package server

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
)

func TestAPartThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of all that follows: the race detector knows nothing of fake time
		var out bytes.Buffer
		log := hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Error, Mutex: &mu})
		begun, reason := time.Now(), "port 80 is in use"
		var at []int // seconds since the start
		var alarms []string
		works := false
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- keepUp(ctx, time.Now, log, "gateway", func(ctx context.Context) error {
				mu.Lock()
				at = append(at, int(time.Since(begun).Seconds()))
				works, reason := works, reason
				mu.Unlock()
				if works {
					select {
					case <-ctx.Done():
					case <-time.After(time.Minute):
					}
				}
				if reason == "" {
					return nil
				}
				return errors.New(reason)
			}, func(_ context.Context, reason string) {
				mu.Lock()
				defer mu.Unlock()
				alarms = append(alarms, reason)
			})
		}()
		pass := func(d time.Duration) { // lets d go by, and comes back with the lock
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		pass(92 * time.Second)
		if want := []int{0, 1, 3, 7, 15, 31, 61, 91}; !slices.Equal(at, want) {
			t.Errorf("tried at %v, not %v", at, want)
		}
		if n := strings.Count(out.String(), "port 80 is in use"); n != 1 || len(alarms) != len(at) {
			t.Errorf("logged %d times, %d alarms:\n%s", n, len(alarms), out.String())
		}
		reason = "no Traefik"
		pass(time.Minute)
		if n := strings.Count(out.String(), "no Traefik"); n != 1 || alarms[len(alarms)-1] != "no Traefik" {
			t.Errorf("another reason was logged %d times:\n%s", n, out.String())
		}
		// It works for a minute, and then ends: the next try is soon.
		works, reason, at = true, "", nil
		pass(30*time.Second + time.Minute + 2*time.Second)
		if len(at) != 2 || at[1]-at[0] != 61 || alarms[len(alarms)-1] == "" {
			t.Errorf("tried at %v after it had worked; %q", at, alarms[len(alarms)-1])
		}
		mu.Unlock()
		gone := errors.New("gone")
		cancel(gone)
		if err := <-done; !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

// A first start waits for an embedded etcd on a busy disk, and for nothing else.
func TestFirstStartWaitsForItsOwnStore(t *testing.T) {
	slow, wrong, gone := cluster.Transientf("etcd is slow"), cluster.Invalidf("not this cluster's"), errors.New("gone")
	for name, c := range map[string]struct {
		etcd  string
		says  []error // one after the other
		ends  error   // of etcd, while it is asked
		want  error
		asked int
	}{
		"slow":                  {etcd: "https://10.0.0.1:2379", says: []error{slow, slow, nil}, asked: 3},
		"wrong":                 {etcd: "https://10.0.0.1:2379", says: []error{slow, wrong}, want: wrong, asked: 2},
		"ends":                  {etcd: "https://10.0.0.1:2379", says: []error{slow, slow, slow}, ends: gone, want: gone, asked: 1},
		"external, may be none": {says: []error{slow}, want: slow, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{local: local{Config: Config{DataDir: t.TempDir(), Log: hclog.NewNullLogger()}}, etcd: c.etcd}
			synctest.Test(t, func(t *testing.T) {
				ended, asked := make(chan error, 1), 0
				if c.ends != nil {
					ended <- c.ends
				}
				err := m.insist(t.Context(), ended, func(context.Context) error {
					asked++
					return c.says[asked-1]
				})
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || asked != c.asked {
					t.Errorf("%v after %d, want %v after %d", err, asked, c.want, c.asked)
				}
			})
		})
	}
}
