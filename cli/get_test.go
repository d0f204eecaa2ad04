package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// TestPartsAlone: with -o a part is printed alone, as Helm does, and what get values and get
// manifest print is a file for -f.
func TestPartsAlone(t *testing.T) {
	h := newHub(t)
	h.must("", "chart", "create", "demo")
	h.write("v.yaml", "replicas: 2\nenvironment: {BIG: 12345678}\n")
	h.must("", "install", "shop", "demo", "-f", "v.yaml", "--set", "port=81", "--detach")
	const values = "environment:\n  BIG: 12345678\nport: 81\nreplicas: 2\n"
	for _, args := range [][]string{nil, {"-o", "yaml"}, {"-o", "wide"}} {
		if s := h.must("", append([]string{"get", "values", "shop"}, args...)...); s.out != values {
			t.Errorf("%v: %s", args, s.all)
		}
	}
	if s := h.must("", "get", "values", "shop", "-o", "json"); s.out != "{\n  \"environment\": {\n    \"BIG\": 12345678\n  },\n  \"port\": 81,\n  \"replicas\": 2\n}\n" {
		t.Errorf("%s", s.all)
	}
	for _, format := range []string{"yaml", "json"} {
		h.write("again.yaml", h.must("", "get", "values", "shop", "-o", format).out)
		h.must("", "upgrade", "shop", "demo", "-f", "again.yaml", "--detach")
		svc, _ := read[cluster.Service](h, store.ServiceKey(shopWeb))
		if s := h.must("", "get", "values", "shop"); s.out != values || svc.Spec.Replicas != 2 {
			t.Errorf("%d replicas: %s", svc.Spec.Replicas, s.out)
		}
		h.write("compose.yaml", h.must("", "get", "manifest", "shop", "-o", format).out)
		if s := h.must("", "plan", "-p", "shop"); strings.Contains(s.out, "  ~ ") || strings.Contains(s.out, "  + ") {
			t.Errorf("%s", s.all)
		}
	}
	var notes string
	if err := json.Unmarshal([]byte(h.must("", "get", "notes", "shop", "-o", "json").out), &notes); err != nil || !strings.Contains(notes, "is the app shop") {
		t.Errorf("%q, %v", notes, err)
	}
	var all v1.PackageDetail
	if err := json.Unmarshal([]byte(h.must("", "get", "all", "shop", "-o", "json").out), &all); err != nil || all.Values != values || all.Manifest == "" || all.Chart != "demo" {
		t.Errorf("%+v, %v", all, err)
	}
	h.write("all.yaml", h.must("", "get", "all", "shop", "-o", "yaml").out)
	before := release(h)
	if s := h.cli("", "upgrade", "shop", "demo", "-f", "all.yaml", "--detach"); s.code != 2 || !strings.Contains(s.err, "all.yaml: this is all that is known of a release") || release(h) != before {
		t.Errorf("%d %s", s.code, s.all)
	}
	if s := h.cli("", "get", "values", "shop", "--all"); s.code != 2 || !strings.Contains(s.err, "`fairlead chart show values demo`") || !strings.Contains(s.err, "version 0.1.0") {
		t.Errorf("%d %s", s.code, s.all)
	}
	h.must("", "upgrade", "shop", "demo", "--reset-values", "--detach")
	for _, format := range []string{"yaml", "json"} {
		if s := h.must("", "get", "values", "shop", "-o", format); s.out != "{}\n" || s.err != "" {
			t.Errorf("%s", s.all)
		}
	}
}
