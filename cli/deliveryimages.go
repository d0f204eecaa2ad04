package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
)

// registerImages are the flags of image updates.
func (x *deliveryFlags) registerImages(c *cobra.Command) {
	f, w := c.Flags(), &x.d.ImageWrite
	f.StringArrayVar(&x.images, "image", nil, "follow images of a registry; `policy`: "+image.Usage)
	f.StringVar(&w.To, "image-write", "", "what becomes of newer images: a `release` of the app (default), or a commit to the source where marks say")
	f.StringVar(&w.Branch, "image-branch", "", "commit images to this `branch`; default: the source's")
	f.StringVar(&w.Author, "image-author", "", "`author` of these commits: NAME <ADDRESS>")
	f.StringVar(&w.Message, "image-message", "", "first `line` of their messages; {delivery}, {app} and {images} are filled in")
	_ = c.RegisterFlagCompletionFunc("image-write", cobra.FixedCompletions([]string{cluster.WriteRelease, cluster.WriteCommit}, cobra.ShellCompDirectiveNoFileComp))
}

func (x *deliveryFlags) readImages(d *cluster.Delivery) error {
	for _, text := range x.images {
		p, err := image.Parse(text)
		if err != nil {
			return usagef("--image: %w", err)
		}
		d.Images = append(d.Images, p)
	}
	return nil
}

// chosenImages are what the policies chose, in short.
func chosenImages(list []cluster.ImageState) string {
	var words []string
	for _, st := range list {
		if st.Tag != "" {
			words = append(words, st.String())
		}
	}
	return strings.Join(words, ", ")
}

func (a *app) describeImages(d v1.DeliveryStatus, add func(what, value string)) {
	for _, p := range d.Images {
		add("image policy", p.String())
	}
	for _, st := range d.State.Images {
		s := st.Policy + " none"
		if st.Tag != "" {
			s = strings.TrimSpace(fmt.Sprintf("%s %s:%s %s", st.Policy, st.Repository, st.Tag, st.Digest))
			s += fmt.Sprintf(", chosen %s ago", age(a.now(), st.Chosen))
		}
		if st.Tags > 0 {
			s += fmt.Sprintf(", of %d among %d tags", st.Matching, st.Tags)
		}
		if !st.Scanned.IsZero() {
			s += fmt.Sprintf(", asked %s ago", age(a.now(), st.Scanned))
		}
		if st.Message != "" {
			s += ": " + st.Message
		}
		if st.Unwritten != "" {
			s += "; not committed: " + st.Unwritten
		}
		add("image", s)
	}
	if len(d.Images) > 0 {
		w := d.ImageWrite
		s := w.To
		if s == "" {
			s = cluster.WriteRelease
		}
		if w.Branch != "" {
			s += " to " + w.Branch
		}
		add("images become", s)
	}
}

// noteImages says what images a diff is of.
func (a *app) noteImages(d v1.DeliveryDiff) {
	for _, st := range d.Images {
		switch {
		case st.Message != "":
			a.note("image %s: %s", st, st.Message)
		case st.Tag != "":
			a.note("image %s", st)
		}
	}
	for _, w := range d.Writes {
		a.note("would be committed: %s", w)
	}
}
