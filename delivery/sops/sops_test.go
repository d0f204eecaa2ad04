package sops_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/delivery/sops"
)

func identities(t *testing.T, name string) []age.Identity {
	t.Helper()
	ids, err := age.ParseIdentities(bytes.NewReader(read(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// read reads a file of testdata, which sops itself made (testdata/make.sh).
func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func opened(t *testing.T, name string, content []byte) *sops.File {
	t.Helper()
	f, err := sops.Open(name, content)
	if err != nil || f == nil {
		t.Fatalf("%s is not recognised: %v", name, err)
	}
	return f
}

// same compares what was decrypted with what sops decrypts: as the format means it, and
// without the comments.
func same(name string, b []byte) any {
	switch filepath.Ext(name) {
	case ".yaml":
		var docs []any
		for dec := yaml.NewDecoder(bytes.NewReader(b)); ; {
			var v any
			if err := dec.Decode(&v); errors.Is(err, io.EOF) {
				return docs
			} else if err != nil {
				return err
			}
			docs = append(docs, v)
		}
	case ".env", ".ini":
		var lines []string
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			if k != "" && k[0] != '#' && k[0] != ';' && k != "[DEFAULT]" {
				lines = append(lines, strings.TrimSpace(k)+"="+strings.TrimSpace(v))
			}
		}
		return lines
	}
	return string(b)
}

func TestEveryFormat(t *testing.T) {
	for _, name := range []string{"all.yaml", "all.json", "all.env", "all.ini", "all.bin"} {
		t.Run(name, func(t *testing.T) {
			// The name says nothing, but for JSON with the one key data.
			f := opened(t, "secrets", read(t, name))
			if err := f.Decrypt(identities(t, "key.txt")); err != nil {
				t.Fatal(err)
			}
			got, err := f.Plain(nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(same(name, read(t, name+".plain")), same(name, got)); diff != "" {
				t.Errorf("sops and this (-, +):\n%s", diff)
			}
			secrets := 0
			f.Each(func(l *sops.Leaf) {
				secrets++
				if strings.Contains(l.Key(), "_unencrypted") || l.Value == "" {
					t.Errorf("%s counts as encrypted", l.Key())
				}
			})
			stand, err := f.Plain(func(l *sops.Leaf) any {
				if _, ok := l.Value.(string); ok {
					return "instead"
				}
				return l.Value
			})
			if err != nil || secrets == 0 || bytes.Contains(stand, []byte("hunter2")) || !bytes.Contains(stand, []byte("instead")) {
				t.Errorf("%d secrets, %v:\n%s", secrets, err, stand)
			}
		})
	}
}

func TestRules(t *testing.T) {
	for name, key := range map[string]string{"regex.yaml": "password", "maconly.yaml": "password", "comment.yaml": "password"} {
		f := opened(t, name, read(t, name))
		if err := f.Decrypt(identities(t, "key.txt")); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var keys []string
		f.Each(func(l *sops.Leaf) { keys = append(keys, l.Key()) })
		if diff := cmp.Diff([]string{key}, keys); diff != "" {
			t.Errorf("%s: encrypted are (-want, +got):\n%s", name, diff)
		}
		if b, err := f.Plain(nil); err != nil || !bytes.Contains(b, []byte("plain: stays")) || !bytes.Contains(b, []byte("password: hunter2-by-")) {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
}

// TestTampered changes each of the files in every way that keeps it a file of SOPS's.
func TestTampered(t *testing.T) {
	ids := identities(t, "key.txt")
	change := func(name string, words string, how func(string) string) {
		t.Helper()
		b := string(read(t, name))
		changed := how(b)
		if changed == b {
			t.Fatalf("%s: nothing was changed", name)
		}
		f, err := sops.Open(name, []byte(changed))
		if err == nil && f == nil {
			t.Fatalf("%s is not recognised", name)
		}
		if err == nil {
			err = f.Decrypt(ids)
		}
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s, which wants %q: %v", name, words, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error holds a value: %v", err)
		}
	}
	with := func(old, now string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, now, 1) }
	}
	change("regex.yaml", "MAC is wrong", with("plain: stays", "plain: changed"))
	change("all.yaml", "MAC is wrong", with("host_unencrypted: db.internal", "host_unencrypted: evil.example.com"))
	change("all.yaml", "MAC is wrong", with("port: 8080", "port: 8081"))
	change("all.yaml", "MAC is wrong", with("second:", "other:")) // the place is part of what is encrypted
	change("all.json", "MAC is wrong", with("9007199254740993", "9007199254740992"))
	change("all.env", "MAC is wrong", with("HOST_unencrypted=db", "HOST_unencrypted=x"))
	change("all.ini", "MAC is wrong", with("= db.internal", "= x.internal"))
	change("regex.yaml", "metadata is damaged", func(s string) string {
		i := strings.Index(s, "    mac: ")
		return s[:i] + s[i+strings.Index(s[i:], "\n")+1:]
	})
	change("regex.yaml", "MAC is wrong", func(s string) string { // another time
		i := strings.Index(s, `lastmodified: "`) + len(`lastmodified: "`)
		return s[:i] + "1999" + s[i+4:]
	})
	change("regex.yaml", "in clear", func(s string) string { // a value in clear in place of an encrypted one
		i := strings.Index(s, "password: ")
		return s[:i] + "password: mine\n" + s[i+strings.Index(s[i:], "\n")+1:]
	})
	change("maconly.yaml", "MAC is wrong", with("    mac_only_encrypted: true", "    mac_only_encrypted: false"))
	change("all.yaml", "damaged", with("AGE ENCRYPTED FILE-----\n            YW", "AGE ENCRYPTED FILE-----\n            ZZ"))
	change("all.bin", "MAC is wrong", func(s string) string { // half of it
		i := strings.Index(s, "data:") + len("data:")
		return s[:i] + "AAAA" + s[i+4:]
	})
}

func TestOtherKeys(t *testing.T) {
	ids := identities(t, "key.txt")
	if err := opened(t, "a", read(t, "other.yaml")).Decrypt(ids); !errors.Is(err, sops.ErrKey) {
		t.Errorf("to another's key: %v", err)
	}
	if err := opened(t, "a", read(t, "groups.yaml")).Decrypt(ids); err == nil || !strings.Contains(err.Error(), "key groups") {
		t.Errorf("key groups: %v", err)
	}
	for kind, name := range map[string]string{"pgp": "PGP", "kms": "AWS KMS", "gcp_kms": "GCP KMS", "azure_kv": "Azure Key Vault", "hc_vault": "Vault"} {
		b := strings.Replace(string(read(t, "regex.yaml")), "    age:\n", "    "+kind+":\n", 1)
		if err := opened(t, "a", []byte(b)).Decrypt(ids); err == nil || !strings.Contains(err.Error(), "encrypted to "+name+" and to no age key") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	b := strings.Replace(string(read(t, "all.env")), "sops_age__list_0__map_enc", "sops_pgp__list_0__map_enc", 1)
	if err := opened(t, "a", []byte(b)).Decrypt(ids); err == nil || !strings.Contains(err.Error(), "encrypted to PGP") {
		t.Errorf("dotenv: %v", err)
	}
}

// TestNone: what is no SOPS file is none, though it has the word in it.
func TestNone(t *testing.T) {
	for _, s := range []string{
		"", "sops", "sops:\n", "sops:\n  image: sops\n", `{"sops": {"image": "x"}}`, `{"sops": 1}`, "{sops", "sops_home=/x\n", "[sops]\na = b\n",
		"sops: [", "sops: &a\n  mac: *a\n", "services:\n  sops:\n    image: x\n", "- sops\nsops: x\n",
	} {
		if f, err := sops.Open("x.yaml", []byte(s)); f != nil || err != nil {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
}

// TestDamaged: what was a SOPS file once does not pass for one in clear.
func TestDamaged(t *testing.T) {
	for _, name := range []string{"all.yaml", "all.json", "all.env", "all.ini", "all.bin"} {
		b := string(read(t, name))
		for what, changed := range map[string]string{
			"without metadata": b[:strings.Index(b, "sops")],
			"merged":           "<<<<<<< HEAD\n" + b,
			"twice":            b + b,
		} {
			f, err := sops.Open(name, []byte(changed))
			if err == nil && f != nil {
				err = f.Decrypt(identities(t, "key.txt"))
			}
			if err == nil {
				t.Errorf("%s, %s: it passes", name, what)
			}
		}
	}
}

func TestAge(t *testing.T) {
	ids := identities(t, "key.txt")
	id := ids[0].(*age.X25519Identity) //nolint:forcetypeassert // as made
	for _, armored := range []bool{false, true} {
		var b bytes.Buffer
		var to io.WriteCloser
		if armored {
			to = armor.NewWriter(&b)
		}
		w, err := age.Encrypt(map[bool]io.Writer{true: to, false: &b}[armored], id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte("hunter2"))
		_ = w.Close()
		if armored {
			_ = to.Close()
		}
		if got, err := sops.Age(b.Bytes(), ids); err != nil || string(got) != "hunter2" || !sops.IsAge(b.Bytes()) {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := sops.Age(b.Bytes(), identities(t, "other.txt")); !errors.Is(err, sops.ErrKey) {
			t.Errorf("with another key: %v", err)
		}
		if _, err := sops.Age(b.Bytes()[:b.Len()-3], ids); err == nil {
			t.Error("a part of it passes")
		}
	}
}

// FuzzOpen: no input ends the program.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"all.yaml", "all.json", "all.env", "all.ini", "all.bin", "groups.yaml"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	key, err := os.ReadFile("testdata/key.txt")
	if err != nil {
		f.Fatal(err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(key))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		if file, err := sops.Open("x", b); err == nil && file != nil && file.Decrypt(ids) == nil {
			_, _ = file.Plain(nil)
		}
		if file := sops.Guess(b); file != nil {
			out, _ := file.Plain(nil)
			_ = json.Valid(out)
		}
	})
}
