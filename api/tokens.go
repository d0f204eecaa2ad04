package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerTokens(api huma.API) {
	handle(api, op(http.MethodGet, "/tokens", "list-tokens", "cluster", "List who has a token"), s.listTokens)
	handle(api, op(http.MethodPost, "/tokens", "create-token", "cluster", "Make a token; it is shown this once"), s.createToken)
	handle(api, op(http.MethodDelete, "/tokens/{name}", "remove-token", "cluster", "Refuse a token from now on"), s.removeToken)
}

type tokenInput struct{ Body v1.TokenCreate }

type tokenPath struct {
	Name string `path:"name" maxLength:"100"`
}

// tokenHash is the key under which a token is known; the token itself is kept nowhere.
func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func (s *Server) tokens() (out []store.Value[cluster.Token]) {
	s.Mirror.Read(func(v store.View) { out = store.All[cluster.Token](v, store.TokenKey(""), nil) })
	return out
}

// tokenName says whose token it is.
func (s *Server) tokenName(token string) (name string, ok bool) {
	s.Mirror.Read(func(v store.View) {
		rec, found, err := store.One[cluster.Token](v, store.TokenKey(tokenHash(token)))
		name, ok = rec.V.Name, found && err == nil && !rec.V.Join
	})
	return name, ok
}

func (s *Server) listTokens(context.Context, *noInput) ([]cluster.Token, error) {
	out := []cluster.Token{}
	for _, t := range s.tokens() {
		out = append(out, t.V)
	}
	return out, nil
}

func (s *Server) createToken(ctx context.Context, in *tokenInput) (v1.TokenCreated, error) {
	if err := cluster.ValidName("token", in.Body.Name); err != nil {
		return v1.TokenCreated{}, err
	}
	for _, t := range s.tokens() {
		if t.V.Name == in.Body.Name {
			return v1.TokenCreated{}, cluster.Invalidf("there is a token named %q; remove it first with `fairlead token rm %s`, or choose another name", in.Body.Name, in.Body.Name)
		}
	}
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return v1.TokenCreated{}, fmt.Errorf("make a token: %w", err)
	}
	token := "fl_" + base64.RawURLEncoding.EncodeToString(b[:])
	rec := cluster.Token{Name: in.Body.Name, Created: s.Now().UTC(), By: who(ctx)}
	if err := s.replace(ctx, store.TokenKey(tokenHash(token)), rec); err != nil {
		return v1.TokenCreated{}, err
	}
	s.Log.Info("made a token", "token", rec.Name, "by", rec.By)
	return v1.TokenCreated{Token: rec, Value: token, CA: s.CA, URL: s.URL}, nil
}

func (s *Server) removeToken(ctx context.Context, in *tokenPath) (nothing, error) {
	for _, t := range s.tokens() {
		if t.V.Name == in.Name {
			s.Log.Info("removed a token", "token", in.Name, "by", who(ctx))
			return nothing{}, s.forget(ctx, t.Key, nil)
		}
	}
	return nothing{}, cluster.NotFoundf("there is no token %q; `fairlead token ls` lists them", in.Name)
}
