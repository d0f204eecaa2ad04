package secrets

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

func TestGenerate(t *testing.T) {
	seen := map[string]bool{}
	letters := map[byte]int{}
	for range 200 {
		s, err := Generate(32)
		if err != nil {
			t.Fatal(err)
		}
		v := string(s.Reveal())
		if len(v) != 32 || seen[v] {
			t.Fatalf("a value of %d characters, seen before: %v", len(v), seen[v])
		}
		seen[v] = true
		for _, c := range []byte(v) {
			if strings.IndexByte(alphabet, c) < 0 {
				t.Fatalf("character %q", c)
			}
			letters[c]++
		}
	}
	for _, c := range []byte(alphabet) { // 100 each on average
		if letters[c] < 40 || letters[c] > 180 {
			t.Errorf("%q came %d times", c, letters[c])
		}
	}
	for _, n := range []int{0, -1, 5000} {
		if _, err := Generate(n); cluster.KindOf(err) != cluster.KindInvalid {
			t.Errorf("%d characters: %v", n, err)
		}
	}
}

func TestSealPayload(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.Payload{Secrets: map[string][]byte{"db": []byte("hunter2\x00\xff")}, Configs: map[string][]byte{"c": []byte("x=1")}}
	b, err := SealPayload(want, id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("hunter2")) || bytes.Contains(b, []byte("aHVudGVy")) {
		t.Error("the value is in the sealed payload")
	}
	r, err := age.Decrypt(bytes.NewReader(b), id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cluster.DecodePayload(r)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := SealPayload(want, "ssh-rsa nonsense"); cluster.KindOf(err) != cluster.KindInvalid || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("another kind of key: %v", err)
	}
}

type resolveFunc func(cluster.SecretRecord) (cluster.Secret, error)

func (f resolveFunc) Resolve(_ context.Context, r cluster.SecretRecord) (cluster.Secret, error) {
	return f(r)
}

func TestProviders(t *testing.T) {
	p := Providers{
		"good": resolveFunc(func(cluster.SecretRecord) (cluster.Secret, error) { return cluster.NewSecret([]byte("v")), nil }),
		"bad": resolveFunc(func(cluster.SecretRecord) (cluster.Secret, error) {
			return cluster.Secret{}, cluster.Transientf("away")
		}),
	}
	rec := func(provider string) cluster.SecretRecord {
		return cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Provider: provider}
	}
	if v, err := p.Resolve(t.Context(), rec("good")); err != nil || string(v.Reveal()) != "v" {
		t.Error(err)
	}
	if _, err := p.Resolve(t.Context(), rec("bad")); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "shop/db") {
		t.Error(err)
	}
	if _, err := p.Resolve(t.Context(), rec("none")); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), `"none"`) {
		t.Error(err)
	}
}

type brokenKeeper struct{}

func (brokenKeeper) Seal([]byte, string) ([]byte, error) { return nil, errors.New("no key") }
func (brokenKeeper) Open([]byte, string) ([]byte, error) { return nil, errors.New("no key") }

func TestSealRecordFails(t *testing.T) {
	rec := cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Version: 1}
	if _, err := SealRecord(brokenKeeper{}, rec, cluster.NewSecret([]byte("hunter2"))); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}
