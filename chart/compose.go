package chart

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// Compose reads what the templates made as one Compose project, merged in the order
// of the files' names. o says for which cluster; where the files are is known here.
// Problems name the template, and the line of what it made.
func (r *Rendered) Compose(ctx context.Context, app cluster.AppName, o compose.Options) (*compose.Result, error) {
	docs := []compose.Document{}
	var foreign []compose.Problem
	for _, name := range r.Documents() {
		content := []byte(r.Files[name])
		foreign = append(foreign, kubernetes(name, content)...)
		docs = append(docs, compose.Document{Name: name, Content: content})
	}
	for _, name := range r.CRDs {
		foreign = append(foreign, compose.Problem{
			File: name, Message: "crds/ has what Kubernetes is taught before a chart is installed, and there is none here",
			Advice: "leave it out of the package, or pass it over with --skip-crds; a chart for both worlds has it among its templates, below {{ if not (.Capabilities.APIVersions.Has \"" + APIVersion + "\") }}",
		})
	}
	if foreign != nil {
		return nil, &compose.Problems{List: foreign}
	}
	if err := r.Clashes(); err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, cluster.Invalidf("the templates of %s make no Compose document with these values", r.Chart.Name)
	}
	o.App, o.Packaged, o.Files, o.Dir = app, docs, nil, ""
	return compose.Load(ctx, o)
}

// instead is what takes the place of a kind of Kubernetes'.
func instead(kind string) string {
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "ReplicationController":
		return "write it as a service: services: {NAME: {image: …}}"
	case "Job", "CronJob":
		return "write a service with restart: \"no\", or with x-fairlead.hook where it belongs to an update"
	case "Service", "Endpoints", "EndpointSlice":
		return "leave it out: a service is reached by its name"
	case "Ingress", "HTTPRoute", "Gateway", "IngressRoute":
		return "write x-fairlead: {routes: […]} in the service"
	case "ConfigMap":
		return "write configs: {NAME: {content: …}}"
	case "Secret":
		return "write secrets: {NAME: {external: true, x-fairlead: {generate: 32}}}"
	case "PersistentVolumeClaim", "PersistentVolume", "StorageClass":
		return "write volumes: {NAME: {}}, and name it in the service"
	case "HorizontalPodAutoscaler":
		return "write x-fairlead: {autoscale: {max: …, cpu: …}} in the service"
	case "NetworkPolicy":
		return "leave it out: nothing is reachable from outside unless a route or port says so, and networks: keep services apart"
	}
	return "leave it out, or render it only where .Capabilities.APIVersions.Has \"" + APIVersion + "\" is false"
}

// kubernetes finds manifests of Kubernetes' among the documents of a file.
func kubernetes(name string, content []byte) []compose.Problem {
	var out []compose.Problem
	for _, m := range mappings(content) {
		kind, version := scalar(m, "kind"), scalar(m, "apiVersion")
		if kind == nil || version == nil {
			continue
		}
		out = append(out, compose.Problem{
			File: name, Line: m.Line, Path: "kind",
			Message: fmt.Sprintf("a %.60q of Kubernetes' (%.60s): templates make Compose documents", kind.Value, version.Value),
			Advice:  instead(kind.Value),
		})
	}
	return out
}

// mappings are the documents of a file that are one, up to where it is no YAML: compose
// says where that is.
func mappings(content []byte) []*yaml.Node {
	var out []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var y yaml.Node
		if err := decode(dec, &y); err != nil {
			return out
		}
		if len(y.Content) > 0 && y.Content[0].Kind == yaml.MappingNode {
			out = append(out, y.Content[0])
		}
	}
}

func decode(dec *yaml.Decoder, y *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	return dec.Decode(y)
}

func scalar(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key && m.Content[i+1].Kind == yaml.ScalarNode {
			return m.Content[i+1]
		}
	}
	return nil
}

// Text is what the templates made, one file after the other, each below a line that
// names it. Only are names of files, from the chart's own directory on.
func (r *Rendered) Text(only ...string) string {
	var b strings.Builder
	for _, name := range r.Documents() {
		if len(only) > 0 && !slices.ContainsFunc(only, func(o string) bool { return name == o || name == path.Join(r.Chart.Name, o) }) {
			continue
		}
		fmt.Fprintf(&b, "---\n# Source: %s\n%s\n", name, strings.Trim(r.Files[name], "\n"))
	}
	return b.String()
}
