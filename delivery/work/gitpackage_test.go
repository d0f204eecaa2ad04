package work_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
)

func TestParseGit(t *testing.T) {
	for ref, want := range map[string]string{
		"git+https://git.example.com/shop.git":                           "git+https://git.example.com/shop.git",
		"git+https://git.example.com/shop.git//charts/shop/?ref=v1":      "git+https://git.example.com/shop.git//charts/shop?ref=v1",
		"git+https://git.example.com:8443/a/b@charts/shop?ref=feature/x": "git+https://git.example.com:8443/a/b//charts/shop?ref=feature%2Fx", // helm-git
		"git::https://git.example.com/shop.git//charts?ref=v1":           "git+https://git.example.com/shop.git//charts?ref=v1",               // Terraform
		"git::git@git.example.com:a/b.git//charts":                       "git+git@git.example.com:a/b.git//charts",
		"git@git.example.com:a/b.git//charts?ref=main":                   "git+git@git.example.com:a/b.git//charts?ref=main", // kustomize
		"git+git@git.example.com:a/b@charts":                             "git+git@git.example.com:a/b//charts",
		"ssh://git@git.example.com/a/b.git//charts":                      "git+ssh://git@git.example.com/a/b.git//charts",
		"git+ssh://git@git.example.com/a/b":                              "git+ssh://git@git.example.com/a/b",
		"git+file:///srv/git/shop.git//charts":                           "git+file:///srv/git/shop.git//charts",
		"git+https://ann@git.example.com/a/b":                            "git+https://ann@git.example.com/a/b",
		"./shop":                                                         "", "stable/shop": "", "shop": "", "shop-1.2.0.tgz": "", "https://charts.example.com/shop-1.2.0.tgz": "",
		"oci://registry.example.com/charts/shop:1.2.0": "", "registry:5000": "", "file:///srv/shop": "",
	} {
		g, is, err := work.ParseGit(ref)
		switch {
		case err != nil:
			t.Errorf("%s: %v", ref, err)
		case is != (want != ""), is && g.String() != want:
			t.Errorf("%s is %s (%v), not %s", ref, g, is, want)
		case is:
			if again, is, err := work.ParseGit(g.String()); !is || err != nil || again != g {
				t.Errorf("%s is not read as it is written: %+v, %v", g, again, err)
			}
		}
	}
	for ref, says := range map[string]string{
		"git+https://ann:geheim@git.example.com/a/b@x":        "--username",
		"git+https://git.example.com/a/b//x?ref=v1&sparse=1":  "sparse is not known",
		"git+https://git.example.com/a/b//../../etc":          "leads out",
		"git+https://git.example.com/a/b?ref=--upload-pack=x": "names no branch",
		"git+ftp://git.example.com/a/b":                       "git+https://",
		"git+ext::sh -c id":                                   "git+https://",
	} {
		if _, is, err := work.ParseGit(ref); !is || cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "geheim") && !strings.HasPrefix(says, "--") {
			t.Errorf("%s: %v", ref, err)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

// packages is a forge with two versions of a package in a directory, the second on main.
func packages(t *testing.T) (f *forge, one, two string) {
	t.Helper()
	f = newForge(t)
	release := func(version string) string {
		f.write("charts/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: "+version+"\n")
		f.write("charts/shop/templates/app.yaml", compose("web:1"))
		return f.push("version " + version)
	}
	one = release("1.0.0")
	f.git(f.tree, "tag", "-a", "-m", "release", "v1.0.0")
	f.git(f.tree, "push", "-q", "--tags", "origin")
	f.git(f.tree, "push", "-q", "origin", "HEAD:feature/x")
	return f, one, release("2.0.0")
}

// found is the version of a package in Git, and the commit that it is of.
func found(t *testing.T, ref, version string, tr chart.Transfer) (string, error) {
	t.Helper()
	g, is, err := work.ParseGit(ref)
	if !is || err != nil {
		t.Fatalf("%s: %v, %v", ref, is, err)
	}
	files, at, err := g.Fetch(t.Context(), version, tr, nil)
	if err != nil {
		return "", err
	}
	info, err := chart.Describe(files)
	if err != nil {
		t.Fatal(err)
	}
	return info.Version + " of " + at.Ref, nil
}

// configured gives the user's git settings, in KEY, VALUE pairs.
func configured(t *testing.T, settings ...string) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("GIT_TERMINAL_PROMPT", "0")
	t.Setenv("GIT_CONFIG_COUNT", fmt.Sprint(len(settings)/2))
	for i := 0; i+1 < len(settings); i += 2 {
		t.Setenv(fmt.Sprintf("GIT_CONFIG_KEY_%d", i/2), settings[i])
		t.Setenv(fmt.Sprintf("GIT_CONFIG_VALUE_%d", i/2), settings[i+1])
	}
}

func TestAPackageOfAnyCommit(t *testing.T) {
	f, one, two := packages(t)
	url, ca := f.https("geheim")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	s := small(t)
	key, known := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(key, s.Login, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, []byte(s.Known()), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("GIT_SSL_CAINFO", file)
	configured(t, "credential.helper", "!f() { echo username=ann; echo password=geheim; }; f",
		"core.sshCommand", fmt.Sprintf("ssh -F none -i %s -o UserKnownHostsFile=%s", key, known))
	over := map[string]chart.Transfer{
		"file://" + f.dir: {},
		url:               {}, // by the user's git, and its settings
		url + "#own":      {Username: "ann", Password: "geheim", CAFile: file},
		fmt.Sprintf("ssh://%s@%s%s", s.User, s.Addr, f.dir): {},
	}
	for at, tr := range over {
		at, _, _ = strings.Cut(at, "#")
		for _, tc := range []struct{ ref, version, want string }{
			{"", "", "2.0.0 of " + two},
			{"main", "", "2.0.0 of " + two},
			{"feature/x", "", "1.0.0 of " + one},
			{"v1.0.0", "", "1.0.0 of " + one},
			{one, "", "1.0.0 of " + one},
			{"", "^1", "1.0.0 of " + one},
			{"", "1.0.0", "1.0.0 of " + one},
		} {
			ref := "git+" + at + "//charts/shop"
			if tc.ref != "" {
				ref += "?ref=" + tc.ref
			}
			if got, err := found(t, ref, tc.version, tr); err != nil || got != tc.want {
				t.Errorf("%s %s is %q, %v; want %s", ref, tc.version, got, err, tc.want)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "fairlead-git-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhatIsWrongWithAPackageInGit(t *testing.T) {
	f, _, _ := packages(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(f.tree, "charts", "shop", "x")); err != nil {
		t.Fatal(err)
	}
	f.git(f.tree, "checkout", "-q", "-b", "hostile")
	f.push("a link that leads out")
	url, ca := f.https("geheim")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_SSL_CAINFO", file)
	configured(t)
	signed := chart.Transfer{Username: "ann", Password: "geheim", CAFile: file}
	for _, tc := range []struct {
		ref, version string
		tr           chart.Transfer
		kind         cluster.Kind
		says         string
	}{
		{"git+file://" + f.dir + "//none", "", chart.Transfer{}, cluster.KindNotFound, "no directory none at"},
		{"git+file://" + f.dir, "", chart.Transfer{}, cluster.KindInvalid, f.dir + " is no chart"},
		{"git+file://" + f.dir + "//charts/shop?ref=none", "", chart.Transfer{}, cluster.KindNotFound, "no branch or tag none"},
		{"git+file://" + f.dir + "//charts/shop", "^9", chart.Transfer{}, cluster.KindNotFound, "no tag is a version"},
		{"git+file://" + f.dir + "//charts/shop?ref=main", "^1", chart.Transfer{}, cluster.KindInvalid, "one of them"},
		{"git+file://" + f.dir + "//charts/shop?ref=hostile", "", chart.Transfer{}, cluster.KindInvalid, "leads out"},
		{"git+file://" + f.dir + "//charts/shop", "", chart.Transfer{Keyring: "x"}, cluster.KindInvalid, "signatures"},
		{"git+file://" + f.dir + "//charts/shop", "", chart.Transfer{Insecure: true}, cluster.KindInvalid, "--ca-file"},
		{"git+file://" + f.dir + "//charts/shop", "", chart.Transfer{Username: "ann"}, cluster.KindInvalid, "of https"},
		{"git+file:///nowhere", "", chart.Transfer{}, cluster.KindNotFound, "no such repository"},
		{"git+" + url + "//charts/shop", "", chart.Transfer{}, cluster.KindForbidden, "could not read Username"},
		{"git+" + url + "//charts/shop", "", chart.Transfer{Username: "ann", Password: "wrong", CAFile: file}, cluster.KindForbidden, "--username"},
		{"git+" + url + "//charts/shop", "", chart.Transfer{Username: "ann", Password: "geheim"}, cluster.KindForbidden, "certificate"},
		{"git+" + strings.Replace(url, "shop.git", "none.git", 1), "", signed, cluster.KindNotFound, "no such repository"},
		{"git+https://127.0.0.1:1/shop.git", "", chart.Transfer{}, cluster.KindTransient, "git: "},
		{"git+ssh://git@127.0.0.1:1/shop.git", "", chart.Transfer{}, cluster.KindTransient, "git: "},
	} {
		_, err := found(t, tc.ref, tc.version, tc.tr)
		if err == nil || cluster.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "fairlead-git-") {
			t.Errorf("%s: %v (%v), want %v: %s", tc.ref, err, cluster.KindOf(err), tc.kind, tc.says)
		}
	}
	t.Setenv("GIT_SSL_CAINFO", "/dev/null")
	if _, err := found(t, "git+"+url, "", chart.Transfer{}); cluster.KindOf(err) != cluster.KindForbidden {
		t.Errorf("an authority that nobody knows: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := found(t, "git+ssh://git@git.example.com/a", "", chart.Transfer{}); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("without git: %v", err)
	}
	if _, err := found(t, "git+"+url, "", chart.Transfer{}); cluster.KindOf(err) != cluster.KindForbidden || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("https without git: %v", err)
	}
}
