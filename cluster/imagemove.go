package cluster

import (
	"cmp"
	"io"
	"strings"
	"time"
)

// ImageIdentity says which image an engine has.
type ImageIdentity struct {
	ID string `json:"id"`
	// Content names what of it runs: equal on engines whose IDs of it differ. Older nodes
	// say none.
	Content string `json:"content,omitempty"`
	// Pulled says that the node itself got it from a registry by the name that was asked for,
	// or from a node that had. Older nodes do not say it.
	Pulled bool `json:"pulled,omitempty"`
}

// ImageWant is the image that an archive must be of, and the name that it gets; what is
// "" does not matter.
type ImageWant struct {
	Ref     string `json:"ref,omitempty"`
	ID      string `json:"id,omitempty"`
	Content string `json:"content,omitempty"`
}

// Met reports whether an image is the one.
func (w ImageWant) Met(i ImageIdentity) bool {
	return (w.ID == "" || w.ID == i.ID) && (w.Content == "" || w.Content == i.Content)
}

// String is how the image is called in messages.
func (w ImageWant) String() string { return cmp.Or(w.Ref, w.ID) }

// ImageAsk is what a node asks of others: the image with this ID when it is not "", else the
// one that Ref names.
type ImageAsk struct {
	Ref, ID string
	// Whole asks for the layers too that the node has.
	Whole bool
	// Not are nodes that have sent another one.
	Not []NodeID
	// Apps are those that need it on the node that asks.
	Apps []AppName
}

// Want names what is asked for to an engine.
func (a ImageAsk) Want() string { return cmp.Or(a.ID, TaggedImage(a.Ref)) }

// TaggedImage is an image's name with its tag, latest where it has none.
func TaggedImage(ref string) string {
	if strings.Contains(ref, "@") || strings.Contains(ref[strings.LastIndex(ref, "/")+1:], ":") {
		return ref
	}
	return ref + ":latest"
}

// ImageSent is an image on its way; who reads it closes it.
type ImageSent struct {
	io.ReadCloser
	From NodeID
	// Content is what it must be of, where the cluster knows that.
	Content string
	// Pulled says that a registry has it too.
	Pulled bool
}

// ImageRecord is an image that a client pushed, or that was built on a node. Nodes that have
// another one of its name are not asked for it, and others are believed that have it. Key
// images/<ref>. Writer: the API.
type ImageRecord struct {
	Ref     string    `json:"ref"`
	ID      string    `json:"id"`
	Content string    `json:"content"`
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
}
