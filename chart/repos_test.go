package chart_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ociRegistry is a registry of images in memory, as much of one as packages need.
func ociRegistry(t *testing.T) string {
	t.Helper()
	var mu sync.Mutex
	blobs, manifests := map[string][]byte{}, map[string][]byte{}
	types, tags := map[string]string{}, map[string][]string{}
	serve := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		p := strings.TrimPrefix(r.URL.Path, "/v2/")
		answer := func(b []byte, there bool, typ string) {
			if !there {
				http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
				return
			}
			w.Header().Set("Docker-Content-Digest", digest(b))
			w.Header().Set("Content-Type", typ)
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			if r.Method == http.MethodGet {
				_, _ = w.Write(b)
			}
		}
		name, last, _ := strings.Cut(p, "/manifests/")
		switch {
		case p == "":
		case strings.HasSuffix(p, "/tags/list"):
			name := strings.TrimSuffix(p, "/tags/list")
			if tags[name] == nil {
				http.Error(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`, http.StatusNotFound)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": tags[name]})
		case r.Method == http.MethodPost:
			w.Header().Set("Location", r.URL.Path+"x")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPut && last != "":
			b, _ := io.ReadAll(r.Body)
			manifests[name+"@"+last], manifests[name+"@"+digest(b)] = b, b
			types[name+"@"+last], types[name+"@"+digest(b)] = r.Header.Get("Content-Type"), r.Header.Get("Content-Type")
			if !strings.HasPrefix(last, "sha256:") {
				tags[name] = append(tags[name], last)
			}
			w.WriteHeader(http.StatusCreated)
		case r.Method == http.MethodPut:
			b, _ := io.ReadAll(r.Body)
			blobs[digest(b)] = b
			w.WriteHeader(http.StatusCreated)
		case last != "":
			b, there := manifests[name+"@"+last]
			answer(b, there, types[name+"@"+last])
		default:
			b, there := blobs[p[strings.LastIndex(p, "/")+1:]]
			answer(b, there, "application/octet-stream")
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(serve))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// archiveOf packs a chart of a version, with a template that says which it is.
func archiveOf(t *testing.T, name, version string) []byte {
	t.Helper()
	_, b, err := chart.Pack([]chart.File{
		{Name: "Chart.yaml", Data: fmt.Appendf(nil, "apiVersion: v2\nname: %s\nversion: %s\n", name, version)},
		{Name: "templates/x.yaml", Data: []byte("services: {web: {image: \"a/b:{{ .Chart.Version }}\"}}\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// httpRepository serves archives below /charts/, with an index that bend may change.
func httpRepository(t *testing.T, bend func(index string) string, archives map[string][]byte) *httptest.Server {
	t.Helper()
	index := "apiVersion: v1\nentries:\n  shop:\n"
	for _, v := range []string{"2.0.0-rc1", "1.3.0", "1.2.0"} {
		file := "shop-" + v + ".tgz"
		archives[file] = archiveOf(t, "shop", v)
		index += fmt.Sprintf("  - {apiVersion: v2, name: shop, version: %s, urls: [charts/%s], digest: %s}\n", v, file, strings.TrimPrefix(digest(archives[file]), "sha256:"))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "ann" || p != "pw" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/index.yaml" {
			_, _ = io.WriteString(w, bend(index))
			return
		}
		b, there := archives[strings.TrimPrefix(r.URL.Path, "/charts/")]
		if !there {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func version(t *testing.T, files []chart.File, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	info, err := chart.Describe(files)
	if err != nil {
		t.Fatal(err)
	}
	return info.Version
}

func TestRepositoryOverHTTP(t *testing.T) {
	r := chart.Repositories{Dir: filepath.Join(t.TempDir(), "charts")}
	archives := map[string][]byte{}
	srv := httpRepository(t, func(s string) string { return s }, archives)
	x := chart.Repository{Name: "stable", URL: srv.URL, Username: "ann", Password: "pw"}
	if err := r.Add(t.Context(), chart.Repository{Name: "stable", URL: srv.URL}, false); cluster.KindOf(err) != cluster.KindForbidden {
		t.Errorf("without a password: %v", err)
	}
	if list, err := r.List(); err != nil || len(list) != 0 {
		t.Errorf("what could not be read is kept: %v, %v", list, err)
	}
	if err := r.Add(t.Context(), x, false); err != nil {
		t.Fatal(err)
	}
	list, err := r.List()
	if err != nil || len(list) != 1 || list[0].Packages != 1 || list[0].Updated.IsZero() {
		t.Errorf("the list is %+v, %v", list, err)
	}
	if b, _ := json.Marshal(list); strings.Contains(string(b), "pw") {
		t.Errorf("the password is shown: %s", b)
	}
	if info, err := os.Stat(filepath.Join(r.Dir, "repositories.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of repositories: %v, %v", info.Mode(), err)
	}
	for want, asked := range map[string]string{"1.3.0": "", "1.2.0": "1.2.0", "2.0.0-rc1": ">=2.0.0-0"} {
		files, err := r.Fetch(t.Context(), "stable/shop", asked, chart.Transfer{})
		if got := version(t, files, err); got != want {
			t.Errorf("%q is %s, not %s", asked, got, want)
		}
	}
	for ref, kind := range map[string]cluster.Kind{"stable/none": cluster.KindNotFound, "none/shop": cluster.KindNotFound, "shop": cluster.KindNotFound, "ftp://x/y": cluster.KindInvalid} {
		if _, err := r.Fetch(t.Context(), ref, "", chart.Transfer{}); cluster.KindOf(err) != kind {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := r.Fetch(t.Context(), "stable/shop", "9.9.9", chart.Transfer{}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("no such version: %v", err)
	}
	archives["shop-1.3.0.tgz"] = archiveOf(t, "shop", "6.6.6")
	if _, err := r.Fetch(t.Context(), "stable/shop", "", chart.Transfer{}); err == nil || !strings.Contains(err.Error(), "its digest is") {
		t.Errorf("another archive than the index says: %v", err)
	}
	if err := r.Add(t.Context(), chart.Repository{Name: "stable", URL: srv.URL + "/"}, false); err == nil || !strings.Contains(err.Error(), "--force-update") {
		t.Errorf("another repository of the same name: %v", err)
	}
	if err := r.Remove("stable"); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove("stable"); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestRefusedRepositories(t *testing.T) {
	r := chart.Repositories{Dir: t.TempDir()}
	for url, says := range map[string]string{
		"oci://registry.example.com/charts":  "a registry needs no adding",
		"ftp://example.com":                  "is no URL of a repository",
		"https://ann:pw@charts.example.com/": "the password does not belong into the URL",
		"file:///does/not/exist":             "no such file",
	} {
		if err := r.Add(t.Context(), chart.Repository{Name: "x", URL: url}, false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := r.Add(t.Context(), chart.Repository{Name: "../x", URL: "https://a.example"}, false); err == nil || !strings.Contains(err.Error(), "cannot name a repository") {
		t.Errorf("a name that leads out: %v", err)
	}
	srv := httpRepository(t, func(string) string { return "no index" }, map[string][]byte{})
	if err := r.Add(t.Context(), chart.Repository{Name: "x", URL: srv.URL, Username: "ann", Password: "pw"}, false); err == nil || !strings.Contains(err.Error(), "index cannot be read") {
		t.Errorf("no index: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Add(ctx, chart.Repository{Name: "x", URL: srv.URL}, false); err == nil {
		t.Error("it goes on when it was told to stop")
	}
}

// TestPasswordStaysWithItsHost: an index may send to archives elsewhere; the password
// of the repository does not go there.
func TestPasswordStaysWithItsHost(t *testing.T) {
	told := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("Authorization")
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(other.Close)
	srv := httpRepository(t, func(s string) string { return strings.ReplaceAll(s, "charts/", other.URL+"/charts/") }, map[string][]byte{})
	r := chart.Repositories{Dir: t.TempDir()}
	if err := r.Add(t.Context(), chart.Repository{Name: "x", URL: srv.URL, Username: "ann", Password: "pw"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), "x/shop", "", chart.Transfer{}); err == nil {
		t.Error("it was fetched")
	}
	if h := <-told; h != "" {
		t.Errorf("the other host was told %s", h)
	}
}

// TestRepositoryNamesNoFiles: an index that was fetched names no file of this machine.
func TestRepositoryNamesNoFiles(t *testing.T) {
	there := filepath.Join(t.TempDir(), "shop-1.3.0.tgz")
	if err := os.WriteFile(there, archiveOf(t, "shop", "1.3.0"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"file://", "FILE://"} {
		srv := httpRepository(t, func(s string) string {
			return strings.ReplaceAll(s, "charts/shop-1.3.0.tgz", scheme+there)
		}, map[string][]byte{})
		x := chart.Repository{Name: "stable", URL: srv.URL, Username: "ann", Password: "pw"}
		_, _, err := chart.Repositories{Dir: t.TempDir()}.Newer(t.Context(), x, "shop", "1.3.0", chart.Seen{})
		if cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "a file of this machine") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestRepositoryInADirectory(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"1.0.0", "1.1.0"} {
		if err := os.WriteFile(filepath.Join(dir, "shop-"+v+".tgz"), archiveOf(t, "shop", v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := chart.Repositories{Dir: t.TempDir()}
	if err := r.Add(t.Context(), chart.Repository{Name: "here", URL: "file://" + dir}, false); err != nil {
		t.Fatal(err)
	}
	files, err := r.Fetch(t.Context(), "here/shop", "^1.0", chart.Transfer{})
	if got := version(t, files, err); got != "1.1.0" {
		t.Errorf("it is %s", got)
	}
}

func TestRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	host, dir := ociRegistry(t), t.TempDir()
	r := chart.Repositories{Dir: filepath.Join(dir, "charts")}
	plain := chart.Transfer{PlainHTTP: true}
	for _, v := range []string{"1.0.0", "1.1.0", "2.0.0-rc1"} {
		f := filepath.Join(dir, "shop.tgz")
		if err := os.WriteFile(f, archiveOf(t, "shop", v), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := r.Push(t.Context(), f, "oci://"+host+"/charts", plain)
		if err != nil {
			t.Fatal(err)
		}
		if p.Ref != "oci://"+host+"/charts/shop:"+v || !strings.HasPrefix(p.Digest, "sha256:") {
			t.Errorf("pushed as %+v", p)
		}
	}
	for ref, want := range map[string]string{"shop": "1.1.0", "shop:1.0.0": "1.0.0"} {
		files, err := r.Fetch(t.Context(), "oci://"+host+"/charts/"+ref, "", plain)
		if got := version(t, files, err); got != want {
			t.Errorf("%s is %s", ref, got)
		}
	}
	for asked, says := range map[string]string{"1.0.0": "", "~1.0": "", "1.1.0": "is version 1.0.0, and --version 1.1.0", "^2": "--version ^2"} {
		_, err := r.Fetch(t.Context(), "oci://"+host+"/charts/shop:1.0.0", asked, plain)
		if (err == nil) != (says == "") || (err != nil && (!strings.Contains(err.Error(), says) || cluster.KindOf(err) != cluster.KindInvalid)) {
			t.Errorf("shop:1.0.0 and %s: %v", asked, err)
		}
	}
	files, err := r.Fetch(t.Context(), "oci://"+host+"/charts/shop", "~1.0", plain)
	if got := version(t, files, err); got != "1.0.0" {
		t.Errorf("~1.0 is %s", got)
	}
	name, b, err := r.Archive(t.Context(), "oci://"+host+"/charts/shop", "1.1.0", plain)
	if err != nil || name != "shop-1.1.0.tgz" || !bytes.Equal(b, archiveOf(t, "shop", "1.1.0")) {
		t.Errorf("what came back is another archive: %s, %v", name, err)
	}
	if _, err := r.Fetch(t.Context(), "oci://"+host+"/charts/none", "", plain); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("no such package: %v", err)
	}
	if _, err := r.Fetch(t.Context(), "oci://"+host+"/charts/shop", "^9", plain); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("no such version: %v", err)
	}
	if _, err := r.Fetch(t.Context(), "oci://"+host+"/charts/shop", "", chart.Transfer{}); err == nil || !strings.Contains(err.Error(), "--plain-http") {
		t.Errorf("without TLS: %v", err)
	}
}

// What a registry answers is told from its status, not from numbers in names and ports.
func TestRegistryThatRefuses(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for status, want := range map[int]cluster.Kind{
		http.StatusUnauthorized: cluster.KindForbidden, http.StatusForbidden: cluster.KindForbidden,
		http.StatusNotFound: cluster.KindNotFound, http.StatusBadGateway: cluster.KindTransient,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			}
			w.WriteHeader(status)
		}))
		ref := "oci://" + strings.TrimPrefix(srv.URL, "http://") + "/charts/not-found-401-403-404"
		r := chart.Repositories{Dir: t.TempDir()}
		for _, at := range []string{ref, ref + ":1.0.0"} {
			if _, err := r.Fetch(t.Context(), at, "", chart.Transfer{PlainHTTP: true}); cluster.KindOf(err) != want {
				t.Errorf("%d of %s: %v (%v), want %v", status, at, err, cluster.KindOf(err), want)
			}
		}
		srv.Close()
	}
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	files, err := chart.ReadArchive("x", bytes.NewReader(archiveOf(t, "shop", "1.0.0")))
	if err != nil {
		t.Fatal(err)
	}
	to, err := chart.Unpack(files, dir)
	if err != nil || to != filepath.Join(dir, "shop") {
		t.Fatalf("%s, %v", to, err)
	}
	again, err := chart.Read(to)
	if got := version(t, again, err); got != "1.0.0" {
		t.Errorf("it is %s", got)
	}
	if _, err := chart.Unpack(files, dir); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("written over: %v", err)
	}
	for _, f := range []string{"../x", "/etc/x"} {
		if _, err := chart.Unpack(append(files, chart.File{Name: f}), t.TempDir()); err == nil {
			t.Errorf("%s was written", f)
		}
	}
	files[0].Data = []byte("apiVersion: v2\nname: ../up\nversion: 1.0.0\n")
	if _, err := chart.Unpack(files, t.TempDir()); err == nil {
		t.Error("a chart's name leads out")
	}
}

func TestDependenciesAreFetched(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	host, base := ociRegistry(t), t.TempDir()
	r := chart.Repositories{Dir: filepath.Join(base, "charts")}
	plain := chart.Transfer{PlainHTTP: true}
	f := filepath.Join(base, "cache.tgz")
	if err := os.WriteFile(f, archiveOf(t, "cache", "0.4.2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Push(t.Context(), f, "oci://"+host+"/charts", plain); err != nil {
		t.Fatal(err)
	}
	srv := httpRepository(t, func(s string) string { return s }, map[string][]byte{})
	if err := r.Add(t.Context(), chart.Repository{Name: "stable", URL: srv.URL, Username: "ann", Password: "pw"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := chart.Create(base, "beside"); err != nil {
		t.Fatal(err)
	}
	dir, err := chart.Create(base, "front")
	if err != nil {
		t.Fatal(err)
	}
	yaml := "apiVersion: v2\nname: front\nversion: 0.1.0\ndependencies:\n" +
		"  - {name: shop, version: ^1.2, repository: \"@stable\"}\n" +
		"  - {name: cache, version: 0.4.x, repository: \"oci://" + host + "/charts\"}\n" +
		"  - {name: beside, version: 0.x.x, repository: \"file://../beside\", alias: other}\n"
	if err := os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	status := func() string {
		t.Helper()
		files, err := chart.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		list, err := chart.Dependencies(files)
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, d := range list {
			out += d.Name + " " + d.Status + "; "
		}
		return out
	}
	if got := status(); got != "shop missing; cache missing; beside missing; " {
		t.Errorf("before: %s", got)
	}
	if err := r.UpdateDependencies(t.Context(), dir, false, plain); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != "shop ok; cache ok; beside ok; " {
		t.Errorf("after: %s", got)
	}
	lock, err := os.ReadFile(filepath.Join(dir, "Chart.lock"))
	if err != nil || !strings.Contains(string(lock), "version: 1.3.0") {
		t.Errorf("the lock is %s, %v", lock, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "charts")); err != nil {
		t.Fatal(err)
	}
	if err := r.UpdateDependencies(t.Context(), dir, true, plain); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != "shop ok; cache ok; beside ok; " {
		t.Errorf("from the lock: %s", got)
	}
}

// TestDependenciesWithALogin: a repository that was not added is asked with the login and
// the certificate given, which go nowhere else and are not kept.
func TestDependenciesWithALogin(t *testing.T) {
	base := t.TempDir()
	r := chart.Repositories{Dir: filepath.Join(base, "charts")}
	var asked atomic.Int32
	serve := httpRepository(t, func(s string) string { return s }, map[string][]byte{}).Config.Handler
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		serve.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of certificates that are not trusted
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(base, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := chart.Create(base, "front")
	if err != nil {
		t.Fatal(err)
	}
	depend := func(on ...string) {
		t.Helper()
		yaml := "apiVersion: v2\nname: front\nversion: 0.1.0\ndependencies:\n"
		for i, at := range on {
			yaml += fmt.Sprintf("  - {name: shop, version: ^1.2, repository: %q, alias: a%d}\n", at, i)
		}
		if err := os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := chart.Transfer{Username: "ann", Password: "pw", CAFile: ca}
	for name, c := range map[string]struct {
		on   []string
		how  chart.Transfer
		kind cluster.Kind
		says string
	}{
		"no certificate":              {[]string{srv.URL}, chart.Transfer{Username: "ann", Password: "pw"}, cluster.KindTransient, "certificate"},
		"no login":                    {[]string{srv.URL}, chart.Transfer{CAFile: ca}, cluster.KindForbidden, "401"},
		"another password":            {[]string{srv.URL}, chart.Transfer{Username: "ann", Password: "x", CAFile: ca}, cluster.KindForbidden, "401"},
		"a login for two":             {[]string{srv.URL, "oci://registry.example.com/charts"}, login, cluster.KindInvalid, "registry.example.com?"},
		"a repository nobody added":   {[]string{"@stable"}, login, cluster.KindNotFound, "`fairlead chart repo add stable URL`"},
		"a version that is not there": {[]string{srv.URL}, login, cluster.KindInvalid, ""},
	} {
		depend(c.on...)
		if c.says == "" {
			b, _ := os.ReadFile(filepath.Join(dir, "Chart.yaml"))
			_ = os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(strings.ReplaceAll(string(b), "^1.2", "^7")), 0o600)
		}
		before := asked.Load()
		err := r.UpdateDependencies(t.Context(), dir, false, c.how)
		if name == "a login for two" && asked.Load() != before {
			t.Error("a login for two: one of them was told")
		}
		if err == nil || cluster.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "helm ") {
			t.Errorf("%s: %s %v", name, cluster.KindOf(err), err)
		}
	}
	depend(srv.URL)
	for _, locked := range []bool{false, true} {
		if err := os.RemoveAll(filepath.Join(dir, "charts")); err != nil {
			t.Fatal(err)
		}
		if err := r.UpdateDependencies(t.Context(), dir, locked, login); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "charts", "shop-1.3.0.tgz")); err != nil || len(got) == 0 {
			t.Errorf("it did not come: %v", err)
		}
	}
	depend(srv.URL + "/") // the lock says another
	if err := r.UpdateDependencies(t.Context(), dir, true, login); err == nil || !strings.Contains(err.Error(), "'fairlead chart dependency update'") {
		t.Errorf("a lock of other dependencies: %v", err)
	}
	err = filepath.WalkDir(r.Dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if strings.Contains(string(b), "password: pw") {
				t.Errorf("%s keeps the password", p)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
