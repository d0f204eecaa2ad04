package chart

import (
	"context"
	"regexp"
	"slices"
	"strings"

	helmchart "helm.sh/helm/v4/pkg/chart/v2"
)

// Varies is what is said of a file that is another one each time that it is rendered.
const Varies = "it is another one each time that it is rendered, so each upgrade changes the app: passwords and keys are made up once by secrets: {NAME: {external: true, x-fairlead: {generate: 32}}}"

// random are the functions whose result differs from call to call, those of mappings in their
// order; a field is none.
var random = regexp.MustCompile(`(^|[^\w.$])(rand(Alpha|AlphaNum|Ascii|Numeric|Bytes|Int)|shuffle|uuidv4|htpasswd|bcrypt|encryptAES|` +
	`gen(PrivateKey|CA|CAWithKey|SelfSignedCert|SelfSignedCertWithKey|SignedCert|SignedCertWithKey)|` +
	`now|ago|date|dateInZone|date_in_zone|htmlDate|htmlDateInZone|getHostByName|keys|values)\b`)

// action is what a template does, in text.
var action = regexp.MustCompile(`(?s)\{\{.*?\}\}`)

// Varying are the files that a chart makes otherwise when it is rendered once more, which it
// is only where something in it may. got is what it made.
func Varying(ctx context.Context, r Engine, req Request, got *Rendered) (names []string) {
	if !mayVary(req) {
		return nil
	}
	again, err := r.Render(ctx, req)
	if err != nil {
		return nil // it was rendered once
	}
	for name, text := range got.Files {
		if other, there := again.Files[name]; !there || other != text {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mayVary looks at all of a chart, as a template may render (tpl) what values and files hold.
func mayVary(req Request) bool {
	for _, f := range slices.Concat(req.Values.Kept, req.Values.Files, req.Values.Above) {
		if drawn(f.Data) {
			return true
		}
	}
	for _, s := range slices.Concat(req.Values.JSON, req.Values.Set, req.Values.String, req.Values.Literal) {
		if drawn([]byte(s)) {
			return true
		}
	}
	for _, b := range req.Values.Contents {
		if drawn(b) {
			return true
		}
	}
	c, err := load(req.Files)
	return err == nil && chartMayVary(c)
}

func chartMayVary(c *helmchart.Chart) bool {
	for _, f := range c.Raw {
		if !strings.HasPrefix(f.Name, "charts/") && drawn(f.Data) { // parts are looked at themselves
			return true
		}
	}
	return slices.ContainsFunc(c.Dependencies(), chartMayVary)
}

func drawn(b []byte) bool {
	return slices.ContainsFunc(action.FindAll(b, -1), random.Match)
}
