package api

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

func (s *Server) registerSecrets(api huma.API) {
	handle(api, op(http.MethodGet, "/secrets", "list-secrets", "secrets", "List secrets, without values"), s.listSecrets)
	handle(api, op(http.MethodGet, "/apps/{app}/secrets/{name}", "get-secret", "secrets", "One secret, without its value"), s.getSecret)
	handle(api, op(http.MethodPut, "/apps/{app}/secrets/{name}", "set-secret", "secrets", "Set or generate a value, and roll it out"), s.setSecret)
	handle(api, op(http.MethodDelete, "/apps/{app}/secrets/{name}", "remove-secret", "secrets", "Remove a secret"), s.removeSecret)
}

// SecretPath names a secret.
type SecretPath struct {
	AppPath
	Name string `path:"name" maxLength:"100"`
}

func (p SecretPath) ref() (cluster.SecretRef, error) {
	if err := cluster.ValidAppName(p.app()); err != nil {
		return cluster.SecretRef{}, err
	}
	return cluster.SecretRef{App: p.app(), Name: p.Name}, cluster.ValidName("secret", p.Name)
}

// users are the services that use each secret.
func users(services []cluster.Service) map[cluster.SecretRef][]cluster.ServiceName {
	out := map[cluster.SecretRef][]cluster.ServiceName{}
	for _, svc := range services {
		names := map[string]bool{}
		for _, f := range svc.Spec.Task.Secrets {
			names[f.Name] = true
		}
		for n := range names {
			ref := cluster.SecretRef{App: svc.App, Name: n}
			out[ref] = append(out[ref], svc.Name)
		}
	}
	for _, v := range out {
		slices.Sort(v)
	}
	return out
}

func (s *Server) listSecrets(_ context.Context, in *AppQuery) ([]v1.SecretSummary, error) {
	return s.secrets(cluster.AppName(in.App)), nil
}

func (s *Server) secrets(app cluster.AppName) []v1.SecretSummary {
	used := users(s.read(app).services)
	out := []v1.SecretSummary{}
	prefix := store.PrefixApps
	if app != "" {
		prefix = store.AppPrefix(app)
	}
	s.Mirror.Read(func(v store.View) {
		for _, e := range store.All[cluster.SecretRecord](v, prefix, func(k string) bool { return segment(k, 2) == "secrets" }) {
			out = append(out, secretSummary(e.V, used[e.V.SecretRef]))
			delete(used, e.V.SecretRef)
		}
	})
	for ref, by := range used {
		out = append(out, v1.SecretSummary{SecretRef: ref, Services: by, Missing: true})
	}
	slices.SortFunc(out, func(a, b v1.SecretSummary) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func secretSummary(r cluster.SecretRecord, by []cluster.ServiceName) v1.SecretSummary {
	return v1.SecretSummary{
		SecretRef: r.SecretRef, Version: r.Version, Created: r.Created, By: r.By, Provider: r.Provider, Ref: r.Ref, Generated: r.Generated, Services: by,
	}
}

func (s *Server) getSecret(_ context.Context, in *SecretPath) (v1.SecretSummary, error) {
	ref, err := in.ref()
	if err != nil {
		return v1.SecretSummary{}, err
	}
	for _, sum := range s.secrets(ref.App) {
		if sum.SecretRef == ref {
			return sum, nil
		}
	}
	return v1.SecretSummary{}, cluster.NotFoundf("there is no secret %s; `fairlead secret ls %s` lists those there are", ref, ref.App)
}

type setSecretInput struct {
	SecretPath
	Body v1.SecretSet
}

// setSecret writes a value and, in the same transaction, the services that use
// it with its new version, so that it rolls out as any other change.
func (s *Server) setSecret(ctx context.Context, in *setSecretInput) (v1.SecretResult, error) {
	ref, err := in.ref()
	if err != nil {
		return v1.SecretResult{}, err
	}
	set := plan.NewSecret{Name: ref.Name, Value: in.Body.Value, Generate: in.Body.Generate, Vault: in.Body.Vault}
	switch n := len(set.Value); {
	case n > 0 && set.Generate > 0 || set.Vault != "" && n+set.Generate > 0:
		return v1.SecretResult{}, cluster.Invalidf("give a value, ask for a generated one, or say where it is in Vault: one of them")
	case n > v1.MaxSecret:
		return v1.SecretResult{}, cluster.Invalidf("the value is %d bytes: at most %d", n, v1.MaxSecret)
	case n == 0 && set.Generate == 0 && set.Vault == "":
		return v1.SecretResult{}, cluster.Invalidf("the value of secret %s is empty", ref)
	case set.Vault != "":
		if err := s.readable(ctx, ref, set.Vault); err != nil {
			return v1.SecretResult{}, err
		}
	}
	var release int
	err = s.decide(ctx, func(ctx context.Context) error {
		var err error
		release, err = s.writeSecret(ctx, ref, set)
		return err
	})
	if err != nil {
		return v1.SecretResult{}, err
	}
	sum, err := s.getSecret(ctx, &in.SecretPath)
	return v1.SecretResult{SecretSummary: sum, Release: release}, err
}

// readable returns why the value of a secret cannot be had from its place in Vault.
func (s *Server) readable(ctx context.Context, ref cluster.SecretRef, place string) error {
	if _, err := cluster.ParseVaultRef(place); err != nil {
		return err
	}
	if s.Resolver == nil {
		return nil
	}
	_, err := s.Resolver.Resolve(ctx, cluster.SecretRecord{SecretRef: ref, Provider: secrets.ProviderVault, Ref: place})
	return err
}

// writeSecret writes a new version. A value that is there already makes none; that of
// a place in Vault may have changed there, so it makes one each time.
func (s *Server) writeSecret(ctx context.Context, ref cluster.SecretRef, set plan.NewSecret) (release int, err error) {
	c, err := s.current(ref.App)
	if err != nil {
		return 0, err
	}
	old, known := c.Secrets[ref.Name]
	if known && len(set.Value) > 0 && s.Resolver != nil {
		if have, err := s.Resolver.Resolve(ctx, old); err == nil && bytes.Equal(have.Reveal(), set.Value) {
			return 0, nil
		}
	}
	set.Version = old.Version + 1
	if !known && c.App != nil {
		set.Version = c.App.SecretVersions[ref.Name] + 1
	}
	rec, err := s.seal(ctx, ref.App, set)
	if err != nil {
		return 0, err
	}
	rec = rec.After(old)
	st, err := put(store.SecretKey(ref), rec, c.secretRevs[ref.Name])
	if err != nil {
		return 0, err
	}
	steps := []step{st}
	if used := users(slices.Collect(maps.Values(c.Services)))[ref]; len(used) > 0 && c.App != nil {
		c.Secrets[ref.Name] = rec // what is planned next stands on the new version
		in, err := s.again(c, "secret "+ref.Name+" set")
		if err == nil {
			err = c.busy(in)
		}
		if err != nil {
			return 0, err
		}
		r, err := s.plan(ctx, c, in)
		if err != nil {
			return 0, err
		}
		if !r.Plan.Empty() {
			more, err := s.steps(ctx, c, r, in)
			if err != nil {
				return 0, err
			}
			steps, release = append(steps, more...), r.Plan.Next
		}
	}
	s.Log.Info("set a secret", "secret", ref.String(), "version", set.Version, "by", who(ctx), "release", release)
	return release, s.commit(ctx, []store.Cond{{Key: store.AppKey(ref.App), Rev: c.appRev}}, steps)
}

type removeSecretInput struct {
	SecretPath
	Force bool `query:"force" doc:"even while services use it"`
}

func (s *Server) removeSecret(ctx context.Context, in *removeSecretInput) (nothing, error) {
	ref, err := in.ref()
	if err != nil {
		return nothing{}, err
	}
	return nothing{}, s.decide(ctx, func(ctx context.Context) error {
		c, err := s.current(ref.App)
		if err != nil {
			return err
		}
		rec, ok := c.Secrets[ref.Name]
		if !ok {
			return cluster.NotFoundf("there is no secret %s; `fairlead secret ls %s` lists those there are", ref, ref.App)
		}
		if used := users(slices.Collect(maps.Values(c.Services)))[ref]; len(used) > 0 && !in.Force {
			return cluster.Invalidf("secret %s is used by %s: their tasks could not be started again; remove it from the file first, or use --force", ref, join(used))
		}
		steps := []step{remove(store.SecretKey(ref), c.secretRevs[ref.Name])}
		if c.App != nil {
			app := *c.App
			app.SecretVersions = maps.Clone(app.SecretVersions)
			if app.SecretVersions == nil {
				app.SecretVersions = map[string]int{}
			}
			app.SecretVersions[ref.Name] = rec.Version
			st, err := put(store.AppKey(ref.App), app, c.appRev)
			if err != nil {
				return err
			}
			steps = append(steps, st)
		}
		s.Log.Info("removed a secret", "secret", ref.String(), "by", who(ctx))
		return s.commit(ctx, nil, steps)
	})
}

func join[T ~string](names []T) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}
