package server

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// What does not work on a node is in what it acknowledges, from which `status` has it:
// names that are not answered, nodes that are not reached, and when that is over.
func TestWhatDoesNotWorkIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		a := newAcks(st, "n1", hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = a.run(ctx) }()
		a.applied(7)
		a.named(7, nil)
		for _, c := range []struct {
			do   func()
			want string
		}{
			{func() {}, ""},
			{func() { a.unreached("node n3 is not reached") }, "node n3 is not reached"},
			{func() { a.named(0, errors.New("port 53 is taken")) }, "port 53 is taken; node n3 is not reached"},
			{func() { a.unreached("") }, "port 53 is taken"},
			{func() { a.named(7, nil) }, ""},
		} {
			c.do()
			synctest.Wait()
			e, err := st.Get(t.Context(), store.AgentAckKey("n1"))
			if err != nil {
				t.Fatal(err)
			}
			var got cluster.AgentAck
			if err := json.Unmarshal(e.Value, &got); err != nil || got.Error != c.want || got.Endpoint != 7 {
				t.Errorf("acknowledged %+v, %v; want %q", got, err, c.want)
			}
		}
	})
}
