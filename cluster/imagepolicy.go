package cluster

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
)

// ImagePolicy says which image of a repository a delivery's app is to have. Semver,
// Newest or Digest: one of them.
type ImagePolicy struct {
	Name string `json:"name" maxLength:"40"`
	// Repository is registry.example.com/shop/web, without a tag.
	Repository string `json:"repository" maxLength:"255"`
	// Semver is a range: the highest version in it is taken.
	Semver string `json:"semver,omitempty" maxLength:"250"`
	// Newest compares what Filter leaves: the greatest is taken.
	Newest string `json:"newest,omitempty" enum:"numeric,alphabetical,"`
	Desc   bool   `json:"desc,omitempty" doc:"the least is taken"`
	// Digest is a tag that is followed, wherever it is moved to.
	Digest string `json:"digest,omitempty" maxLength:"128"`
	// Filter is a regular expression of the tags that count. A named group of it is
	// what is compared, in place of the tag.
	Filter string `json:"filter,omitempty" maxLength:"500"`
}

// Orders of ImagePolicy.Newest.
const (
	NewestNumeric      = "numeric"
	NewestAlphabetical = "alphabetical"
)

// String is the policy as --image takes it.
func (p ImagePolicy) String() string {
	s := p.Name + "=" + p.Repository
	switch {
	case p.Semver != "":
		s += " semver " + p.Semver
	case p.Newest != "" && p.Desc:
		s += " newest " + p.Newest + " desc"
	case p.Newest != "":
		s += " newest " + p.Newest
	default:
		s += " digest " + p.Digest
	}
	if p.Filter != "" {
		s += " filter " + p.Filter
	}
	return s
}

// Where chosen images are written to.
const (
	WriteRelease = "release" // into the app, beside what the source says
	WriteCommit  = "commit"  // into the source, from where they come back
)

// ImageWrite is what becomes of a chosen image.
type ImageWrite struct {
	To string `json:"to,omitempty" enum:"release,commit," doc:"default release"`
	// Branch is committed to, where it is another one than the source's.
	Branch  string `json:"branch,omitempty" maxLength:"250"`
	Author  string `json:"author,omitempty" maxLength:"250" doc:"NAME <ADDRESS>"`
	Message string `json:"message,omitempty" maxLength:"250" doc:"first line of commits; {delivery}, {app} and {images} are filled in"`
}

// ImageChoice is the image that a policy chose.
type ImageChoice struct {
	Policy     string `json:"policy"`
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	// Digest is what the tag meant when it was chosen; Pinned: it is part of the choice.
	Digest string `json:"digest,omitempty"`
	Pinned bool   `json:"pinned,omitempty"`
}

// Ref is the image's reference.
func (c ImageChoice) Ref() string {
	s := c.Repository + ":" + c.Tag
	if c.Pinned {
		s += "@" + c.Digest
	}
	return s
}

// String is the choice in short.
func (c ImageChoice) String() string {
	const digits = 8
	s := c.Policy + " " + c.Tag
	if _, hex, ok := strings.Cut(c.Digest, ":"); ok && c.Pinned {
		s += "@" + hex[:min(digits, len(hex))]
	}
	return s
}

// Choices are choices in short; "" without one.
func Choices(list []ImageChoice) string {
	const most = 5
	var words []string
	for _, c := range list[:min(most, len(list))] {
		words = append(words, c.String())
	}
	if n := len(list) - most; n > 0 {
		words = append(words, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(words, ", ")
}

// ImageState is what came of a policy.
type ImageState struct {
	ImageChoice           // none: an empty Tag
	Chosen      time.Time `json:"chosen,omitzero"`
	Scanned     time.Time `json:"scanned,omitzero"` // the last time that the registry answered
	Tags        int       `json:"tags,omitempty"`   // that it has
	Matching    int       `json:"matching,omitempty"`
	Message     string    `json:"message,omitempty"` // what is wrong
	// Failures in a row; Away: the registry could not be asked.
	Failures int  `json:"failures,omitempty"`
	Away     bool `json:"away,omitempty"`
	// Unwritten is why the commit with it was not taken; it is tried at each look.
	Unwritten string `json:"unwritten,omitempty"`
}

// EventImages says that newer images were chosen.
const EventImages = "images"

const maxImagePolicies = 20

var (
	policyRE     = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	repositoryRE = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
	tagRE        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
)

// ValidTag reports whether an image may have it.
func ValidTag(tag string) bool { return len(tag) <= 128 && tagRE.MatchString(tag) }

// Validate refuses what chooses no image. Ranges and expressions are not read.
func (p ImagePolicy) Validate() error {
	kinds := 0
	for _, k := range []string{p.Semver, p.Newest, p.Digest} {
		if k != "" {
			kinds++
		}
	}
	switch {
	case len(p.Name) > 40 || !policyRE.MatchString(p.Name):
		return Invalidf("image policy %s: a name has 1 to 40 lower-case letters, digits and -, starting with a letter", quote(p.Name))
	case !repositoryRE.MatchString(ImageRepository(p.Repository)) || ImageRepository(p.Repository) != withHost(p.Repository):
		return Invalidf("image policy %s: %s is no repository of images: registry.example.com/shop/web, without a tag", p.Name, quote(p.Repository))
	case kinds != 1:
		return Invalidf("image policy %s: semver, newest or digest: one of them", p.Name)
	case p.Newest != "" && p.Newest != NewestNumeric && p.Newest != NewestAlphabetical:
		return Invalidf("image policy %s: newest %s: numeric or alphabetical", p.Name, quote(p.Newest))
	case p.Desc && p.Newest == "":
		return Invalidf("image policy %s: desc is of newest alone", p.Name)
	case p.Digest != "" && !ValidTag(p.Digest):
		return Invalidf("image policy %s: %s is no tag to follow", p.Name, quote(p.Digest))
	case p.Digest != "" && p.Filter != "":
		return Invalidf("image policy %s: one tag is followed: there is nothing to filter", p.Name)
	}
	return nil
}

// ImageRepository is the repository of an image's reference, with its registry.
func ImageRepository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return withHost(ref)
}

// withHost writes out what is left away of images of Docker's own registry.
func withHost(repo string) string {
	const hub = "docker.io/"
	host, rest, has := strings.Cut(repo, "/")
	switch {
	case !has:
		return hub + "library/" + repo
	case host == "index.docker.io" || host == "docker.io":
		if !strings.Contains(rest, "/") {
			rest = "library/" + rest
		}
		return hub + rest
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return hub + repo
	}
	return repo
}

// RegistryOf is the registry of a repository.
func RegistryOf(repository string) string {
	host, _, _ := strings.Cut(ImageRepository(repository), "/")
	return host
}

// validateImages refuses policies that do not go together.
func (d Delivery) validateImages() error {
	w := d.ImageWrite
	if len(d.Images) == 0 && w != (ImageWrite{}) {
		return Invalidf("what is written of images needs an image policy")
	}
	if len(d.Images) > maxImagePolicies {
		return Invalidf("%d image policies: at most %d", len(d.Images), maxImagePolicies)
	}
	byName, byRepo := map[string]bool{}, map[string]string{}
	for _, p := range d.Images {
		if err := p.Validate(); err != nil {
			return err
		}
		repo := ImageRepository(p.Repository)
		switch other := byRepo[repo]; {
		case byName[p.Name]:
			return Invalidf("there are two image policies %s", p.Name)
		case other != "" && w.To != WriteCommit:
			return Invalidf("the image policies %s and %s choose for the same services, those of %s; only marks in a source tell them apart", other, p.Name, repo)
		}
		byName[p.Name], byRepo[repo] = true, p.Name
	}
	switch w.To {
	case "", WriteRelease:
		if w != (ImageWrite{To: w.To}) {
			return Invalidf("a branch, an author and a message are for images that are written as commits")
		}
		return nil
	case WriteCommit:
	default:
		return Invalidf("images are written as %s: release or commit", quote(w.To))
	}
	switch {
	case d.Source.Kind != SourceGit:
		return Invalidf("images are committed to Git: this source is none")
	case d.Source.Tag+d.Source.Semver+d.Source.Commit != "" && w.Branch == "":
		return Invalidf("images are committed to a branch: the source names a tag or commit, so name one to commit to")
	case strings.ContainsAny(w.Branch, " ~^:?*[\\\x7f") || strings.Contains(w.Branch, "..") || strings.HasPrefix(w.Branch, "-"):
		return Invalidf("%s is no branch", quote(w.Branch))
	case strings.ContainsAny(w.Message, "\r\n"):
		return Invalidf("the message is the first line of a commit's: no line ends in it")
	}
	if w.Author != "" {
		if a, err := mail.ParseAddress(w.Author); err != nil || a.Name == "" || strings.ContainsAny(w.Author, "\r\n") {
			return Invalidf("author %s: write NAME <ADDRESS>", quote(w.Author))
		}
	}
	return nil
}

// KeyOf identifies what a delivery asks for at what a source has, with the images that
// were chosen beside it.
func (d Delivery) KeyOf(o Origin) string {
	var b strings.Builder
	b.WriteString(o.Revision)
	for _, c := range o.Images {
		fmt.Fprintf(&b, " %s=%s", c.Policy, c.Ref())
	}
	return d.Key(b.String())
}
