package work

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/skeema/knownhosts"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
)

const (
	fetched = plumbing.ReferenceName("refs/fetched")
	// answerTime is how long a host has to say what there is, or half of the delivery's
	// deadline if that is less. Without it one that takes connections and says nothing would
	// be waited for until that deadline.
	answerTime = 30 * time.Second
)

// repository is a Git repository, here or elsewhere.
type repository struct {
	storer storage.Storer
	refs   []*plumbing.Reference
	// fetch brings the commit that a reference of refs names, with so much history.
	fetch func(ctx context.Context, spec config.RefSpec, depth int) error
	// push makes a branch end with a commit, as long as it ends with old (zero: it is not
	// there); else the error is errMoved.
	push func(ctx context.Context, commit plumbing.Hash, branch plumbing.ReferenceName, old plumbing.Hash) error
	// lost reports whether the history of a commit does not have that which was seen.
	lost func(ctx context.Context, of, seen plumbing.Hash) (bool, error)
}

func fetchGit(ctx context.Context, t Task, images []cluster.ImageState, tree string) (Result, error) {
	for try := 1; ; try++ {
		r, err := fetchOnce(ctx, t, images, tree)
		switch {
		case !errors.Is(err, errMoved):
			return r, err
		case try == pushRetries:
			return r, cluster.Transientf("%s: %w, %d times", t.Delivery.Source.URL, err, try)
		}
	}
}

func fetchOnce(ctx context.Context, t Task, images []cluster.ImageState, tree string) (Result, error) {
	src := t.Delivery.Source
	repo, err := openGit(ctx, t)
	if err != nil {
		return Result{}, gitError(src, err, giveSecret)
	}
	ref, hash, err := resolve(src, repo.refs)
	if err != nil {
		return Result{}, err
	}
	r := Result{Images: slices.Clone(images), Origin: cluster.Origin{Delivery: t.Delivery.Name, URL: src.URL, Ref: ref.Short(), Revision: hash.String()}}
	if r.Origin.Revision == t.Known {
		return r, nil
	}
	commit, err := repo.commit(ctx, ref, hash, 1)
	if err != nil {
		return Result{}, gitError(src, err, giveSecret)
	}
	r.Origin = from(r.Origin, commit)
	// Another branch, or another repository, has another history.
	if seen := t.Seen; seen != nil && seen.URL == src.URL && seen.Ref == r.Origin.Ref && seen.Revision != r.Origin.Revision && ref.IsBranch() {
		r.Forced = repo.replaced(ctx, t, commit)
	}
	top, err := commit.Tree()
	if err == nil && commits(t.Delivery) {
		commit, top, err = writeBack(ctx, t, repo, ref, commit, &r)
	}
	if err != nil {
		return r, gitError(src, err, giveSecret)
	}
	r.Origin = from(r.Origin, commit)
	r.astray, err = checkout(top, commit.Hash, tree)
	return r, err
}

// from is where a commit came from.
func from(o cluster.Origin, commit *object.Commit) cluster.Origin {
	subject, _, _ := strings.Cut(strings.TrimSpace(commit.Message), "\n")
	o.Revision, o.Author, o.At = commit.Hash.String(), cut(commit.Author.String()), commit.Author.When.UTC()
	o.Subject = cut(subject)
	return o
}

// cut bounds what a stranger wrote.
func cut(s string) string {
	const most = 200
	return cutTo(s, most)
}

func cutTo(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func openGit(ctx context.Context, t Task) (*repository, error) {
	src := t.Delivery.Source
	if src.Transport() == "file" {
		return openHere(src.URL)
	}
	auth, err := login(t)
	if err != nil {
		return nil, err
	}
	nameMultiACK()
	st := filesystem.NewStorage(osfs.New(filepath.Join(t.Dir, "git")), cache.NewObjectLRUDefault())
	at := &config.RemoteConfig{Name: "origin", URLs: []string{src.URL}}
	remote := git.NewRemote(unaware{st}, at)
	refs, err := within(ctx, min(answerTime, t.Delivery.Filled().Timeout.D()/2), src.URL, func(ctx context.Context) ([]*plumbing.Reference, error) {
		return remote.ListContext(ctx, &git.ListOptions{Auth: auth, CABundle: []byte(src.CA), PeelingOption: git.AppendPeeled})
	})
	if err != nil {
		return nil, err
	}
	r := &repository{storer: st, refs: refs, lost: lostThere(src, auth)}
	r.push = pushTo(r, git.NewRemote(st, at), src, auth)
	r.fetch = func(ctx context.Context, spec config.RefSpec, depth int) error {
		err := remote.FetchContext(ctx, &git.FetchOptions{
			RefSpecs: []config.RefSpec{spec}, Depth: depth, Auth: auth, CABundle: []byte(src.CA), Tags: git.NoTags, Force: true,
		})
		if errors.Is(err, git.NoErrAlreadyUpToDate) {
			return nil
		}
		return err
	}
	return r, nil
}

// nameMultiACK lets go-git say that it knows how hosts acknowledge what both have (multi_ack). It
// does not all the way, and so leaves it out; but Azure DevOps and AWS CodeCommit give nothing to
// who does not say so. Nothing is acknowledged to who says to have nothing: see unaware.
var nameMultiACK = sync.OnceFunc(func() {
	transport.UnsupportedCapabilities = []capability.Capability{capability.ThinPack}
})

// unaware is a store that says to have nothing, so that each fetch is asked for as the first one.
type unaware struct{ *filesystem.Storage }

// IterReferences implements storer.ReferenceStorer.
func (unaware) IterReferences() (storer.ReferenceIter, error) {
	return storer.NewReferenceSliceIter(nil), nil
}

// Shallow implements storer.ShallowStorer.
func (unaware) Shallow() ([]plumbing.Hash, error) { return nil, nil }

// SetShallow implements storer.ShallowStorer; what was fetched before stays as shallow as it is.
func (u unaware) SetShallow(ends []plumbing.Hash) error {
	had, err := u.Storage.Shallow()
	if err != nil {
		return err
	}
	return u.Storage.SetShallow(append(had, ends...))
}

// within waits no longer than that for a host, also where what waits for it does not heed its
// context, as go-git does not while it sets up ssh: this process ends soon.
func within[T any](ctx context.Context, limit time.Duration, url string, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, cluster.Transientf("%s: it did not answer within %s", url, limit))
	defer cancel()
	type answer struct {
		v   T
		err error
	}
	got := make(chan answer, 1)
	go func() {
		v, err := f(ctx)
		got <- answer{v, err}
	}()
	select {
	case a := <-got:
		if a.err != nil && ctx.Err() != nil {
			return a.v, context.Cause(ctx)
		}
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// openHere opens a repository of this machine, of which nothing is to be fetched.
func openHere(at string) (*repository, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, cluster.Invalidf("%q is no URL", at)
	}
	repo, err := git.PlainOpen(u.Path)
	if err != nil {
		return nil, err
	}
	list, err := repo.Storer.IterReferences()
	if err != nil {
		return nil, err
	}
	over, temporal := overlay(repo)
	r := &repository{storer: over, push: pushHere(u.Path, repo, temporal), lost: lostHere(over)}
	if err := list.ForEach(func(ref *plumbing.Reference) error { r.refs = append(r.refs, ref); return nil }); err != nil {
		return nil, err
	}
	return r, nil
}

// login is how the source's host is spoken to.
func login(t Task) (transport.AuthMethod, error) {
	gitssh.DefaultSSHConfig = nil // root's own is none of the source's
	src := t.Delivery.Source
	switch src.Transport() {
	case "ssh":
		return sshLogin(t)
	case "https":
		if len(t.Password) == 0 {
			return nil, nil //nolint:nilnil // a public repository
		}
		return &githttp.BasicAuth{Username: orElse(src.User, "git"), Password: strings.TrimSpace(string(t.Password))}, nil
	}
	return nil, nil //nolint:nilnil // http: no password is sent
}

func sshLogin(t Task) (transport.AuthMethod, error) {
	src := t.Delivery.Source
	ep, err := transport.NewEndpoint(src.URL)
	if err != nil {
		return nil, cluster.Invalidf("%s: %w", src.URL, err)
	}
	keys, err := gitssh.NewPublicKeys(orElse(src.User, orElse(ep.User, "git")), t.Password, "")
	if err != nil {
		return nil, cluster.Invalidf("the secret %s holds no private key that ssh can use: %w", src.Secret, err)
	}
	file := filepath.Join(t.Dir, "known_hosts")
	if err := os.WriteFile(file, []byte(src.KnownHosts+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	db, err := knownhosts.NewDB(file)
	if err != nil {
		return nil, cluster.Invalidf("known_hosts cannot be read: %w", err)
	}
	port := ep.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	host := net.JoinHostPort(ep.Host, fmt.Sprint(port))
	keys.HostKeyCallback = db.HostKeyCallback()
	// Only a key that is known is asked for: a host has several.
	if keys.HostKeyAlgorithms = db.HostKeyAlgorithms(host); len(keys.HostKeyAlgorithms) == 0 {
		return nil, &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("no key of %s is among the known ones: add what `ssh-keyscan -p %d %s` prints, once checked", host, port, ep.Host)}
	}
	return keys, nil
}

// resolve finds the commit, or the tag that names it, that is asked for.
func resolve(src cluster.SourceSpec, refs []*plumbing.Reference) (plumbing.ReferenceName, plumbing.Hash, error) {
	named := func(name plumbing.ReferenceName) (plumbing.Hash, bool) {
		peeled := slices.IndexFunc(refs, func(r *plumbing.Reference) bool { return string(r.Name()) == string(name)+"^{}" })
		if peeled >= 0 {
			return refs[peeled].Hash(), true
		}
		i := slices.IndexFunc(refs, func(r *plumbing.Reference) bool { return r.Name() == name && r.Type() == plumbing.HashReference })
		if i < 0 {
			return plumbing.ZeroHash, false
		}
		return refs[i].Hash(), true
	}
	var name plumbing.ReferenceName
	switch {
	case src.Commit != "":
		return "", plumbing.NewHash(src.Commit), nil
	case src.Branch != "":
		name = plumbing.NewBranchReferenceName(src.Branch)
	case src.Tag != "":
		name = plumbing.NewTagReferenceName(src.Tag)
	case src.Semver != "":
		tag, err := highest(src.Semver, versionTags(refs, src.TagPrefix))
		if err != nil && src.TagPrefix != "" {
			err = fmt.Errorf("of the tags that begin with %q: %w", src.TagPrefix, err)
		}
		if err != nil {
			return "", plumbing.ZeroHash, err
		}
		name = plumbing.NewTagReferenceName(src.TagPrefix + tag)
	default:
		i := slices.IndexFunc(refs, func(r *plumbing.Reference) bool { return r.Name() == plumbing.HEAD })
		if i < 0 {
			return "", plumbing.ZeroHash, cluster.NotFoundf("%s says no branch of its own: name one", src.URL)
		}
		if refs[i].Type() == plumbing.HashReference {
			return plumbing.HEAD, refs[i].Hash(), nil
		}
		name = refs[i].Target()
	}
	hash, ok := named(name)
	if !ok {
		return "", plumbing.ZeroHash, cluster.NotFoundf("%s has no %s", src.URL, strings.TrimPrefix(string(name), "refs/"))
	}
	return name, hash, nil
}

// highest is the tag with the highest version in a range.
func highest(within string, tags []string) (string, error) {
	c, err := semver.NewConstraint(within)
	if err != nil {
		return "", cluster.Invalidf("%q is no range of versions: %w", within, err)
	}
	var best *semver.Version
	tag := ""
	for _, name := range tags {
		// Of two tags of one version the first by name, whatever the order.
		v := image.Version(name)
		if v == nil || !c.Check(v) || best != nil && (v.LessThan(best) || v.Equal(best) && name > tag) {
			continue
		}
		best, tag = v, name
	}
	if best == nil {
		return "", cluster.NotFoundf("no tag is a version in %q", within)
	}
	return tag, nil
}

// versionTags are the tags that begin with the prefix, without it.
func versionTags(refs []*plumbing.Reference, prefix string) (tags []string) {
	for _, r := range refs {
		name, is := strings.CutPrefix(string(r.Name()), "refs/tags/"+prefix)
		if is && !strings.HasSuffix(name, "^{}") {
			tags = append(tags, name)
		}
	}
	return tags
}

// commit brings a commit here.
func (r *repository) commit(ctx context.Context, ref plumbing.ReferenceName, hash plumbing.Hash, depth int) (*object.Commit, error) {
	if r.fetch != nil {
		spec := config.RefSpec(fmt.Sprintf("+%s:%s", ref, fetched))
		if ref == "" || ref == plumbing.HEAD {
			spec = config.RefSpec(fmt.Sprintf("%s:%s", hash, fetched))
		}
		err := r.fetch(ctx, spec, depth)
		if ref == "" && err != nil && !errors.Is(err, transport.ErrAuthenticationRequired) {
			// Not every server gives a commit that no branch ends with.
			if err = r.fetch(ctx, "+refs/heads/*:refs/heads/*", 0); err == nil {
				return object.GetCommit(r.storer, hash)
			}
		}
		if err != nil {
			return nil, err
		}
		// The branch may have moved on since its hash was asked for.
		got, err := r.storer.Reference(fetched)
		if err != nil {
			return nil, err
		}
		hash = got.Hash()
	}
	if tag, err := object.GetTag(r.storer, hash); err == nil {
		return tag.Commit()
	}
	return object.GetCommit(r.storer, hash)
}

// giveSecret is how a delivery's source is logged in to.
const giveSecret = "name a user, and a secret of the app that holds the password, token or key"

// gitError says what is wrong; login is what to do where the host lets nobody in.
func gitError(src cluster.SourceSpec, err error, login string) error {
	if cluster.KindOf(err) != cluster.KindOther || errors.Is(err, errMoved) {
		return err
	}
	forbidden := func(advice string) error {
		return &cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("%s: %w; %s", src.URL, err, advice)}
	}
	text := err.Error()
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed), strings.Contains(text, "unable to authenticate"):
		return forbidden(login)
	case knownhosts.IsHostKeyChanged(err), knownhosts.IsHostUnknown(err), strings.Contains(text, "knownhosts:"):
		return forbidden("the host shows another key than the known ones: somebody may be in between, or it was renewed")
	case strings.Contains(text, "certificate"):
		return forbidden("give the authority's certificate")
	case errors.Is(err, transport.ErrRepositoryNotFound), errors.Is(err, git.ErrRepositoryNotExists):
		return cluster.NotFoundf("%s: there is no such repository, or this login may not see it", src.URL)
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return cluster.NotFoundf("%s is empty: no commit was pushed yet", src.URL)
	case errors.Is(err, plumbing.ErrObjectNotFound):
		return cluster.NotFoundf("%s: there is no such commit", src.URL)
	case strings.Contains(text, "file too large"):
		return cluster.Invalidf("%s: what would be fetched is larger than %d MiB", src.URL, maxFile>>20)
	}
	return cluster.Transientf("%s: %w", src.URL, err)
}
