package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Secrets lists secrets without their values, of an app or of all with an empty name.
func (c *Client) Secrets(ctx context.Context, app cluster.AppName) ([]v1.SecretSummary, error) {
	return call[[]v1.SecretSummary](ctx, c, http.MethodGet, path("secrets"), appQuery(app), nil)
}

// Secret is one secret without its value.
func (c *Client) Secret(ctx context.Context, r cluster.SecretRef) (v1.SecretSummary, error) {
	return call[v1.SecretSummary](ctx, c, http.MethodGet, path("apps", string(r.App), "secrets", r.Name), nil, nil)
}

// SetSecret sets or generates a value, and rolls it out to the services that use it.
func (c *Client) SetSecret(ctx context.Context, r cluster.SecretRef, set v1.SecretSet) (v1.SecretResult, error) {
	return call[v1.SecretResult](ctx, c, http.MethodPut, path("apps", string(r.App), "secrets", r.Name), nil, set)
}

// RemoveSecret removes a secret; one that services use only with force.
func (c *Client) RemoveSecret(ctx context.Context, r cluster.SecretRef, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return remove(ctx, c, path("apps", string(r.App), "secrets", r.Name), q)
}

// Certs lists the certificates that gateways serve.
func (c *Client) Certs(ctx context.Context) ([]v1.CertSummary, error) {
	return call[[]v1.CertSummary](ctx, c, http.MethodGet, path("certs"), nil, nil)
}

// AddCert adds or replaces a certificate.
func (c *Client) AddCert(ctx context.Context, name string, in v1.CertAdd) (v1.CertSummary, error) {
	return call[v1.CertSummary](ctx, c, http.MethodPut, path("certs", name), nil, in)
}

// RemoveCert removes a certificate.
func (c *Client) RemoveCert(ctx context.Context, name string) error {
	return remove(ctx, c, path("certs", name), nil)
}

// Images lists the images on a node, or on all with an empty name.
func (c *Client) Images(ctx context.Context, node cluster.NodeID) ([]v1.NodeImage, error) {
	q := url.Values{}
	if node != "" {
		q.Set("node", string(node))
	}
	return call[[]v1.NodeImage](ctx, c, http.MethodGet, path("images"), q, nil)
}

// ResolveImage is the ID of an image that a node already has; it never asks a registry.
func (c *Client) ResolveImage(ctx context.Context, ref string) (v1.BuildResult, error) {
	return call[v1.BuildResult](ctx, c, http.MethodGet, path("images", "resolve"), url.Values{"ref": {ref}}, nil)
}

// Registries lists logins without their passwords.
func (c *Client) Registries(ctx context.Context) ([]v1.RegistrySummary, error) {
	return call[[]v1.RegistrySummary](ctx, c, http.MethodGet, path("registries"), nil, nil)
}

// Login keeps credentials of a registry, sealed; nodes use them when they pull.
func (c *Client) Login(ctx context.Context, in v1.RegistryLogin) (v1.RegistrySummary, error) {
	return call[v1.RegistrySummary](ctx, c, http.MethodPost, path("registries"), nil, in)
}

// Logout forgets credentials.
func (c *Client) Logout(ctx context.Context, host string) error {
	return remove(ctx, c, path("registries", host), nil)
}

// Build builds an image from a context sent as tar and writes the build's output to progress.
func (c *Client) Build(ctx context.Context, o v1.BuildOptions, tar io.Reader, progress io.Writer) (v1.BuildResult, error) {
	enc, err := json.Marshal(o)
	if err != nil {
		return v1.BuildResult{}, fmt.Errorf("encode the build's options: %w", err)
	}
	req, err := c.request(ctx, http.MethodPost, path("images", "build"), nil, tar)
	if err != nil {
		return v1.BuildResult{}, err
	}
	req.Header.Set("Build-Options", base64.StdEncoding.EncodeToString(enc))
	resp, err := c.send(req)
	if err != nil {
		return v1.BuildResult{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev v1.BuildEvent
		err := dec.Decode(&ev)
		switch {
		case ctx.Err() != nil:
			return v1.BuildResult{}, context.Cause(ctx)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return v1.BuildResult{}, cluster.Transientf("the server at %s ended the build without a result", c.where)
		case err != nil:
			return v1.BuildResult{}, cluster.Transientf("read the build's output: %w", err)
		case ev.Error != nil:
			return v1.BuildResult{}, &Error{Problem: *ev.Error}
		case ev.Result != nil:
			return *ev.Result, nil
		}
		if _, err := io.WriteString(progress, ev.Text); err != nil {
			return v1.BuildResult{}, fmt.Errorf("write the build's output: %w", err)
		}
	}
}

// Nodes lists the nodes.
func (c *Client) Nodes(ctx context.Context) ([]v1.NodeSummary, error) {
	return call[[]v1.NodeSummary](ctx, c, http.MethodGet, path("nodes"), nil, nil)
}

// Node is all that is known about a node.
func (c *Client) Node(ctx context.Context, id cluster.NodeID) (v1.NodeDetail, error) {
	return call[v1.NodeDetail](ctx, c, http.MethodGet, path("nodes", string(id)), nil, nil)
}

// ChangeNode changes a node's availability and labels.
func (c *Client) ChangeNode(ctx context.Context, id cluster.NodeID, ch v1.NodeChange) (v1.NodeSummary, error) {
	return call[v1.NodeSummary](ctx, c, http.MethodPatch, path("nodes", string(id)), nil, ch)
}

// Invite makes a token that machines join with; its value is told this once.
func (c *Client) Invite(ctx context.Context, in v1.Invite) (v1.Invitation, error) {
	return call[v1.Invitation](ctx, c, http.MethodPost, path("nodes", "invite"), nil, in)
}

// RemoveNode refuses a node from now on and forgets it; force takes one that is alive.
func (c *Client) RemoveNode(ctx context.Context, id cluster.NodeID, o v1.NodeRemoveOptions) error {
	q := url.Values{}
	if o.Force {
		q.Set("force", "true")
	}
	if o.LoseVolumes {
		q.Set("lose_volumes", "true")
	}
	return remove(ctx, c, path("nodes", string(id)), q)
}

// Tokens lists who may use the API with a token.
func (c *Client) Tokens(ctx context.Context) ([]cluster.Token, error) {
	return call[[]cluster.Token](ctx, c, http.MethodGet, path("tokens"), nil, nil)
}

// CreateToken makes a token; its value is told this once.
func (c *Client) CreateToken(ctx context.Context, name string) (v1.TokenCreated, error) {
	return call[v1.TokenCreated](ctx, c, http.MethodPost, path("tokens"), nil, v1.TokenCreate{Name: name})
}

// RemoveToken refuses a token from now on.
func (c *Client) RemoveToken(ctx context.Context, name string) error {
	return remove(ctx, c, path("tokens", name), nil)
}

// Servers lists the cluster's servers.
func (c *Client) Servers(ctx context.Context) ([]v1.ServerSummary, error) {
	return call[[]v1.ServerSummary](ctx, c, http.MethodGet, path("servers"), nil, nil)
}

// RemoveServer takes a server out of the cluster; force takes one that runs containers.
func (c *Client) RemoveServer(ctx context.Context, id cluster.NodeID, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return remove(ctx, c, path("servers", string(id)), q)
}
