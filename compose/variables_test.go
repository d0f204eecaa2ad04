package compose

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVariablesInNumbersOfTheExtension(t *testing.T) {
	t.Parallel()
	const file = `services:
  web:
    image: a
    deploy: {resources: {reservations: {cpus: "1"}}}
    x-fairlead:
      routes: [{host: a.b, port: $PORT, internal: "${INT:-true}"}]
      autoscale: {min: "${MIN:-2}", max: "${MAX:-4}", cpu: "${CPU:-70%}"}
secrets: {pw: {external: true, x-fairlead: {generate: "${LEN:-32}"}}}
`
	r, err := Load(t.Context(), Options{Files: []string{write(t, file)}, Env: map[string]string{"PORT": "8080"}})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Services["web"]
	if rt := s.Routes[0]; rt.Port != 8080 || !rt.Internal {
		t.Errorf("%+v", rt)
	}
	if a := s.Autoscale; a.Min != 2 || a.Max != 4 || r.Secrets[0].Generate != 32 {
		t.Errorf("%+v, %+v", a, r.Secrets[0])
	}
	_, err = Load(t.Context(), Options{Files: []string{write(t, file)}, Env: map[string]string{"PORT": "http", "INT": "perhaps", "MAX": "20000", "LEN": "2"}})
	want := []string{
		`compose.yaml:6: services.web.x-fairlead.routes[0].internal: must be true or false, this is the text "perhaps"`,
		`compose.yaml:6: services.web.x-fairlead.routes[0].port: must be a whole number, this is the text "http"`,
		`compose.yaml:7: services.web.x-fairlead.autoscale.max: maximum: got 20,000, want 10,000`,
		`compose.yaml:8: secrets.pw.x-fairlead.generate: minimum: got 2, want 8`,
	}
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
