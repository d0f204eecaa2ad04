package api_test

import (
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

func TestOpenAPIIsTheOneInDocs(t *testing.T) {
	b := newBench(t)
	doc, err := b.srv.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(doc, &tree); err != nil {
		t.Fatal(err)
	}
	doc, err = json.MarshalIndent(tree, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	doc = append(doc, '\n')
	var names struct {
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(doc, &names); err != nil {
		t.Fatal(err)
	}
	for name := range names.Components.Schemas {
		if !regexp.MustCompile(`^[a-zA-Z0-9._-]+$`).MatchString(name) {
			t.Errorf("a schema is named %q, which OpenAPI does not allow", name)
		}
	}
	golden := filepath.Join("..", "docs", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(doc)); diff != "" {
		t.Errorf("docs/openapi.json is not what the Go types say; run `go test ./api -run OpenAPI -update`:\n%s", diff)
	}
	served, err := b.OpenAPI(t.Context())
	if err != nil || served["openapi"] != "3.1.0" {
		t.Errorf("served: %v, %v", served["openapi"], err)
	}
}

func TestErrorsAreProblems(t *testing.T) {
	b := newBench(t)
	bundle := `{"services":{"web":{"mode":"replicated","replicas":1,"task":{"image":"web:1"}}}}`
	for name, c := range map[string]struct {
		method, path, body, token string
		status                    int
		kind, text, field         string
	}{
		"no token":        {"GET", "/v1/apps", "", "", 401, "forbidden", "token", ""},
		"wrong token":     {"GET", "/v1/apps", "", "wrong", 401, "forbidden", "not valid", ""},
		"no such path":    {"GET", "/v1/nothing", "", token, 404, "not found", "/v1/nothing", ""},
		"no such app":     {"GET", "/v1/apps/shop", "", token, 404, "not found", "fairlead ls", ""},
		"not JSON":        {"POST", "/v1/apps/shop/plan", "{", token, 400, "invalid", "", ""},
		"unknown field":   {"POST", "/v1/apps/shop/plan", strings.Replace(bundle, `"image"`, `"imagee"`, 1), token, 422, "invalid", "", "body.services.web.task.imagee"},
		"wrong type":      {"POST", "/v1/apps/shop/plan", strings.Replace(bundle, `:1,`, `:"two",`, 1), token, 422, "invalid", "", "body.services.web.replicas"},
		"unknown query":   {"GET", "/v1/tasks?ap=shop", "", token, 422, "invalid", "", "query.ap"},
		"too large":       {"POST", "/v1/apps/shop/restart", `{"note":"` + strings.Repeat("x", v1.MaxRequest) + `"}`, token, 413, "invalid", "", ""},
		"hostile app":     {"POST", "/v1/apps/..%2fetc/plan", bundle, token, 422, "invalid", "app name", ""},
		"hostile service": {"POST", "/v1/apps/shop/plan", strings.Replace(bundle, `"web"`, `"we/b"`, 1), token, 422, "invalid", "service name", "services.we/b"},
		"no command":      {"POST", "/v1/apps/shop/services/web/exec", `{"command":[]}`, token, 422, "invalid", "command", ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, contentType, raw := rawRequest(t, b, c.method, c.path, c.body, c.token)
			if code != c.status || contentType != "application/problem+json" {
				t.Fatalf("answered %d, %s: %s", code, contentType, raw)
			}
			var p v1.Problem
			if err := json.Unmarshal(raw, &p); err != nil {
				t.Fatalf("%v: %s", err, raw)
			}
			if p.Status != c.status || p.Kind != c.kind || p.Detail == "" || !strings.Contains(p.Detail, c.text) {
				t.Errorf("problem %+v", p)
			}
			if c.field != "" && !slices.ContainsFunc(p.Errors, func(d v1.Detail) bool { return d.Field == c.field }) {
				t.Errorf("details %+v, want field %s", p.Errors, c.field)
			}
		})
	}
}

// A path that is there, asked for in a way that it does not have, says in which ways
// it can be; every other way of every path in the description.
func TestMethodNotAllowed(t *testing.T) {
	b := newBench(t)
	code, _, raw := rawRequest(t, b, "DELETE", "/v1/apps/shop/deploy", "", "")
	if code != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", code, raw)
	}
	doc, err := b.OpenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	paths, _ := doc["paths"].(map[string]any)
	for path := range paths {
		if strings.HasPrefix(path, "/v1/node/") { // of nodes alone
			continue
		}
		// Those of all descriptions that this URL fits: /v1/nodes/invite is a node's too.
		url := placeholder.ReplaceAllString(path, "x")
		has := map[string]bool{}
		for other, ops := range paths {
			if fits := regexp.MustCompile("^" + placeholder.ReplaceAllString(other, "[^/]+") + "$"); fits.MatchString(url) {
				methods, _ := ops.(map[string]any)
				for m := range methods {
					has[strings.ToUpper(m)] = true
				}
			}
		}
		has["HEAD"] = has["GET"]
		var allowed []string
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			if has[m] {
				allowed = append(allowed, m)
			}
		}
		const method = "OPTIONS" // no path has it
		req, err := http.NewRequestWithContext(t.Context(), method, b.url+url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p v1.Problem
		err = json.NewDecoder(resp.Body).Decode(&p)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Content-Type") != "application/problem+json" ||
			p.Status != resp.StatusCode || p.Kind != "invalid" || !strings.Contains(p.Detail, method) {
			t.Errorf("%s %s: %d %+v %v", method, path, resp.StatusCode, p, err)
		}
		if got := resp.Header.Get("Allow"); got != strings.Join(allowed, ", ") {
			t.Errorf("%s allows %q, want %v", path, got, allowed)
		}
	}
	if len(paths) < 30 {
		t.Errorf("%d paths: the description is not read", len(paths))
	}
}

func TestValidationEchoesNoValue(t *testing.T) {
	b := newBench(t)
	code, _, raw := rawRequest(t, b, "PUT", "/v1/apps/shop/secrets/pw", `{"value": 12345678, "hidden": "hunter2"}`, token)
	if code != http.StatusUnprocessableEntity || strings.Contains(string(raw), "hunter2") || strings.Contains(string(raw), "12345678") {
		t.Errorf("%d: %s", code, raw)
	}
}

func TestClientErrorsHaveKindsAndDetails(t *testing.T) {
	b := newBench(t)
	spec := service("web:1")
	spec.Source = cluster.Source{File: "compose.yaml", Line: 3}
	spec.Routes = []cluster.Route{{Host: "bad host", Port: 80, Source: cluster.Source{File: "compose.yaml", Line: 7}}}
	spec.Autoscale = &cluster.Autoscale{Min: 1, Max: 2, CPUPercent: 70}
	_, err := b.Deploy(t.Context(), "shop", bundle(map[cluster.ServiceName]cluster.ServiceSpec{"web": spec}))
	var ce *client.Error
	if !errors.As(err, &ce) || cluster.KindOf(err) != cluster.KindInvalid {
		t.Fatalf("%T %v", err, err)
	}
	got := map[int]string{}
	for _, d := range ce.Errors {
		got[d.Line] = d.Field
	}
	want := map[int]string{3: "services.web.autoscale.cpu_percent", 7: "services.web.routes[0].host"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(err.Error(), "compose.yaml:7: route host") {
		t.Error(err)
	}
	if len(b.keys("fairlead/v1/apps/")) != 0 {
		t.Error("a refused deploy has written something")
	}

	away, err := client.New(client.Options{Socket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := away.Apps(t.Context()); cluster.KindOf(err) != cluster.KindTransient || !strings.Contains(err.Error(), "cannot reach") {
		t.Errorf("%v", err)
	}
}

func TestHealthAndVersion(t *testing.T) {
	b := newBench(t)
	anonymous, err := client.New(client.Options{URL: b.url})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := anonymous.Health(t.Context()); err != nil || !h.Ready {
		t.Errorf("%+v %v", h, err)
	}
	if _, err := anonymous.Server(t.Context()); cluster.KindOf(err) != cluster.KindForbidden {
		t.Errorf("version without a token: %v", err)
	}
	if st, err := b.Status(t.Context()); err != nil || st.Node != "n1" || st.CA != "sha256:ca" || !st.Serving {
		t.Errorf("%+v %v", st, err)
	}
	info, err := b.Server(t.Context())
	want := v1.ServerInfo{Version: "test", API: "v1", Domain: "example.test", Nodes: 1, Web: 80, WebSecure: 443, Internal: 8080}
	if diff := cmp.Diff(want, info); err != nil || diff != "" {
		t.Error(err, diff)
	}
}
