package control

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func TestAGatewayThatCannotRunSaysWhy(t *testing.T) {
	st := store.NewMemory()
	g := GatewayStore{Store: store.Guarded(st, store.WriterGateway)}
	read := func() (a cluster.GatewayAck) {
		t.Helper()
		e, err := st.Get(t.Context(), store.GatewayAckKey("n1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(e.Value, &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	if err := g.Fail(t.Context(), "n1", "port 80 is in use"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(cluster.GatewayAck{Node: "n1", Error: "port 80 is in use"}, read()); d != "" {
		t.Error(d)
	}
	if err := g.Ack(t.Context(), cluster.GatewayAck{Node: "n1", Route: 7, Traefik: "3.6"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Fail(t.Context(), "n1", "no nft"); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(cluster.GatewayAck{Node: "n1", Route: 7, Traefik: "3.6", Error: "no nft"}, read()); d != "" {
		t.Error(d)
	}
	for range 2 {
		if err := g.Retire(t.Context(), "n1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := st.Get(t.Context(), store.GatewayAckKey("n1")); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("retired: %v", err)
	}
}
