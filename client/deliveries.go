package client

import (
	"context"
	"net/http"
	"net/url"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Deliveries lists the deliveries, and where they stand.
func (c *Client) Deliveries(ctx context.Context) ([]v1.DeliveryStatus, error) {
	return call[[]v1.DeliveryStatus](ctx, c, http.MethodGet, path("deliveries"), nil, nil)
}

// Delivery is one delivery.
func (c *Client) Delivery(ctx context.Context, n cluster.DeliveryName) (v1.DeliveryStatus, error) {
	return call[v1.DeliveryStatus](ctx, c, http.MethodGet, path("deliveries", string(n)), nil, nil)
}

// SetDelivery makes an app follow a source.
func (c *Client) SetDelivery(ctx context.Context, n cluster.DeliveryName, d v1.DeliverySet) (v1.DeliveryStatus, error) {
	return call[v1.DeliveryStatus](ctx, c, http.MethodPut, path("deliveries", string(n)), nil, d)
}

// RemoveDelivery ends that; the app stays. It is refused where others depend on it, unless
// forced.
func (c *Client) RemoveDelivery(ctx context.Context, n cluster.DeliveryName, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	_, err := call[struct{}](ctx, c, http.MethodDelete, path("deliveries", string(n)), q, nil)
	return err
}

// Reconcile asks for a look at the source now; again: what failed and was gone back from is
// tried again. It returns once that is noted.
func (c *Client) Reconcile(ctx context.Context, n cluster.DeliveryName, again bool) (v1.DeliveryAsked, error) {
	q := url.Values{}
	if again {
		q.Set("again", "true")
	}
	return call[v1.DeliveryAsked](ctx, c, http.MethodPost, path("deliveries", string(n), "reconcile"), q, nil)
}

// Suspend leaves the app as it is, until Resume.
func (c *Client) Suspend(ctx context.Context, n cluster.DeliveryName) (v1.DeliveryStatus, error) {
	return call[v1.DeliveryStatus](ctx, c, http.MethodPost, path("deliveries", string(n), "suspend"), nil, nil)
}

// Resume follows the source again.
func (c *Client) Resume(ctx context.Context, n cluster.DeliveryName) (v1.DeliveryStatus, error) {
	return call[v1.DeliveryStatus](ctx, c, http.MethodPost, path("deliveries", string(n), "resume"), nil, nil)
}

// DeliveryDiff is what the source has now would change.
func (c *Client) DeliveryDiff(ctx context.Context, n cluster.DeliveryName) (v1.DeliveryDiff, error) {
	return call[v1.DeliveryDiff](ctx, c, http.MethodGet, path("deliveries", string(n), "diff"), nil, nil)
}

// Trace leads from a service's containers back to who made them so.
func (c *Client) Trace(ctx context.Context, s cluster.ServiceID) (v1.Trace, error) {
	return call[v1.Trace](ctx, c, http.MethodGet, path("apps", string(s.App), "services", string(s.Name), "trace"), nil, nil)
}
