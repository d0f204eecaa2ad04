package api_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func TestTokens(t *testing.T) {
	b := newBench(t)
	made, err := b.CreateToken(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	if made.Name != "ci" || made.By != "ann" || len(made.Value) < 40 {
		t.Errorf("made %+v", made)
	}
	other, err := client.New(client.Options{URL: b.url, Token: made.Value})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	if _, err := other.Apps(t.Context()); err != nil {
		t.Errorf("the new token is refused: %v", err)
	}
	if _, err := b.CreateToken(t.Context(), "ci"); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("a second token of the same name: %v", err)
	}
	entries, _, err := b.store.List(t.Context(), store.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Key+string(e.Value), made.Value) {
			t.Errorf("%s holds the token in clear", e.Key)
		}
	}
	if strings.Contains(b.log.String(), made.Value) {
		t.Error("the log holds the token in clear")
	}
	if list, err := b.Tokens(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("list = %v, %v, want ann and ci", list, err)
	}
	if err := b.RemoveToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	b.await(func() bool { _, err := other.Apps(t.Context()); return cluster.KindOf(err) == cluster.KindForbidden })
	if err := b.RemoveToken(t.Context(), "ci"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("removing it again: %v", err)
	}
}
