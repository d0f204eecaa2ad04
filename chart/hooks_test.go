package chart_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/release/v1/util"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// One template says the same hooks in both ways, as annotations and as x-fairlead.hook.
const bothWays = `{{- range .Values.hooks }}
{{- if $.Values.helm }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .name }}
  annotations:
    helm.sh/hook: {{ join "," .at }}
{{- if hasKey . "weight" }}
    helm.sh/hook-weight: {{ .weight | quote }}
{{- end }}
{{- with .delete }}
    helm.sh/hook-delete-policy: {{ join "," . }}
{{- end }}
{{- else }}
---
services:
  {{ .name }}:
    image: shop/tool:1
    x-fairlead:
      hook:
        on: [{{ join ", " .at }}]
{{- if hasKey . "weight" }}
        weight: {{ .weight }}
{{- end }}
{{- with .delete }}
        delete: [{{ join ", " . }}]
{{- end }}
{{- end }}
{{- end }}
{{- if not .Values.helm }}
---
services: {web: {image: shop/web:1}}
{{- end }}
`

// At each point of a change the hooks run that Helm would run there, in its order, and
// what is left of them is removed when Helm removes it.
func TestHooksRunAsHelmRunsThem(t *testing.T) {
	all := "[pre-install, post-install, pre-upgrade, post-upgrade, pre-rollback, post-rollback, pre-delete, post-delete, test]"
	for name, hooks := range map[string]string{
		"one":           `[{name: a, at: [pre-install]}]`,
		"every point":   `[{name: a, at: ` + all + `}]`,
		"by weight":     `[{name: a, at: [pre-upgrade], weight: 5}, {name: b, at: [pre-upgrade], weight: -5}, {name: c, at: [pre-upgrade]}]`,
		"by name":       `[{name: b, at: [post-install]}, {name: a10, at: [post-install]}, {name: a2, at: [post-install]}, {name: a-1, at: [post-install]}]`,
		"weights equal": `[{name: z, at: [test], weight: 1}, {name: v, at: [test], weight: 1}, {name: x, at: [test], weight: 0}]`,
		"numbers":       `[{name: a, at: [pre-delete], weight: 10}, {name: b, at: [pre-delete], weight: 9}, {name: c, at: [pre-delete], weight: -10}, {name: d, at: [pre-delete], weight: -9}]`,
		"several points": `[{name: m, at: [pre-install, pre-upgrade], weight: 2}, {name: k, at: [pre-upgrade, post-rollback], weight: 1},
			{name: o, at: [post-rollback, pre-install]}]`,
		"policies": `[{name: a, at: [pre-install], delete: [hook-succeeded]}, {name: b, at: [pre-install], delete: [hook-succeeded, hook-failed]},
			{name: c, at: [pre-install], delete: [before-hook-creation, hook-failed]}, {name: d, at: [pre-install]}]`,
	} {
		t.Run(name, func(t *testing.T) {
			files := []chart.File{
				{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: shop\nversion: 1.0.0\n")},
				{Name: "values.yaml", Data: []byte("helm: false\nhooks: " + hooks + "\n")},
				{Name: "templates/hooks.yaml", Data: []byte(bothWays)},
			}
			req := chart.Request{Files: files, Release: chart.Release{Name: "shop", Revision: 1}}
			ours, err := chart.Render(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			project, err := ours.Compose(t.Context(), "shop", compose.Options{})
			if err != nil {
				t.Fatal(err)
			}
			req.Values = chart.Values{Set: []string{"helm=true"}}
			theirs, err := chart.Render(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			read, _, err := util.SortManifests(theirs.Files, nil, util.InstallOrder)
			if err != nil {
				t.Fatal(err)
			}
			for _, event := range cluster.HookEvents() {
				var got []string
				for _, h := range cluster.HooksAt(project.Hooks, event) {
					got = append(got, fmt.Sprint(h.Service, h.Weight, h.Delete))
				}
				if d := gocmp.Diff(helmsAt(read, release.HookEvent(event)), got); d != "" {
					t.Errorf("at %s, -Helm +here:\n%s", event, d)
				}
			}
			if t.Failed() {
				t.Log(strings.Join([]string{fmt.Sprint(theirs.Files), fmt.Sprint(ours.Files)}, "\n"))
			}
		})
	}
}

// helmsAt are the hooks that Helm runs at a point, as its action package chooses and
// orders them, which exports neither.
func helmsAt(hooks []*release.Hook, event release.HookEvent) []string {
	var at []*release.Hook
	for _, h := range hooks {
		if slices.Contains(h.Events, event) {
			at = append(at, h)
		}
	}
	slices.SortStableFunc(at, func(a, b *release.Hook) int {
		return cmp.Or(cmp.Compare(a.Weight, b.Weight), strings.Compare(a.Name, b.Name))
	})
	var out []string
	for _, h := range at {
		policies := h.DeletePolicies
		if len(policies) == 0 {
			policies = []release.HookDeletePolicy{release.HookBeforeHookCreation} // hookSetDeletePolicy
		}
		out = append(out, fmt.Sprint(cluster.ServiceName(h.Name), h.Weight, policies))
	}
	return out
}
