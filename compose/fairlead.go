package compose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/fairlead/fairlead/cluster"
)

// The x-fairlead extension. Each field's doc tag is its description in the
// published schema (docs/schema/x-fairlead.json), its schema tag the rest.

// appExtension is x-fairlead at the top of the file.
type appExtension struct {
	Domain string `json:"domain,omitempty" schema:"minLength=1" doc:"Domain of default route hosts, <service>.<app>.<domain>."`
}

// serviceExtension is x-fairlead of a service.
type serviceExtension struct {
	Routes    []routeExtension    `json:"routes,omitempty" doc:"How the service is reached by HTTP through the gateways. Public unless internal."`
	Autoscale *autoscaleExtension `json:"autoscale,omitempty" doc:"Bounds and targets for the autoscaler."`
	SecretEnv map[string]string   `json:"secret_env,omitempty" doc:"Environment variables whose values are secrets: variable to name of a secret."`
	Health    *healthExtension    `json:"health,omitempty" doc:"A probe from the node, for images without a command to check with. Excludes healthcheck."`
	Hook      *hookExtension      `json:"hook,omitempty" doc:"In a package: the service is none of the app, and runs once at some point of a change."`
}

type routeExtension struct {
	Host     string `json:"host,omitempty" doc:"Host name. Default: <service>.<app>.<domain>; * is every host."`
	Path     string `json:"path,omitempty" schema:"pattern=^/" doc:"Path prefix. Default: every path."`
	Port     int    `json:"port,omitempty" schema:"minimum=1,maximum=65535" doc:"Port of the container. Default: the only exposed one."`
	Internal bool   `json:"internal,omitempty" doc:"Answer on the internal entry point alone."`
	TLS      bool   `json:"tls,omitempty" doc:"Serve on the TLS entry point too."`
}

type autoscaleExtension struct {
	Min        int     `json:"min,omitempty" schema:"minimum=1,maximum=10000" doc:"Fewest replicas. Default 1."`
	Max        int     `json:"max" schema:"minimum=1,maximum=10000,required" doc:"Most replicas."`
	CPU        percent `json:"cpu,omitempty" doc:"Target CPU use, of the reservation: 70%."`
	Memory     percent `json:"memory,omitempty" doc:"Target memory use, of the reservation: 80%."`
	UpWindow   seconds `json:"up_window,omitempty" doc:"How long a higher count must be wanted. Default 0s."`
	DownWindow seconds `json:"down_window,omitempty" doc:"How long a lower count must be wanted. Default 5m."`
}

type healthExtension struct {
	HTTP          string  `json:"http,omitempty" schema:"pattern=^/" doc:"Path that answers 200 to 399 when the task works."`
	Port          int     `json:"port,omitempty" schema:"minimum=1,maximum=65535" doc:"Port for http."`
	TCP           int     `json:"tcp,omitempty" schema:"minimum=1,maximum=65535" doc:"Port that accepts connections when the task works."`
	Interval      seconds `json:"interval,omitempty" doc:"Default 10s."`
	Timeout       seconds `json:"timeout,omitempty" doc:"Default 3s."`
	Retries       int     `json:"retries,omitempty" schema:"minimum=1,maximum=1000" doc:"Failures in a row that make a task unhealthy. Default 3."`
	StartPeriod   seconds `json:"start_period,omitempty" doc:"Failures do not count for this long."`
	StartInterval seconds `json:"start_interval,omitempty" doc:"Interval within start_period."`
}

type hookExtension struct {
	On     words `json:"on" schema:"required" doc:"Points of a change: pre-install, post-install, pre-upgrade, post-upgrade, pre-rollback, post-rollback, pre-delete, post-delete, test. A list, or one text with commas."`
	Weight int   `json:"weight,omitempty" schema:"minimum=-10000,maximum=10000" doc:"Order among the hooks of a point, the lowest first. Default 0."`
	Delete words `json:"delete,omitempty" doc:"When what is left of it is removed: before-hook-creation (the default), hook-succeeded, hook-failed. A list, or one text with commas."`
}

// secretExtension is x-fairlead of a secret.
type secretExtension struct {
	Generate int    `json:"generate,omitempty" schema:"minimum=8,maximum=1024" doc:"Characters to generate when the secret is missing."`
	Vault    string `json:"vault,omitempty" doc:"Where the value is in the servers' Vault: MOUNT/PATH#FIELD, as in kv/shop/db#password."`
}

// percent reads 70 and "70%".
type percent int

func (p *percent) UnmarshalJSON(b []byte) error {
	s := strings.TrimSuffix(strings.Trim(string(b), `"`), "%")
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 1 || n > 1000 {
		return fmt.Errorf("%s is not a percentage from 1%% to 1000%%", b)
	}
	*p = percent(n)
	return nil
}

// words reads a list of words, and one text of them with commas between, as Helm's
// annotations are.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		return json.Unmarshal(b, (*[]string)(w))
	}
	for s := range strings.SplitSeq(text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			*w = append(*w, s)
		}
	}
	return nil
}

// seconds reads "90s" and "5m".
type seconds time.Duration

func (d *seconds) UnmarshalJSON(b []byte) error {
	v, err := time.ParseDuration(strings.Trim(string(b), `"`))
	if err != nil || v < 0 {
		return fmt.Errorf("%s is not a duration such as 90s", b)
	}
	*d = seconds(v)
	return nil
}

// extensionSchema is compiled once: it never changes while the program runs.
var extensionSchema = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	values, err := valueSchema()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if err := c.AddResource("x-fairlead.json", doc); err != nil {
		return nil, err
	}
	out := map[string]*jsonschema.Schema{}
	for _, part := range []string{"app", "service", "secret"} {
		if out[part], err = c.Compile("x-fairlead.json#/$defs/" + part); err != nil {
			return nil, err
		}
	}
	return out, nil
})

// checkExtensions examines every x-fairlead of a document against the schema.
func (l *load) checkExtensions(d *doc) {
	schemas, err := extensionSchema()
	if err != nil {
		l.refuse(cluster.Source{File: d.file}, "x-fairlead", err.Error(), "")
		return
	}
	one := func(part string, e *entry, path ...string) {
		if e != nil && !e.val.bad && e.val.kind != nullNode {
			l.extensionKeys(d, e.val, part, path)
			l.extensionValues(d, e.val, path)
			l.validate(schemas[part], d, e.val, path)
		}
	}
	one("app", d.root.entry("x-fairlead"), "x-fairlead")
	for section, part := range map[string]string{"services": "service", "secrets": "secret"} {
		s := d.root.get(section)
		if s == nil || s.kind != mapNode {
			continue
		}
		for _, e := range s.entries {
			one(part, e.val.entry("x-fairlead"), section, e.key, "x-fairlead")
		}
	}
}

// extensionValues checks what a JSON schema does not: percentages and durations.
func (l *load) extensionValues(d *doc, n *node, path []string) {
	check := func(e *entry, into json.Unmarshaler, p ...string) {
		if e == nil || e.val.bad || e.val.kind != scalarNode {
			return
		}
		if err := into.UnmarshalJSON([]byte(strconv.Quote(e.val.value))); err != nil {
			l.refuse(cluster.Source{File: d.file, Line: e.line}, dotted(append(append([]string{}, path...), append(p, e.key)...)...), err.Error(), "")
			e.val.bad = true
		}
	}
	for _, k := range []string{"cpu", "memory"} {
		check(n.get("autoscale").entry(k), new(percent), "autoscale")
	}
	for _, k := range []string{"up_window", "down_window"} {
		check(n.get("autoscale").entry(k), new(seconds), "autoscale")
	}
	for _, k := range []string{"interval", "timeout", "start_period", "start_interval"} {
		check(n.get("health").entry(k), new(seconds), "health")
	}
}

// decodeExtension fills into from the merged x-fairlead of something.
func (c *converter) decodeExtension(x any, into any, path ...string) bool {
	if x == nil {
		return false
	}
	b, err := json.Marshal(castText(x, reflect.TypeOf(into)))
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		c.refuse(c.idx.at(path...), dotted(path...), "cannot be read: "+err.Error(), "")
		return false
	}
	return true
}

func (c *converter) appExtension() {
	var x appExtension
	if c.decodeExtension(c.p.Extensions["x-fairlead"], &x, "x-fairlead") && x.Domain != "" {
		c.res.Domain = strings.ToLower(strings.Trim(x.Domain, "."))
		if !validHost(c.res.Domain) {
			c.refuse(c.idx.at("x-fairlead", "domain"), "x-fairlead.domain", quote(x.Domain)+" is not a domain", "")
		}
	}
}

func (c *converter) serviceExtension(name string) *serviceExtension {
	var x serviceExtension
	if !c.decodeExtension(c.p.Services[name].Extensions["x-fairlead"], &x, "services", name, "x-fairlead") {
		return nil
	}
	return &x
}

func (c *converter) secretExtension(key string) *secretExtension {
	var x secretExtension
	if !c.decodeExtension(c.p.Secrets[key].Extensions["x-fairlead"], &x, "secrets", key, "x-fairlead") {
		return nil
	}
	return &x
}

// probe converts x-fairlead.health.
func (c *converter) probe(name string, h *healthExtension) *cluster.Health {
	out := &cluster.Health{
		HTTPPath: h.HTTP, TCPPort: h.TCP, Interval: cluster.Duration(h.Interval), Timeout: cluster.Duration(h.Timeout), Retries: h.Retries,
		StartPeriod: cluster.Duration(h.StartPeriod), StartInterval: cluster.Duration(h.StartInterval),
	}
	path := []string{"x-fairlead", "health"}
	switch {
	case (h.HTTP == "") == (h.TCP == 0):
		c.no("one of http and tcp is needed", "write health: {http: /healthz, port: 8080}", name, path...)
	case h.HTTP != "" && h.Port == 0:
		c.no("http needs a port", "write health: {http: /healthz, port: 8080}", name, path...)
	case h.HTTP == "" && h.Port != 0:
		c.no("port belongs to http", "", name, path...)
	}
	if h.HTTP != "" {
		out.HTTPPort = h.Port
	}
	return out
}

// validHost reports whether a lower-case host can stand in a route.
func validHost(h string) bool { return h == strings.ToLower(h) && cluster.ValidHost(h) }
