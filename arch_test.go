package fairlead_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fairlead/fairlead"

// allowed lists, for each package, the packages of this module that it may
// import. Control loops meet in the store, never in Go imports.
var allowed = map[string][]string{
	"cluster":         {},
	"atomicfile":      {},
	"outage":          {},
	"loop":            {"cluster", "outage"},
	"compose":         {"cluster", "proxyconf"}, // proxyconf.Check alone, as api/plan
	"scheduler":       {"cluster"},
	"rollout":         {"cluster"},
	"hook":            {"cluster"},
	"autoscaler":      {"cluster"},
	"registry":        {"cluster"},
	"proxyconf":       {"cluster"},
	"metrics":         {"cluster"},
	"pki":             {"cluster"},
	"store":           {"cluster", "outage", "store/internal/zaplog"},
	"store/proxy":     {"cluster", "store", "pki"},
	"store/embedded":  {"cluster", "store", "pki", "store/storetest", "store/internal/zaplog"},
	"store/storetest": {"cluster", "store"},

	"store/internal/zaplog":   {},
	"store/embedded/etcdtest": {"cluster", "store", "store/embedded", "pki", "integration/need"},

	"control": {
		"cluster", "store", "loop", "outage", "scheduler", "rollout", "autoscaler", "registry", "proxyconf", "secrets", "preview", "hook", "delivery",
	},
	"preview":        {"cluster", "scheduler", "rollout"}, // their pure planners, over a change that is not made
	"agent":          {"cluster", "outage", "atomicfile", "agent/docker", "agent/probe", "agent/taskinit"},
	"agent/docker":   {"cluster"},
	"agent/probe":    {"cluster"},
	"agent/taskinit": {},
	"dns":            {"cluster"},
	"mesh":           {"cluster", "outage", "dns", "atomicfile", "nftwatch"},
	"proc":           {"cluster"},
	"gateway":        {"cluster", "outage", "proc", "atomicfile", "nftwatch"},
	"names":          {"cluster", "dns", "proc", "atomicfile"},
	"nftwatch":       {},
	"secrets":        {"cluster"},
	"secrets/sealed": {"cluster", "secrets"},
	"secrets/vault":  {"cluster", "secrets"},
	"api/v1":         {"cluster"},
	"api":            {"cluster", "store", "api/v1", "api/plan", "secrets", "delivery/image"}, // image.Check alone
	"api/plan":       {"cluster", "api/v1", "proxyconf"},                                      // proxyconf.Check alone: what gateways refuse is refused before
	"client":         {"cluster", "api/v1"},
	"tunnel":         {"cluster", "api", "api/v1"},
	"lab":            {"cluster", "client", "api/v1", "proc", "atomicfile", "agent/docker", "gateway"},
	"chart":          {"cluster", "compose"},
	"delivery":       {"cluster"},
	"delivery/image": {"cluster"},
	"delivery/sops":  {},
	"delivery/work":  {"cluster", "api/v1", "compose", "chart", "delivery/image", "delivery/sops", "proc"},
	"cli":            {"cluster", "client", "api/v1", "compose", "chart", "delivery/work", "delivery/image", "lab", "agent/docker"}, // images of the user's own engine

	"chart/charttest": {"chart"},
}

// free lists the packages that wire or test others, and may import anything.
var free = []string{"", "server", "cmd/fairlead", "bench", "docs"}

// only lists the packages that may import a library whose reach is kept small.
var only = map[string][]string{
	"github.com/docker/docker/":     {"agent/docker"},
	"go.etcd.io/etcd/client/v3":     {"store", "store/embedded", "gateway"},
	"go.etcd.io/etcd/server/v3":     {"store/embedded"},
	"github.com/hashicorp/vault/":   {"secrets/vault"},
	"github.com/compose-spec/":      {"compose"},
	"helm.sh/helm/":                 {"chart", "chart/charttest"},
	"github.com/go-git/":            {"delivery/work"},
	"github.com/getsops/":           {}, // it brings four clouds' libraries
	"github.com/google/go-cont":     {"delivery/work"},
	"github.com/spf13/cobra":        {"cli", "server", "cmd/fairlead"},
	"github.com/danielgtaylor/huma": {"api"},
}

func TestImportDirection(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg := strings.TrimPrefix(strings.TrimPrefix(f[0], module), "/")
		if slices.Contains(free, pkg) || strings.HasPrefix(pkg, "integration") {
			continue
		}
		may, listed := allowed[pkg]
		if !listed {
			t.Errorf("package %s has no entry in allowed", pkg)
			continue
		}
		for _, imp := range f[1:] {
			if own, in := strings.CutPrefix(imp, module+"/"); in && !slices.Contains(may, own) {
				t.Errorf("%s may not import %s", pkg, own)
			}
			for lib, users := range only {
				if strings.HasPrefix(imp, lib) && !slices.Contains(users, pkg) {
					t.Errorf("%s may not import %s: only %v may", pkg, imp, users)
				}
			}
			if pkg == "cluster" && strings.Contains(imp, ".") {
				t.Errorf("cluster may import the standard library only, not %s", imp)
			}
		}
	}
}
