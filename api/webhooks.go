package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

const (
	hooksPrefix = "/v1/hooks/"
	maxHook     = 5 << 20 // bytes: a push of many commits
)

type hookInput struct {
	DeliveryPath
	GitHub  string `header:"X-Hub-Signature-256" doc:"sha256=HMAC of the body: GitHub, Gitea, Forgejo"`
	GitLab  string `header:"X-Gitlab-Token" doc:"the secret itself"`
	Gitea   string `header:"X-Gitea-Signature" doc:"HMAC of the body"`
	Generic string `header:"X-Signature-256" doc:"sha256=HMAC of the body"`
	Flux    string `header:"X-Signature" doc:"sha256=HMAC of the body"`
	Old     string `header:"X-Hub-Signature" doc:"sha256=HMAC of the body: Bitbucket"`
	RawBody []byte
}

// hook takes a webhook. It only asks for a look at the source, so what is in it is
// not believed, and one that is sent again does no harm.
func (s *Server) hook(ctx context.Context, in *hookInput) (nothing, error) {
	// The same answer whatever is wrong: nobody learns which deliveries there are.
	refused := &cluster.Error{Kind: cluster.KindForbidden, Msg: "there is no such webhook, or its signature does not hold"}
	d, err := s.delivery(in.name())
	if err != nil || d.Webhook == "" || s.Resolver == nil {
		return nothing{}, refused
	}
	var rec store.Value[cluster.SecretRecord]
	var ok bool
	s.Mirror.Read(func(v store.View) {
		rec, ok, err = store.One[cluster.SecretRecord](v, store.SecretKey(cluster.SecretRef{App: d.App, Name: d.Webhook}))
	})
	if err != nil || !ok {
		return nothing{}, refused
	}
	key, err := s.Resolver.Resolve(ctx, rec.V)
	if err != nil {
		return nothing{}, cluster.Transientf("the webhook's secret cannot be read: %w", err)
	}
	if !in.signed(key.Reveal()) {
		return nothing{}, refused
	}
	if d.Suspend {
		return nothing{}, nil
	}
	_, err = s.ask(ctx, d.Name, "webhook", false)
	return nothing{}, err
}

// signed reports whether who sent it has the key.
func (in *hookInput) signed(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	if in.GitLab != "" {
		return subtle.ConstantTimeCompare([]byte(in.GitLab), key) == 1
	}
	for _, sig := range []string{in.GitHub, in.Gitea, in.Generic, in.Flux, in.Old} {
		if sig == "" {
			continue
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(in.RawBody)
		got, err := hex.DecodeString(strings.TrimPrefix(sig, "sha256="))
		return err == nil && hmac.Equal(got, mac.Sum(nil))
	}
	return false
}
