package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// PlanPush asks which layers of an image have to be sent, and where it goes.
func (c *Client) PlanPush(ctx context.Context, p v1.ImagePush) (v1.PushPlan, error) {
	return call[v1.PushPlan](ctx, c, http.MethodPost, path("images", "push", "plan"), nil, p)
}

// Push sends an image's tar, and calls done for each node that has it or could not
// take it. An error says that the first node did not take it.
func (c *Client) Push(ctx context.Context, p v1.PushStart, tar io.Reader, done func(v1.PushedNode)) error {
	enc, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the push: %w", err)
	}
	req, err := c.request(ctx, http.MethodPost, path("images", "push"), nil, tar)
	if err != nil {
		return err
	}
	req.Header.Set("Image-Push", base64.StdEncoding.EncodeToString(enc))
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for dec := json.NewDecoder(resp.Body); ; {
		var ev v1.PushEvent
		err := dec.Decode(&ev)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return cluster.Transientf("the server at %s ended the push without a result: %w", c.where, err)
		case ev.Error != nil:
			return &Error{Problem: *ev.Error}
		case ev.Node != nil:
			done(*ev.Node)
		case ev.Done:
			return nil
		}
	}
}
