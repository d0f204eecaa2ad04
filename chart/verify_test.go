package chart_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/chart/charttest"
	"github.com/fairlead/fairlead/cluster"
)

// TestSignatures: wherever a package comes from, --verify takes what the key signed, and
// nothing else.
func TestSignatures(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	ann, eve := charttest.NewSigner(t, "ann"), charttest.NewSigner(t, "eve")
	dir, host := t.TempDir(), ociRegistry(t)
	r := chart.Repositories{Dir: filepath.Join(dir, "charts")}
	archives := map[string][]byte{}
	// The index knows no digests: whoever changes an archive may change those too.
	srv := httpRepository(t, func(s string) string { return regexp.MustCompile(`digest: \w+`).ReplaceAllString(s, `digest: ""`) }, archives)
	if err := r.Add(t.Context(), chart.Repository{Name: "stable", URL: srv.URL, Username: "ann", Password: "pw"}, false); err != nil {
		t.Fatal(err)
	}
	const name = "shop-1.3.0.tgz"
	good, other := archives[name], archiveOf(t, "shop", "6.6.6")
	signature := ann.Sign(name, good)

	file := filepath.Join(dir, name)
	// brought puts an archive and its signature into each of the places.
	brought := func(b, prov []byte) map[string]chart.Transfer {
		t.Helper()
		archives[name], archives[name+".prov"] = b, prov
		if prov == nil {
			delete(archives, name+".prov")
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(file + ".prov")
		if prov != nil {
			if err := os.WriteFile(file+".prov", prov, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		places := map[string]chart.Transfer{
			file: {}, "file://" + file: {}, "stable/shop": {},
			srv.URL + "/charts/" + name: {Username: "ann", Password: "pw"},
		}
		if string(b) == string(good) { // a registry's archives are what they are called
			p, err := r.Push(t.Context(), file, "oci://"+host+"/charts", chart.Transfer{PlainHTTP: true})
			if err != nil {
				t.Fatal(err)
			}
			places[p.Ref] = chart.Transfer{PlainHTTP: true}
		}
		return places
	}
	armored := filepath.Join(dir, "armored")
	if err := os.WriteFile(armored, []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what        string
		data, prov  []byte
		ring, wrong string
	}{
		{"it is signed", good, signature, ann.Keyring, ""},
		{"another archive", other, signature, ann.Keyring, "another archive than the one that was signed"},
		{"another key", good, eve.Sign(name, good), ann.Keyring, "by none of the keys of " + ann.Keyring},
		{"another keyring", good, signature, eve.Keyring, "by none of the keys of " + eve.Keyring},
		{"no signature", good, nil, ann.Keyring, "is not signed: there is no " + name + ".prov"},
		{"a signature of another name", good, ann.Sign("shop-1.2.0.tgz", good), ann.Keyring, "another archive"},
		{"a changed signature", good, []byte(strings.Replace(string(signature), "sha256:", "sha256:0", 1)), ann.Keyring, "does not hold"},
		{"no signature at all", good, []byte("x"), ann.Keyring, "does not hold"},
		{"an armored keyring", good, signature, armored, "armored"},
		{"a keyring that is none", good, signature, file, "no keys"},
		{"no keyring", good, signature, file + ".none", "--keyring: "},
	} {
		for place, how := range brought(tc.data, tc.prov) {
			var by []chart.Signature
			how.Keyring, how.Signed = tc.ring, func(s chart.Signature) { by = append(by, s) }
			files, err := r.Fetch(t.Context(), place, "", how)
			if tc.wrong != "" {
				if err == nil || cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), tc.wrong) || by != nil {
					t.Errorf("%s, %s: %v, %v; want %q", tc.what, place, err, by, tc.wrong)
				}
				continue
			}
			if got := version(t, files, err); got != "1.3.0" || len(by) != 1 || by[0].By != "ann <ann@example.com>" || by[0].File != name || len(by[0].Key) != 40 {
				t.Errorf("%s, %s: %s, signed by %+v", tc.what, place, got, by)
			}
		}
	}
	tree, err := chart.Create(dir, "front")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), tree, "", chart.Transfer{Keyring: ann.Keyring}); err == nil || !strings.Contains(err.Error(), "is not signed") {
		t.Errorf("a directory: %v", err)
	}
}
