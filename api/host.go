package api

import (
	"context"
	"io"
	"net"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// Streams are what a command reads and writes.
type Streams struct {
	Stdin          io.Reader // nil: nothing
	Stdout, Stderr io.Writer
	// Resize delivers new sizes of the terminal, width first.
	Resize <-chan [2]uint
}

// TaskHost is what the API asks of the node that a task runs on.
type TaskHost interface {
	// Logs calls emit with the task's lines, oldest first, until the log or ctx
	// ends or emit returns an error, which it returns.
	Logs(ctx context.Context, task cluster.TaskID, o cluster.LogOptions, emit func(cluster.LogLine) error) error
	// Exec runs a command and returns its exit code.
	Exec(ctx context.Context, task cluster.TaskID, o cluster.ExecOptions, s Streams) (int, error)
	// CopyTo unpacks a tar below dir.
	CopyTo(ctx context.Context, task cluster.TaskID, dir string, tar io.Reader) error
	// CopyFrom returns a tar of path; the caller closes it.
	CopyFrom(ctx context.Context, task cluster.TaskID, path string) (io.ReadCloser, error)
	// Dial connects to a TCP port of the task.
	Dial(ctx context.Context, task cluster.TaskID, port int) (net.Conn, error)
}

// ImageHost is what the API asks of a node about images.
type ImageHost interface {
	// Build builds a context, tags it, and returns the image's ID.
	Build(ctx context.Context, tar io.Reader, o v1.BuildOptions, progress io.Writer) (id string, err error)
	// Tag gives an image a further name.
	Tag(ctx context.Context, id, ref string) error
	Images(ctx context.Context) ([]cluster.Image, error)
	// Identity says which image of a name the node has. It never asks a registry.
	Identity(ctx context.Context, ref string) (cluster.ImageIdentity, error)
	ImageMover
}

// ImageMover sends and takes images, without layers that are there.
type ImageMover interface {
	// Save returns an image, named or by its ID, as the engine's tar, without the layers
	// that its receiver has; the caller closes it.
	Save(ctx context.Context, ref string, have cluster.ImageHave) (io.ReadCloser, error)
	// Load adds the image of a tar that Save made, if it is the one that is wanted.
	Load(ctx context.Context, tar io.Reader, want cluster.ImageWant) error
	// ImageLayers are the diff IDs of an image's layers, the lowest first.
	ImageLayers(ctx context.Context, ref string) ([]string, error)
	// Have says which layers of an image, by their diff IDs, need not be sent there.
	Have(ctx context.Context, layers []string) (cluster.ImageHave, error)
}

// Hosts finds nodes. An error of KindTransient says that a node cannot be asked now.
type Hosts interface {
	Tasks(node cluster.NodeID) (TaskHost, error)
	Images(node cluster.NodeID) (ImageHost, error)
}
