package server

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets/sealed"
	"github.com/fairlead/fairlead/store"
)

func TestAStoreBelongsToOneCluster(t *testing.T) {
	key := func(b byte) *sealed.Key {
		k, err := sealed.NewKey(bytes.Repeat([]byte{b}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	st := store.Guarded(store.NewMemory(), store.WriterServer)
	first := &machine{local: local{cluster: "aaaa"}, key: key(1)}
	for range 2 { // an empty store is claimed, and found claimed at the next start
		if err := first.claimStore(t.Context(), st); err != nil {
			t.Fatal(err)
		}
	}
	// One that joined finds a store that others have claimed.
	if err := (&machine{local: local{cluster: "aaaa"}, key: key(1), settings: &settings{}}).claimStore(t.Context(), st); err != nil {
		t.Error(err)
	}
	empty := store.Guarded(store.NewMemory(), store.WriterServer)
	if err := (&machine{local: local{cluster: "aaaa"}, key: key(1), settings: &settings{}}).claimStore(t.Context(), empty); err == nil || !strings.Contains(err.Error(), "holds no cluster") {
		t.Errorf("an empty store is claimed by a server that joined: %v", err)
	}
	for want, m := range map[string]*machine{
		"holds cluster aaaa": {local: local{cluster: "bbbb"}, key: key(1)},
		"is not the key":     {local: local{cluster: "aaaa"}, key: key(2)},
	} {
		err := m.claimStore(t.Context(), st)
		if err == nil || !strings.Contains(err.Error(), want) || cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("error %v, want one of kind invalid with %q", err, want)
		}
	}
}
