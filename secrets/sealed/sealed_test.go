package sealed

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
)

func key(t *testing.T, b byte) *Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealOpens(t *testing.T) {
	k := key(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(rt, "plain")
		ctx := rapid.String().Draw(rt, "context")
		s, err := k.Seal(plain, ctx)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := k.Open(s, ctx)
		if err != nil || !bytes.Equal(got, plain) {
			rt.Fatal(got, err)
		}
		if len(plain) >= 4 && bytes.Contains(s, plain) {
			rt.Fatal("the value is in what was sealed")
		}
		i := rapid.IntRange(0, len(s)-1).Draw(rt, "byte")
		s[i] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		if _, err := k.Open(s, ctx); cluster.KindOf(err) != cluster.KindInvalid {
			rt.Fatal("a changed bit went unnoticed:", err)
		}
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	k := key(t, 1)
	s, err := k.Seal([]byte("hunter2"), "secret/shop/db/1")
	if err != nil {
		t.Fatal(err)
	}
	future := bytes.Clone(s)
	future[0] = 9
	for _, c := range []struct {
		name    string
		k       *Key
		sealed  []byte
		context string
		want    string
	}{
		{"another key", key(t, 2), s, "secret/shop/db/1", "secrets.key"},
		{"moved to another name", k, s, "secret/shop/web/1", "belongs to something else"},
		{"moved to another version", k, s, "secret/shop/db/2", "belongs to something else"},
		{"cut", k, s[:len(s)-1], "secret/shop/db/1", "was changed"},
		{"cut to nothing", k, nil, "secret/shop/db/1", "cut short"},
		{"of the future", k, future, "secret/shop/db/1", "format 9"},
	} {
		_, err := c.k.Open(c.sealed, c.context)
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(fmt.Sprint(err), c.want) || !strings.Contains(fmt.Sprint(err), c.context) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := k.Seal(make([]byte, secrets.MaxSecret+1), "x"); cluster.KindOf(err) != cluster.KindInvalid {
		t.Errorf("too large: %v", err)
	}
}

func TestRecords(t *testing.T) {
	k := key(t, 1)
	rec := cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Version: 3, Provider: "x", Ref: "y"}
	rec, err := secrets.SealRecord(k, rec, cluster.NewSecret([]byte("hunter2")))
	if err != nil || rec.Provider != secrets.ProviderSealed || rec.Ref != "" {
		t.Fatal(rec, err)
	}
	v, err := k.Resolve(t.Context(), rec)
	if err != nil || string(v.Reveal()) != "hunter2" {
		t.Fatal(err)
	}
	rec.Version = 2 // an old record over a new one
	if _, err := k.Resolve(t.Context(), rec); err == nil {
		t.Error("a value moved to another version opens")
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.key")
	if _, err := Load(path); err == nil {
		t.Fatal("loaded a file that is not there")
	}
	// Several at once agree on one key.
	var wg sync.WaitGroup
	keys := make([]*Key, 8)
	for i := range keys {
		wg.Go(func() {
			k, err := LoadOrCreate(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = k
		})
	}
	wg.Wait()
	s, err := keys[0].Seal([]byte("v"), "c")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if _, err := k.Open(s, "c"); err != nil {
			t.Error(err)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o600 {
		t.Error(st.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) != 0 {
		t.Error("left behind:", left, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(path); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "chmod 600") {
		t.Error("a file that others read:", err)
	}
	for name, text := range map[string]string{
		"empty": "", "no prefix": "AAAA", "not base64": filePrefix + "hunter2!", "short": filePrefix + "aHVudGVyMg==",
	} {
		bad := filepath.Join(t.TempDir(), "bad.key")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrCreate(bad)
		if cluster.KindOf(err) != cluster.KindInvalid || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadOrCreate(filepath.Join(t.TempDir(), "no", "dir", "k")); err == nil || cluster.KindOf(err) == cluster.KindInvalid {
		t.Error(err)
	}
}

// TestNothingIsPrinted formats everything that holds a secret in every way.
func TestNothingIsPrinted(t *testing.T) {
	raw := bytes.Repeat([]byte{0xab, 0xcd, 0x13, 0x37}, 8)
	k, err := NewKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	value := "hunter2-hunter2"
	rec, err := secrets.SealRecord(k, cluster.SecretRecord{SecretRef: cluster.SecretRef{App: "shop", Name: "db"}, Version: 1}, cluster.NewSecret([]byte(value)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := k.Resolve(t.Context(), rec)
	if err != nil {
		t.Fatal(err)
	}
	type box struct {
		Key    *Key
		Secret cluster.Secret
		Hidden []cluster.Secret
		Record cluster.SecretRecord
		M      map[string]cluster.Secret
	}
	all := []any{k, v, &v, rec, box{k, v, []cluster.Secret{v}, rec, map[string]cluster.Secret{"a": v}}, &box{Key: k, Secret: v}}
	payload := cluster.Payload{Secrets: map[string][]byte{"db": []byte(value)}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if out := fmt.Sprintf(verb, payload) + fmt.Sprintf(verb, &payload); out != "[payload][payload]" {
			t.Errorf("%s of a payload: %s", verb, out)
		}
	}
	for _, x := range all {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%b", "%o", "%T", "%p"} {
			out := strings.ToLower(fmt.Sprintf(verb, x))
			for _, secret := range [][]byte{raw, []byte(value)} {
				for _, form := range []string{
					string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret),
					strings.Trim(fmt.Sprintf("%d", secret), "[]"), strings.Trim(fmt.Sprintf("%#x", secret), "0x"),
				} {
					if strings.Contains(out, strings.ToLower(form)) {
						t.Errorf("%s of %T prints the secret: %s", verb, x, out)
					}
				}
			}
		}
	}
}
