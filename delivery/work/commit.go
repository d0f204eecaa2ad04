package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
	"github.com/go-git/go-git/v5/storage/transactional"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
)

const (
	pushed      = plumbing.ReferenceName("refs/pushed")
	maxYAML     = 1 << 20 // a larger file has no marks
	pushRetries = 5
)

// errMoved: the branch has a newer commit than that which was written onto.
var errMoved = errors.New("the branch has moved meanwhile")

// commits reports whether chosen images are written to the source.
func commits(d cluster.Delivery) bool {
	return len(d.Images) > 0 && d.ImageWrite.To == cluster.WriteCommit
}

// writeBack writes the chosen images into the source, and pushes that when it may. It
// returns the commit to go on with, and the tree of that with what was not pushed.
func writeBack(ctx context.Context, t Task, repo *repository, ref plumbing.ReferenceName, commit *object.Commit, r *Result) (*object.Commit, *object.Tree, error) {
	tree, err := commit.Tree()
	if err != nil {
		return nil, nil, cluster.Invalidf("read commit %s: %w", commit.Hash, err)
	}
	w := t.Delivery.ImageWrite
	branch := ref
	if w.Branch != "" {
		branch = plumbing.NewBranchReferenceName(w.Branch)
	}
	if !branch.IsBranch() {
		return nil, nil, cluster.Invalidf("%s names no branch to commit to: give one", t.Delivery.Source.URL)
	}
	base, baseTree, end := commit, tree, (*object.Commit)(nil) // end is the branch's, where it is another one
	if i := slices.IndexFunc(repo.refs, func(r *plumbing.Reference) bool { return r.Name() == branch && branch != ref }); i >= 0 {
		if end, err = repo.commit(ctx, branch, repo.refs[i].Hash(), 1); err != nil {
			return nil, nil, err
		}
		if !remade(t, end) {
			base = end
			if baseTree, err = base.Tree(); err != nil {
				return nil, nil, cluster.Invalidf("read commit %s: %w", base.Hash, err)
			}
		}
	}
	fresh, err := rewrite(t, repo, baseTree, r)
	if end != nil && end != base && end.TreeHash == fresh && slices.Equal(end.ParentHashes, []plumbing.Hash{base.Hash}) {
		r.Edits = nil // it is there already
	}
	if err != nil || len(r.Edits) == 0 {
		return commit, tree, err
	}
	if t.Commit {
		text := message(t, r)
		if branch != ref && base == commit {
			text += "\n" + onSource + "\n"
		}
		written, err := repo.commitTree(t, base, fresh, text)
		if err != nil {
			return nil, nil, err
		}
		old := plumbing.ZeroHash
		switch {
		case end != nil:
			old = end.Hash
		case branch == ref:
			old = base.Hash
		}
		err = repo.push(ctx, written.Hash, branch, old)
		switch {
		case errors.Is(err, errMoved):
			return nil, nil, err
		case err != nil: // what the source has is to be deployed all the same
			r.unwritten(gitError(t.Delivery.Source, err, giveSecret))
			return commit, tree, nil
		}
		r.Pushed = written.Hash.String()
		if branch == ref {
			commit = written
		}
	}
	if branch != ref {
		if t.Commit {
			r.Branch = branch.Short()
		}
		return commit, tree, nil
	}
	tree, err = object.GetTree(repo.storer, fresh)
	return commit, tree, err
}

// unwritten notes with the policies why what they chose is not in the source.
func (r *Result) unwritten(why error) {
	const most = 1000
	for i, st := range r.Images {
		if slices.ContainsFunc(r.Edits, func(e image.Edit) bool { return e.Policy == st.Policy }) {
			r.Images[i].Unwritten = cutTo(why.Error(), most)
		}
	}
	r.Edits = nil
}

// Unwritten is why the commit with what was chosen was not taken; "" where nothing is.
func Unwritten(states []cluster.ImageState) string {
	for _, st := range states {
		if st.Unwritten != "" {
			return st.Unwritten
		}
	}
	return ""
}

// rewrite writes the tree with the chosen images in it, and notes what it changed.
func rewrite(t Task, repo *repository, tree *object.Tree, r *Result) (plumbing.Hash, error) {
	prefix := strings.Trim(path.Clean("/"+t.Delivery.Path), "/")
	uses, files := map[string]int{}, map[string]plumbing.Hash{}
	r.Edits = nil
	if err := countFiles(tree); err != nil {
		return plumbing.ZeroHash, err
	}
	mine := owned(tree, t.Delivery)
	walk := object.NewTreeWalker(tree, true, nil)
	defer walk.Close()
	for {
		name, entry, err := walk.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return plumbing.ZeroHash, cluster.Invalidf("read the source: %w", err)
		}
		if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" || prefix != "" && !strings.HasPrefix(name, prefix+"/") || !mine(name) {
			continue
		}
		if entry.Mode != filemode.Regular && entry.Mode != filemode.Executable && entry.Mode != filemode.Deprecated {
			continue
		}
		blob, err := object.GetBlob(repo.storer, entry.Hash)
		if err != nil {
			return plumbing.ZeroHash, cluster.Invalidf("read %.100q: %w", name, err)
		}
		if blob.Size > maxYAML {
			continue
		}
		content, err := contents(blob)
		if err != nil {
			return plumbing.ZeroHash, cluster.Invalidf("read %.100q: %w", name, err)
		}
		written, edits, err := image.Write(name, content, r.Images, uses)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if len(edits) > 0 {
			r.Edits = append(r.Edits, edits...)
			if files[name], err = store(repo, plumbing.BlobObject, func(o plumbing.EncodedObject) error { return fill(o, written) }); err != nil {
				return plumbing.ZeroHash, err
			}
		}
	}
	for i, st := range r.Images {
		if uses[st.Policy] == 0 && st.Message == "" {
			r.Images[i].Message = fmt.Sprintf(`no value in the delivery's own files is marked with # {"fairlead": %q}`, st.Policy)
		}
	}
	if len(files) == 0 {
		return tree.Hash, nil
	}
	return graft(repo, tree, files)
}

func contents(b *object.Blob) ([]byte, error) {
	r, err := b.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read only
	return io.ReadAll(io.LimitReader(r, maxYAML))
}

func fill(o plumbing.EncodedObject, content []byte) error {
	w, err := o.Writer()
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return errors.Join(err, w.Close())
}

// store keeps an object with the repository, though not for others to see.
func store(repo *repository, kind plumbing.ObjectType, write func(plumbing.EncodedObject) error) (plumbing.Hash, error) {
	o := repo.storer.NewEncodedObject()
	o.SetType(kind)
	if err := write(o); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("write the source: %w", err)
	}
	return repo.storer.SetEncodedObject(o)
}

// graft is a tree with other files in the place of some.
func graft(repo *repository, tree *object.Tree, files map[string]plumbing.Hash) (plumbing.Hash, error) {
	below := map[string]map[string]plumbing.Hash{}
	fresh := &object.Tree{Entries: slices.Clone(tree.Entries)}
	for name, hash := range files {
		dir, rest, deeper := strings.Cut(name, "/")
		if !deeper {
			i := slices.IndexFunc(fresh.Entries, func(e object.TreeEntry) bool { return e.Name == name })
			fresh.Entries[i].Hash = hash
			continue
		}
		if below[dir] == nil {
			below[dir] = map[string]plumbing.Hash{}
		}
		below[dir][rest] = hash
	}
	for dir, inside := range below {
		i := slices.IndexFunc(fresh.Entries, func(e object.TreeEntry) bool { return e.Name == dir })
		sub, err := object.GetTree(repo.storer, fresh.Entries[i].Hash)
		if err != nil {
			return plumbing.ZeroHash, cluster.Invalidf("read %.100q: %w", dir, err)
		}
		if fresh.Entries[i].Hash, err = graft(repo, sub, inside); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	return store(repo, plumbing.TreeObject, fresh.Encode)
}

// onSource says of a commit on a branch of its own that its parent is the source's.
const onSource = "Fairlead-On: source"

// remade reports whether a branch that ends with this commit is made anew from the source's,
// so that it can always be merged: it has nothing but the one commit, which is the delivery's.
// Where somebody has added to it, or the delivery has on top of that, what comes goes on top.
func remade(t Task, end *object.Commit) bool {
	by := signature(t)
	own := func(s object.Signature) bool { return s.Name == by.Name && s.Email == by.Email }
	return own(end.Author) && own(end.Committer) && strings.HasSuffix(strings.TrimSpace(end.Message), "\n"+onSource)
}

// commitTree makes a commit on top of base.
func (r *repository) commitTree(t Task, base *object.Commit, tree plumbing.Hash, text string) (*object.Commit, error) {
	by := signature(t)
	c := &object.Commit{Author: by, Committer: by, Message: text, TreeHash: tree, ParentHashes: []plumbing.Hash{base.Hash}}
	hash, err := store(r, plumbing.CommitObject, c.Encode)
	if err != nil {
		return nil, err
	}
	return object.GetCommit(r.storer, hash)
}

func signature(t Task) object.Signature {
	s := object.Signature{Name: "Fairlead", Email: "fairlead@" + orElse(t.Cluster, "cluster"), When: t.Now}
	if a, err := mail.ParseAddress(t.Delivery.ImageWrite.Author); err == nil {
		s.Name, s.Email = a.Name, a.Address
	}
	return s
}

func message(t Task, r *Result) string {
	var changed []cluster.ImageChoice
	var lines []string
	for _, st := range r.Images {
		if slices.ContainsFunc(r.Edits, func(e image.Edit) bool { return e.Policy == st.Policy }) {
			changed = append(changed, st.ImageChoice)
		}
	}
	for _, e := range r.Edits {
		lines = append(lines, fmt.Sprintf("- %s: %s → %s (%s:%d)", e.Policy, e.Old, e.New, e.File, e.Line))
	}
	first := strings.NewReplacer("{delivery}", string(t.Delivery.Name), "{app}", string(t.Delivery.App), "{images}", cluster.Choices(changed)).
		Replace(orElse(t.Delivery.ImageWrite.Message, "{app}: {images}"))
	return first + "\n\n" + strings.Join(lines, "\n") + "\n"
}

// pushTo pushes to another machine's repository.
func pushTo(st *repository, remote *git.Remote, src cluster.SourceSpec, auth transport.AuthMethod) func(context.Context, plumbing.Hash, plumbing.ReferenceName, plumbing.Hash) error {
	return func(ctx context.Context, hash plumbing.Hash, branch plumbing.ReferenceName, old plumbing.Hash) error {
		if err := st.storer.SetReference(plumbing.NewHashReference(pushed, hash)); err != nil {
			return err
		}
		o := &git.PushOptions{RemoteName: "origin", RefSpecs: []config.RefSpec{config.RefSpec(pushed + ":" + branch)}, Auth: auth, CABundle: []byte(src.CA)}
		if old != plumbing.ZeroHash {
			c, err := object.GetCommit(st.storer, hash)
			if err != nil {
				return err
			}
			if !slices.Contains(c.ParentHashes, old) { // it comes in place of that, and of nothing newer
				o.RefSpecs[0] = "+" + o.RefSpecs[0]
			}
			o.RequireRemoteRefs = []config.RefSpec{config.RefSpec(old.String() + ":" + branch.String())}
		}
		return pushError(src, branch, remote.PushContext(ctx, o))
	}
}

func pushError(src cluster.SourceSpec, branch plumbing.ReferenceName, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if strings.Contains(text, "denying non-fast-forward") {
		return &cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("%s refuses that %s is made anew: %w; let this login do that (a forced push), or remove the branch", src.URL, branch.Short(), err)}
	}
	for _, moved := range []string{"non-fast-forward", "required to be", "fetch first", "failed to update ref", "cannot lock ref", "reference already exists", "failed to lock"} {
		if strings.Contains(text, moved) {
			return fmt.Errorf("%w: %w", errMoved, err)
		}
	}
	refused := errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) || strings.Contains(text, "command error on") || strings.Contains(text, "unpack error") || strings.Contains(text, "denied")
	if refused {
		return &cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("%s refuses a push to %s: %w; let this login write there, or name another branch", src.URL, branch.Short(), err)}
	}
	return err
}

// pushHere moves a branch of a repository of this machine.
func pushHere(at string, base *git.Repository, temporal *memory.Storage) func(context.Context, plumbing.Hash, plumbing.ReferenceName, plumbing.Hash) error {
	return func(_ context.Context, hash plumbing.Hash, branch plumbing.ReferenceName, old plumbing.Hash) error {
		head, err := base.Storer.Reference(plumbing.HEAD)
		if _, bare := base.Worktree(); err == nil && bare == nil && head.Target() == branch {
			return &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("%s refuses a push to %s, which is checked out there: use a bare repository, or name another branch", at, branch.Short())}
		}
		dir := at
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			dir = filepath.Join(at, ".git")
		}
		for h, o := range temporal.Objects {
			if _, err := base.Storer.SetEncodedObject(o); err != nil {
				return fmt.Errorf("write %s: %w", at, err)
			}
			own(dir, filepath.Join("objects", h.String()[:2], h.String()[2:]))
		}
		var was *plumbing.Reference
		if old != plumbing.ZeroHash {
			was = plumbing.NewHashReference(branch, old)
		}
		if now, err := base.Storer.Reference(branch); (err == nil) != (was != nil) || err == nil && now.Hash() != old {
			return errMoved
		}
		if err := base.Storer.CheckAndSetReference(plumbing.NewHashReference(branch, hash), was); err != nil {
			return fmt.Errorf("%w: %w", errMoved, err)
		}
		own(dir, branch.String())
		return nil
	}
}

// own gives a file, and the directories that it is in, to the owner of the repository, who
// is to write there too.
func own(dir, name string) {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return
	}
	for ; name != "."; name = filepath.Dir(name) {
		_ = os.Lchown(filepath.Join(dir, name), int(st.Uid), int(st.Gid)) // who may not, is not root
	}
}

// overlay keeps what is written beside a repository, until it is pushed.
func overlay(base *git.Repository) (transactional.Storage, *memory.Storage) {
	temporal := memory.NewStorage()
	return transactional.NewStorage(base.Storer, temporal), temporal
}
