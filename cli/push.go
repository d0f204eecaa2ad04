package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/agent/docker"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// pushed is what `image push` prints for programs.
type pushed struct {
	Image   string           `json:"image"`
	ID      string           `json:"id"`
	Bytes   int64            `json:"bytes"` // that left this machine
	Nodes   []v1.PushedNode  `json:"nodes"`
	Skipped []v1.PushSkipped `json:"skipped,omitempty"`

	content string
}

func (a *app) imagePush() *cobra.Command {
	var nodes []string
	c := &cobra.Command{
		Use: "push IMAGE", Short: "Give an image of this machine's Docker to the nodes", Args: oneArg("an image of this machine's Docker"),
		Long: `Sends an image of the Docker engine here (DOCKER_HOST names another) to the cluster, without
a registry. It goes once to the node that lacks least of it, and from there to the
others; layers that a node has are not sent. Services name it as any image. A node that
is away, or added later, gets it from another when a task needs it.`,
		Example: "  fairlead image push shop/web:1.5\n  fairlead image push shop/web:1.5 --node n1 --node n2",
		RunE: a.withClient(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			to := make([]cluster.NodeID, 0, len(nodes))
			for _, n := range nodes {
				to = append(to, cluster.NodeID(n))
			}
			res, err := a.push(cmd.Context(), cl, args[0], to)
			if err != nil {
				return err
			}
			if err := a.print(res, func() *table { return pushTable(res) }); err != nil {
				return err
			}
			return pushVerdict(res)
		}),
		ValidArgsFunction: completeLocalImages,
	}
	c.Flags().StringArrayVar(&nodes, "node", nil, "only this node; repeat for several")
	_ = c.RegisterFlagCompletionFunc("node", a.completeNodes())
	return c
}

func pushTable(res pushed) *table {
	t := &table{columns: columns("NODE", "SENT", "FROM", "RESULT")}
	for _, n := range res.Nodes {
		from, result := string(n.From), "ok"
		if from == "" {
			from = "here"
		}
		if n.Error != "" {
			result = oneLine(n.Error)
		}
		t.add(string(n.Node), size(n.Bytes), from, result)
	}
	for _, s := range res.Skipped {
		t.add(string(s.Node), "", "", "skipped: "+oneLine(s.Reason))
	}
	return t
}

// pushVerdict is an error when a node could not take the image.
func pushVerdict(res pushed) error {
	var failed []string
	for _, n := range res.Nodes {
		if n.Error != "" {
			failed = append(failed, fmt.Sprintf("%s: %s", n.Node, n.Error))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return failedf("%s is not on every node: %s", res.Image, strings.Join(failed, "; "))
}

// push gives a local image to nodes.
func (a *app) push(ctx context.Context, cl *client.Client, ref string, nodes []cluster.NodeID) (pushed, error) {
	if !validImage(ref) || strings.Contains(ref, "@") {
		return pushed{}, usagef("%q is no name of an image (name:tag)", ref)
	}
	engine, err := docker.New("")
	if err != nil {
		return pushed{}, err
	}
	defer engine.Close() //nolint:errcheck // only read
	img, err := engine.Image(ctx, ref)
	switch {
	case cluster.KindOf(err) == cluster.KindNotFound:
		return pushed{}, failedf("this machine's Docker has no image %s; `docker images` lists what it has", ref)
	case err != nil:
		return pushed{}, failedf("this machine's Docker: %s", docker.Message(err))
	case !img.Named(ref):
		return pushed{}, usagef("%s is an image's ID: services need a name; `docker tag %s NAME:TAG` gives it one", ref, ref)
	}
	plan, err := cl.PlanPush(ctx, v1.ImagePush{Ref: ref, ID: img.ID, Layers: img.Layers, OS: img.OS, Arch: img.Arch, Nodes: nodes})
	if err != nil {
		return pushed{}, err
	}
	res := pushed{Image: ref, ID: img.ID, content: img.Content, Nodes: []v1.PushedNode{}, Skipped: plan.Skipped}
	err = a.upload(ctx, cl, engine, plan, &res)
	if _, refused := errors.AsType[*client.Error](err); refused && !plan.Have.None() {
		// A layer that was not sent may have been removed there meanwhile.
		plan.Have = cluster.ImageHave{}
		err = a.upload(ctx, cl, engine, plan, &res)
	}
	slices.SortFunc(res.Nodes, func(x, y v1.PushedNode) int { return strings.Compare(string(x.Node), string(y.Node)) })
	return res, err
}

func (a *app) upload(ctx context.Context, cl *client.Client, engine *docker.Engine, plan v1.PushPlan, res *pushed) error {
	var tar io.Reader = strings.NewReader("")
	if !plan.Present {
		saved, err := engine.Save(ctx, res.Image, plan.Have)
		if err != nil {
			return failedf("this machine's Docker: %s", docker.Message(err))
		}
		defer saved.Close() //nolint:errcheck // only read
		meter := &meter{r: saved, say: func(int64) {}, now: a.now}
		if a.terminal() && a.human() {
			meter.say = func(n int64) { _, _ = fmt.Fprintf(a.errw, "\r\x1b[2K  %s to %s", size(n), plan.Node) }
			defer func() { _, _ = fmt.Fprint(a.errw, "\r\x1b[2K") }()
		}
		tar = meter
	}
	start := v1.PushStart{Ref: res.Image, Present: plan.Present, Nodes: plan.Nodes}
	if plan.Verifies {
		start.ID, start.Content = res.ID, res.content
	}
	return cl.Push(ctx, start, tar, func(n v1.PushedNode) {
		if n.From == "" {
			res.Bytes += n.Bytes
		}
		res.Nodes = append(res.Nodes, n)
	})
}

// meter says now and then how much was read.
type meter struct {
	r    io.Reader
	n    int64
	said time.Time
	now  func() time.Time
	say  func(n int64)
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if now := m.now(); now.Sub(m.said) > 200*time.Millisecond {
		m.said = now
		m.say(m.n)
	}
	return n, err
}

// completeLocalImages offers the images of this machine's Docker.
func completeLocalImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	engine, err := docker.New("")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer engine.Close() //nolint:errcheck // only asked
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	list, _ := engine.Images(ctx)
	var out []string
	for _, i := range list {
		out = append(out, i.Tags...)
	}
	slices.Sort(out)
	return out, cobra.ShellCompDirectiveNoFileComp
}
