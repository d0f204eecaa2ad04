package v1

import "github.com/fairlead/fairlead/cluster"

// MaxImage is the most bytes of an image that is pushed.
const MaxImage = 64 << 30

// ImagePush is an image to give to nodes.
type ImagePush struct {
	Ref string `json:"ref" minLength:"1" maxLength:"512"`
	ID  string `json:"id" maxLength:"200"`
	// Layers are the diff IDs of its layers, the lowest first.
	Layers []string `json:"layers" maxItems:"1000"`
	OS     string   `json:"os" maxLength:"100"`
	Arch   string   `json:"arch" maxLength:"100"`
	// Nodes get it; none named are all that take tasks and have its platform.
	Nodes []cluster.NodeID `json:"nodes,omitempty" maxItems:"10000"`
}

// PushPlan says what a push has to send, and where that goes.
type PushPlan struct {
	// Node takes the image from the client; the others get it from there.
	Node cluster.NodeID `json:"node"`
	// Present says that Node has this very image: nothing is to be sent.
	Present bool `json:"present,omitempty"`
	// Have are the layers that need not be sent.
	Have    cluster.ImageHave `json:"have"`
	Nodes   []cluster.NodeID  `json:"nodes"` // all that get it, Node first
	Skipped []PushSkipped     `json:"skipped,omitempty"`
	// Verifies says that the server takes PushStart's ID and Content. Older ones do not.
	Verifies bool `json:"verifies,omitempty"`
}

// PushSkipped is a node that gets no image, and why.
type PushSkipped struct {
	Node   cluster.NodeID `json:"node"`
	Reason string         `json:"reason"`
}

// PushStart goes with an image's tar: the plan that it was made for.
type PushStart struct {
	Ref string `json:"ref"`
	ID  string `json:"id,omitempty"`
	// Content names what of the image runs, which its ID does on engines of one kind alone:
	// no node gets another image from the first one.
	Content string           `json:"content,omitempty"`
	Present bool             `json:"present,omitempty"`
	Nodes   []cluster.NodeID `json:"nodes"` // the first takes the tar
}

// PushEvent is one line of a push's answer: a node that is done, or why the image
// could not be taken. Done ends the answer.
type PushEvent struct {
	Node  *PushedNode `json:"node,omitempty"`
	Error *Problem    `json:"error,omitempty"`
	Done  bool        `json:"done,omitempty"`
}

// PushedNode is how a push went on one node.
type PushedNode struct {
	Node  cluster.NodeID `json:"node"`
	Bytes int64          `json:"bytes"`          // sent to it
	From  cluster.NodeID `json:"from,omitempty"` // "" is the client
	Error string         `json:"error,omitempty"`
}

// Headers of an image that a server sends a node: which node has it, what it must be of,
// where the cluster knows that (Content, as in PushStart), and "true" where a registry has it too.
const (
	HeaderImageFrom    = "Fairlead-Image-From"
	HeaderImageContent = "Fairlead-Image-Content"
	HeaderImagePulled  = "Fairlead-Image-Pulled"
)
