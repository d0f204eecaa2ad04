package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Server says what a client must know of the cluster: versions, domain, nodes.
func (c *Client) Server(ctx context.Context) (v1.ServerInfo, error) {
	return call[v1.ServerInfo](ctx, c, http.MethodGet, path("version"), nil, nil)
}

// Health says whether the server can answer; it needs no token.
func (c *Client) Health(ctx context.Context) (v1.ServerHealth, error) {
	return call[v1.ServerHealth](ctx, c, http.MethodGet, path("health"), nil, nil)
}

// Status is the state of the cluster at a glance.
func (c *Client) Status(ctx context.Context) (v1.ClusterStatus, error) {
	return call[v1.ClusterStatus](ctx, c, http.MethodGet, path("status"), nil, nil)
}

// Plan says what Deploy would do with the same bundle, and changes nothing.
func (c *Client) Plan(ctx context.Context, app cluster.AppName, b v1.Bundle) (v1.Plan, error) {
	return call[v1.Plan](ctx, c, http.MethodPost, path("apps", string(app), "plan"), nil, b)
}

// Deploy makes the app as the bundle says. It returns once that is stored; Watch
// follows what comes of it.
func (c *Client) Deploy(ctx context.Context, app cluster.AppName, b v1.Bundle) (v1.DeployResult, error) {
	return call[v1.DeployResult](ctx, c, http.MethodPost, path("apps", string(app), "deploy"), nil, b)
}

// Apps lists the apps.
func (c *Client) Apps(ctx context.Context) ([]v1.AppSummary, error) {
	return call[[]v1.AppSummary](ctx, c, http.MethodGet, path("apps"), nil, nil)
}

// App is the status of an app.
func (c *Client) App(ctx context.Context, app cluster.AppName) (v1.AppDetail, error) {
	return call[v1.AppDetail](ctx, c, http.MethodGet, path("apps", string(app)), nil, nil)
}

// Remove removes an app's services; its volumes and, unless told otherwise, its secrets stay.
func (c *Client) Remove(ctx context.Context, app cluster.AppName, o v1.RemoveOptions) (v1.RemoveResult, error) {
	q := url.Values{}
	if o.PurgeSecrets {
		q.Set("purge_secrets", "true")
	}
	if o.KeepHistory {
		q.Set("keep_history", "true")
	}
	if o.NoHooks {
		q.Set("no_hooks", "true")
	}
	if o.Timeout > 0 {
		q.Set("timeout", o.Timeout.String())
	}
	return call[v1.RemoveResult](ctx, c, http.MethodDelete, path("apps", string(app)), q, nil)
}

// Update changes images of services, in a new release.
func (c *Client) Update(ctx context.Context, app cluster.AppName, r v1.UpdateRequest) (v1.DeployResult, error) {
	return call[v1.DeployResult](ctx, c, http.MethodPost, path("apps", string(app), "update"), nil, r)
}

// Restart replaces the tasks of services without changing them, in a new release.
func (c *Client) Restart(ctx context.Context, app cluster.AppName, r v1.RestartRequest) (v1.DeployResult, error) {
	return call[v1.DeployResult](ctx, c, http.MethodPost, path("apps", string(app), "restart"), nil, r)
}

// Rollback makes a new release equal to an earlier one; 0 means the one before the current one.
func (c *Client) Rollback(ctx context.Context, app cluster.AppName, release int) (v1.DeployResult, error) {
	return c.RollbackWith(ctx, app, v1.RollbackRequest{Release: release})
}

// RollbackWith is Rollback with all that can be said.
func (c *Client) RollbackWith(ctx context.Context, app cluster.AppName, r v1.RollbackRequest) (v1.DeployResult, error) {
	return call[v1.DeployResult](ctx, c, http.MethodPost, path("apps", string(app), "rollback"), nil, r)
}

// Test begins the tests of the app's package; App tells what comes of them.
func (c *Client) Test(ctx context.Context, app cluster.AppName, r v1.TestRequest) (v1.HookProgress, error) {
	return call[v1.HookProgress](ctx, c, http.MethodPost, path("apps", string(app), "test"), nil, r)
}

// Scale sets counts. They are kept by later deploys.
func (c *Client) Scale(ctx context.Context, app cluster.AppName, r v1.ScaleRequest) ([]v1.Scaled, error) {
	return call[[]v1.Scaled](ctx, c, http.MethodPost, path("apps", string(app), "scale"), nil, r)
}

// History lists an app's releases, newest first.
func (c *Client) History(ctx context.Context, app cluster.AppName) ([]v1.ReleaseSummary, error) {
	return call[[]v1.ReleaseSummary](ctx, c, http.MethodGet, path("apps", string(app), "releases"), nil, nil)
}

// Release is one release with what it was made of.
func (c *Client) Release(ctx context.Context, app cluster.AppName, n int) (v1.ReleaseDetail, error) {
	return call[v1.ReleaseDetail](ctx, c, http.MethodGet, path("apps", string(app), "releases", strconv.Itoa(n)), nil, nil)
}

// Package is what a release of an app was installed from; 0 means the current one.
func (c *Client) Package(ctx context.Context, app cluster.AppName, release int) (v1.PackageDetail, error) {
	q := url.Values{}
	if release != 0 {
		q.Set("release", strconv.Itoa(release))
	}
	return call[v1.PackageDetail](ctx, c, http.MethodGet, path("apps", string(app), "package"), q, nil)
}

// Services lists the services of an app, or of all with an empty name.
func (c *Client) Services(ctx context.Context, app cluster.AppName) ([]v1.ServiceSummary, error) {
	return call[[]v1.ServiceSummary](ctx, c, http.MethodGet, path("services"), appQuery(app), nil)
}

// Service is all that is known about a service.
func (c *Client) Service(ctx context.Context, id cluster.ServiceID) (v1.ServiceDetail, error) {
	return call[v1.ServiceDetail](ctx, c, http.MethodGet, path("apps", string(id.App), "services", string(id.Name)), nil, nil)
}

// Tasks lists the tasks of an app, or of all with an empty name; with ended also
// those whose container is gone.
func (c *Client) Tasks(ctx context.Context, app cluster.AppName, ended bool) ([]v1.TaskStatus, error) {
	q := appQuery(app)
	if ended {
		q.Set("ended", "true")
	}
	return call[[]v1.TaskStatus](ctx, c, http.MethodGet, path("tasks"), q, nil)
}

// Task is all that is known about a task.
func (c *Client) Task(ctx context.Context, id cluster.TaskID) (v1.TaskDetail, error) {
	return call[v1.TaskDetail](ctx, c, http.MethodGet, path("tasks", string(id)), nil, nil)
}

// Explain says why an app (empty service), a service or a slot is as it is.
func (c *Client) Explain(ctx context.Context, a cluster.Address) ([]v1.Explanation, error) {
	return call[[]v1.Explanation](ctx, c, http.MethodGet, path("apps", string(a.App), "explain"), addressQuery(a), nil)
}

// Exposure lists what is reachable from outside, of an app or of all with an empty name.
func (c *Client) Exposure(ctx context.Context, app cluster.AppName) ([]v1.Exposed, error) {
	return call[[]v1.Exposed](ctx, c, http.MethodGet, path("exposure"), appQuery(app), nil)
}

// OpenAPI is the description of the API, as JSON.
func (c *Client) OpenAPI(ctx context.Context) (map[string]any, error) {
	return call[map[string]any](ctx, c, http.MethodGet, "/openapi.json", nil, nil)
}

func appQuery(app cluster.AppName) url.Values {
	q := url.Values{}
	if app != "" {
		q.Set("app", string(app))
	}
	return q
}

func addressQuery(a cluster.Address) url.Values {
	q := url.Values{}
	if a.Service != "" {
		q.Set("service", string(a.Service))
	}
	if a.Slot > 0 {
		q.Set("slot", strconv.Itoa(a.Slot))
	}
	return q
}
