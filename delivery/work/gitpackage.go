package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// GitPackage is a package's directory in a Git repository, as a person writes it down:
// git+https://HOST/REPOSITORY//DIRECTORY?ref=BRANCH.
type GitPackage struct {
	URL string // of the repository, as git takes it
	Dir string // in it; "": its top
	Ref string // a branch, a tag or a commit; "": the repository's own branch
}

// ParseGit reads a reference to a package; is reports whether it is one to Git. It takes
// what users of kustomize, of Terraform (git::…) and of Helm's plugin for Git (…@DIRECTORY)
// write.
func ParseGit(ref string) (_ GitPackage, is bool, _ error) {
	at, marked := strings.CutPrefix(ref, "git+")
	if !marked {
		at, marked = strings.CutPrefix(ref, "git::")
	}
	src := cluster.SourceSpec{Kind: cluster.SourceGit, URL: at}
	if !marked && (src.Transport() != "ssh" || !strings.Contains(at, "@") && !strings.HasPrefix(at, "ssh://")) {
		return GitPackage{}, false, nil
	}
	at, query, _ := strings.Cut(at, "?")
	var g GitPackage
	params, err := url.ParseQuery(query)
	if err != nil {
		return g, true, cluster.Invalidf("%s: what follows the ? cannot be read: %w", ref, err)
	}
	for k, v := range params {
		if k != "ref" || len(v) != 1 {
			return g, true, cluster.Invalidf("%s: %s is not known here; ?ref= names a branch, a tag or a commit, and nothing else is said so", ref, k)
		}
		g.Ref = v[0]
	}
	scheme, rest, host := "", at, ":"
	if before, after, has := strings.Cut(at, "://"); has {
		scheme, rest, host = before+"://", after, "/"
	}
	repo, dir, found := strings.Cut(rest, "//")
	if i := strings.LastIndex(rest, "@"); !found && i > strings.Index(rest, host) && strings.Contains(rest, host) {
		repo, dir = rest[:i], rest[i+1:]
	}
	g.URL, g.Dir = scheme+repo, strings.Trim(path.Clean("/"+dir), "/")
	src.URL = g.URL
	switch t := src.Transport(); {
	case !slices.Contains([]string{"https", "http", "ssh", "file"}, t), scheme == "" && strings.Contains(repo, "::"): // git starts programs for those
		return g, true, cluster.Invalidf("%s: a package in Git is git+https://HOST/REPOSITORY//DIRECTORY?ref=BRANCH, git+ssh://… or git+file:///…", ref)
	case slices.Contains(strings.Split(dir, "/"), ".."):
		return g, true, cluster.Invalidf("%s: %s leads out of the repository", ref, dir)
	case strings.HasPrefix(g.Ref, "-"), strings.ContainsAny(g.Ref, " \t\n:^~*"):
		return g, true, cluster.Invalidf("%s: %q names no branch, tag or commit", ref, g.Ref)
	}
	if u, err := url.Parse(g.URL); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			u.User = url.User(u.User.Username())
			return g, true, cluster.Invalidf("%s: a password does not belong into the URL, which is kept with the release: --username asks for it, and so do git's credential helpers", u)
		}
	}
	return g, true, nil
}

// String is the reference in the one form that is kept.
func (g GitPackage) String() string {
	s := "git+" + g.URL
	if g.Dir != "" {
		s += "//" + g.Dir
	}
	if g.Ref != "" {
		s += "?ref=" + url.QueryEscape(g.Ref)
	}
	return s
}

// Fetch brings the package here; version, a range, chooses the highest tag in it. The
// answer names its commit. The user's own git fetches, so that their keys, credential
// helpers and known hosts are used as `git clone` uses them; with a login or certificates
// given, or where there is no git, https is spoken without it. from, if not nil, fetches what it
// depends on and does not hold; what that is by file:// is elsewhere in the repository.
func (g GitPackage) Fetch(ctx context.Context, version string, tr chart.Transfer, from *chart.Repositories) (_ []chart.File, at GitPackage, _ error) {
	if version != "" && g.Ref != "" {
		return nil, g, cluster.Invalidf("%s: give ?ref= or --version, which chooses among its tags: one of them", g)
	}
	if tr.Insecure || tr.PlainHTTP {
		return nil, g, cluster.Invalidf("%s: of Git no certificate is skipped; --ca-file names an authority's", g)
	}
	if tr.Keyring != "" {
		return nil, g, cluster.Invalidf("%s: signatures are those of archives, and a package in Git is none; name a commit that you checked", g)
	}
	dir, err := os.MkdirTemp("", "fairlead-git-")
	if err != nil {
		return nil, g, fmt.Errorf("fetch: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	src := cluster.SourceSpec{Kind: cluster.SourceGit, URL: g.URL, Semver: version}
	files, commit, err := g.fetch(ctx, src, dir, tr, from)
	if err != nil {
		return nil, g, gitError(src, err, "--username asks for a password; git's own credential helpers and keys are used without it")
	}
	g.Ref = commit
	return files, g, nil
}

func (g GitPackage) fetch(ctx context.Context, src cluster.SourceSpec, dir string, tr chart.Transfer, from *chart.Repositories) (_ []chart.File, commit string, _ error) {
	c, err := g.commit(ctx, src, dir, tr)
	if err != nil {
		return nil, "", err
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return nil, "", fmt.Errorf("fetch: %w", err)
	}
	top, err := c.Tree()
	own := top
	if err == nil && g.Dir != "" {
		own, err = top.Tree(g.Dir)
	}
	var files []chart.File
	switch {
	case errors.Is(err, object.ErrDirectoryNotFound):
		err = cluster.NotFoundf("%s has no directory %s at %s", g.URL, g.Dir, c.Hash)
	case err != nil:
	case from != nil:
		files, err = g.readWhole(ctx, c.Hash, top, tree, *from)
	default:
		files, err = g.read(c.Hash, own, tree)
	}
	return files, c.Hash.String(), err
}

func (g GitPackage) commit(ctx context.Context, src cluster.SourceSpec, dir string, tr chart.Transfer) (*object.Commit, error) {
	repo, err := openPackage(ctx, src, dir, tr)
	if err != nil {
		return nil, err
	}
	if err := g.choose(&src, repo.refs); err != nil {
		return nil, err
	}
	ref, hash, err := resolve(src, repo.refs)
	if err != nil {
		return nil, err
	}
	return repo.commit(ctx, ref, hash, 1)
}

// read writes the package's directory to tree, and reads it.
func (g GitPackage) read(commit plumbing.Hash, own *object.Tree, tree string) ([]chart.File, error) {
	out, err := checkout(own, commit, tree)
	modules, links := split(out)
	if err == nil && len(links) > 0 { // all of it is the package
		err = links[0].refusal()
	}
	if err != nil {
		return nil, err
	}
	files, err := chart.Read(tree)
	switch {
	case err != nil && len(modules) > 0: // which .helmignore does not leave out
		err = modules[0].refusal()
	case err != nil: // named as the user does
		err = &cluster.Error{Kind: cluster.KindOf(err), Msg: strings.ReplaceAll(err.Error(), tree, orElse(g.Dir, g.URL))}
	}
	return files, err
}

// split tells submodules from links.
func split(list []astray) (modules, links []astray) {
	for _, l := range list {
		if l.submodule {
			modules = append(modules, l)
		} else {
			links = append(links, l)
		}
	}
	return modules, links
}

// choose says whether the reference is a commit, a tag or a branch, in git's own order.
func (g GitPackage) choose(src *cluster.SourceSpec, refs []*plumbing.Reference) error {
	there := func(n plumbing.ReferenceName) bool {
		return slices.ContainsFunc(refs, func(r *plumbing.Reference) bool { return r.Name() == n })
	}
	switch {
	case g.Ref == "":
	case there(plumbing.NewTagReferenceName(g.Ref)):
		src.Tag = g.Ref
	case there(plumbing.NewBranchReferenceName(g.Ref)):
		src.Branch = g.Ref
	case plumbing.IsHash(g.Ref):
		src.Commit = strings.ToLower(g.Ref)
	default:
		return cluster.NotFoundf("%s has no branch or tag %s; a commit is named by all of its 40 digits", g.URL, g.Ref)
	}
	return nil
}

func openPackage(ctx context.Context, src cluster.SourceSpec, dir string, tr chart.Transfer) (*repository, error) {
	t := src.Transport()
	given := tr.Username != "" || tr.CAFile != ""
	git, err := exec.LookPath("git")
	switch {
	case t == "file" && !given:
		return openHere(src.URL)
	case given && t != "https":
		return nil, cluster.Invalidf("%s: --username and --ca-file are of https; ssh is spoken by git, with your own keys", src.URL)
	case !given && err == nil:
		return (&program{git, src.URL, filepath.Join(dir, "git")}).open(ctx)
	case t == "ssh":
		return nil, cluster.Invalidf("%s: ssh is spoken by git, which is not installed here", src.URL)
	}
	if tr.CAFile != "" {
		b, err := os.ReadFile(tr.CAFile)
		if err != nil {
			return nil, cluster.Invalidf("--ca-file: %w", err)
		}
		src.CA = string(b)
	}
	src.User = tr.Username
	return openGit(ctx, Task{Delivery: cluster.Delivery{Source: src}, Password: []byte(tr.Password), Dir: dir})
}

// program is the user's own git, which fetches into a repository of ours.
type program struct {
	git, url, dir string
}

func (p *program) open(ctx context.Context) (*repository, error) {
	if _, err := git.PlainInit(p.dir, true); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	out, err := p.run(ctx, "ls-remote", "--symref", "--", p.url)
	if err != nil {
		return nil, err
	}
	r := &repository{storer: filesystem.NewStorage(osfs.New(p.dir), cache.NewObjectLRUDefault())}
	for line := range strings.Lines(out) {
		what, name, ok := strings.Cut(strings.TrimSpace(line), "\t")
		target, symbolic := strings.CutPrefix(what, "ref: ")
		switch {
		case !ok:
		case symbolic:
			r.refs = append(r.refs, plumbing.NewSymbolicReference(plumbing.ReferenceName(name), plumbing.ReferenceName(target)))
		default:
			r.refs = append(r.refs, plumbing.NewHashReference(plumbing.ReferenceName(name), plumbing.NewHash(what)))
		}
	}
	r.fetch = func(ctx context.Context, spec config.RefSpec, depth int) error {
		args := []string{"fetch", "--quiet", "--force", "--no-tags"}
		if depth > 0 {
			args = append(args, fmt.Sprintf("--depth=%d", depth))
		}
		_, err := p.run(ctx, append(args, "--", p.url, string(spec))...)
		return err
	}
	return r, nil
}

// run runs git, with the user's settings. Where it has to ask for a password or about a
// host's key, it does so at the terminal, if there is one.
func (p *program) run(ctx context.Context, args ...string) (string, error) {
	const most = 16 << 20
	cmd := exec.CommandContext(ctx, p.git, append([]string{"--git-dir=" + p.dir}, args...)...) //nolint:gosec // the user's own
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, said := &capped{most: most}, &capped{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case out.full:
		return "", cluster.Invalidf("%s: git says more than %d MiB of its branches and tags", p.url, most>>20)
	case err != nil:
		return "", gitSaid(p.url, said.buf.Bytes(), err)
	}
	return out.buf.String(), nil
}

// gitSaid is an error of git's, which has no codes for them.
func gitSaid(at string, said []byte, err error) error {
	text := cut(strings.Join(strings.Fields(string(said)), " "))
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return bytes.Contains(said, []byte(w)) })
	}
	kind := cluster.KindTransient
	switch {
	case has("Authentication failed", "could not read Username", "could not read Password", "Permission denied", "Host key verification failed", "certificate", "returned error: 403"):
		kind = cluster.KindForbidden
	case has("not found", "does not appear to be a git repository", "does not exist"):
		kind = cluster.KindNotFound
	}
	return &cluster.Error{Kind: kind, Err: fmt.Errorf("%s: git: %s (%w)", at, text, err)}
}
