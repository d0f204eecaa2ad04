package cluster_test

import (
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestImageRepository(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                             "docker.io/library/nginx",
		"nginx:1.27":                        "docker.io/library/nginx",
		"docker.io/nginx@sha256:ab":         "docker.io/library/nginx",
		"index.docker.io/shop/web:1":        "docker.io/shop/web",
		"shop/web":                          "docker.io/shop/web",
		"localhost/web:1":                   "localhost/web",
		"r.io:5000/a/b:1.0@sha256:ab":       "r.io:5000/a/b",
		"r.io:5000/a/b":                     "r.io:5000/a/b",
		"registry.example.com/shop/web:1.4": "registry.example.com/shop/web",
	} {
		if got := cluster.ImageRepository(ref); got != want {
			t.Errorf("%s is of %s, want %s", ref, got, want)
		}
	}
}

func TestImagePoliciesOfADelivery(t *testing.T) {
	web := cluster.ImagePolicy{Name: "web", Repository: "r.io/shop/web", Semver: "1.x"}
	git := cluster.SourceSpec{Kind: cluster.SourceGit, URL: "https://git.example.com/shop.git"}
	tag := git
	tag.Tag = "v1"
	commit := cluster.ImageWrite{To: cluster.WriteCommit}
	with := func(change func(*cluster.ImagePolicy)) []cluster.ImagePolicy {
		p := web
		change(&p)
		return []cluster.ImagePolicy{p}
	}
	twice := []cluster.ImagePolicy{web, web}
	twice[1].Name, twice[1].Semver = "next", "2.x"
	for what, tc := range map[string]struct {
		source cluster.SourceSpec
		images []cluster.ImagePolicy
		write  cluster.ImageWrite
		says   string // "": it is taken
	}{
		"released":               {git, []cluster.ImagePolicy{web}, cluster.ImageWrite{}, ""},
		"committed":              {git, twice, commit, ""},
		"to a branch":            {tag, []cluster.ImagePolicy{web}, cluster.ImageWrite{To: "commit", Branch: "bot/images", Author: "Bot <bot@example.com>", Message: "new: {images}"}, ""},
		"nothing to write":       {git, nil, commit, "needs an image policy"},
		"a tag":                  {git, with(func(p *cluster.ImagePolicy) { p.Repository += ":1" }), commit, "no repository"},
		"capitals":               {git, with(func(p *cluster.ImagePolicy) { p.Repository = "r.io/Shop" }), commit, "no repository"},
		"a space":                {git, with(func(p *cluster.ImagePolicy) { p.Repository = "r.io/a b" }), commit, "no repository"},
		"two policies in one":    {git, with(func(p *cluster.ImagePolicy) { p.Digest = "edge" }), commit, "one of them"},
		"none":                   {git, with(func(p *cluster.ImagePolicy) { p.Semver = "" }), commit, "one of them"},
		"a name":                 {git, with(func(p *cluster.ImagePolicy) { p.Name = "Web:x" }), commit, "a name has"},
		"an order":               {git, with(func(p *cluster.ImagePolicy) { p.Semver, p.Newest = "", "date" }), commit, "numeric or alphabetical"},
		"the same name":          {git, []cluster.ImagePolicy{web, web}, commit, "two image policies web"},
		"the same services":      {git, twice, cluster.ImageWrite{}, "the same services"},
		"a message of a release": {git, []cluster.ImagePolicy{web}, cluster.ImageWrite{Message: "x"}, "written as commits"},
		"another way":            {git, []cluster.ImagePolicy{web}, cluster.ImageWrite{To: "mail"}, "release or commit"},
		"onto a tag":             {tag, []cluster.ImagePolicy{web}, commit, "name one to commit to"},
		"into a package":         {cluster.SourceSpec{Kind: cluster.SourceChart, URL: "oci://r.io/c/web"}, []cluster.ImagePolicy{web}, commit, "this source is none"},
		"no branch":              {git, []cluster.ImagePolicy{web}, cluster.ImageWrite{To: "commit", Branch: "a..b"}, "no branch"},
		"an author":              {git, []cluster.ImagePolicy{web}, cluster.ImageWrite{To: "commit", Author: "bot@example.com"}, "NAME <ADDRESS>"},
		"lines":                  {git, []cluster.ImagePolicy{web}, cluster.ImageWrite{To: "commit", Message: "a\nb"}, "no line ends"},
	} {
		d := cluster.Delivery{Name: "shop", App: "shop", Source: tc.source, Images: tc.images, ImageWrite: tc.write}
		err := d.Validate()
		if tc.says == "" && err != nil || tc.says != "" && (cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v, want %q", what, err, tc.says)
		}
	}
}

// Another image is another attempt; who signs a commit is not.
func TestKeyOfImages(t *testing.T) {
	d := cluster.Delivery{Name: "shop", App: "shop", Images: []cluster.ImagePolicy{{Name: "web"}}, ImageWrite: cluster.ImageWrite{To: "commit"}}
	at := func(tag, digest string, pinned bool) string {
		return d.KeyOf(cluster.Origin{Revision: "r", Images: []cluster.ImageChoice{{Policy: "web", Repository: "r.io/web", Tag: tag, Digest: digest, Pinned: pinned}}})
	}
	if at("1", "a", false) == at("2", "a", false) || at("1", "a", true) == at("1", "b", true) {
		t.Error("another image has the same key")
	}
	if at("1", "a", false) != at("1", "b", false) {
		t.Error("what a tag means now changes the key")
	}
	if d.KeyOf(cluster.Origin{Revision: "r"}) != d.Key("r") {
		t.Error("without images it is the revision's")
	}
	before := d.Key("r")
	if d.ImageWrite.Author = "Bot <b@example.com>"; d.Key("r") != before {
		t.Error("an author changes the key")
	}
}
