package work

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
	"github.com/fairlead/fairlead/proc"
)

// Task is what the process is told.
type Task struct {
	Delivery cluster.Delivery `json:"delivery"`
	// Password is what the source's secret holds.
	Password []byte `json:"password,omitempty"`
	// Keys is what the secret holds that the delivery decrypts with.
	Keys []byte `json:"keys,omitempty"`
	// Known is the revision that the caller has the bundle of; Seen the newest one
	// that was seen. Package is what is known of that of a repository.
	Known   string          `json:"known,omitempty"`
	Package chart.Seen      `json:"package,omitzero"`
	Seen    *cluster.Origin `json:"seen,omitempty"`
	// Release is the number a package is told, from 1, and Upgrade that the app is there
	// before it; where the newest revision is AppliedRevision, they are the applied ones.
	Release         int    `json:"release"`
	Upgrade         bool   `json:"upgrade,omitempty"`
	AppliedRevision string `json:"applied_revision,omitempty"`
	AppliedRelease  int    `json:"applied_release,omitempty"`
	AppliedUpgrade  bool   `json:"applied_upgrade,omitempty"`
	// Scan asks registries anew; Chosen is what was chosen before, and KnownImages that of
	// it which the bundle of Known has. Logins are by registry, and so is why one is not to
	// be asked now: Leave.
	Scan        bool                 `json:"scan,omitempty"`
	Chosen      []cluster.ImageState `json:"chosen,omitempty"`
	KnownImages string               `json:"known_images,omitempty"`
	Logins      map[string]Login     `json:"logins,omitempty"`
	Leave       map[string]string    `json:"leave,omitempty"`
	// Certs has a directory of certificates to trust for each registry, as an engine's has.
	Certs string `json:"certs,omitempty"`
	// Commit lets chosen images be written to the source; without it they are so in what
	// is returned alone. Cluster signs.
	Commit  bool      `json:"commit,omitempty"`
	Cluster string    `json:"cluster,omitempty"`
	Now     time.Time `json:"now"`
	// Server is what the app is made for.
	Domain     string `json:"domain"`
	SingleNode bool   `json:"single_node"`
	HTTPPort   int    `json:"http_port"`
	HTTPSPort  int    `json:"https_port"`

	Dir        string        `json:"dir"`    // empty, to be used up
	RenderTime time.Duration `json:"render"` // for templates

	end     func(error) // says why this process ends, and ends it
	fetched map[chart.Remote][]chart.File
}

func (t Task) decrypts() bool { return t.Delivery.Decrypt != "" }

// Result is what the process answers; with an error Origin, if the source was fetched, Forced,
// Images and Waits.
type Result struct {
	Origin cluster.Origin `json:"origin"`
	// Forced: the revision that was seen is no longer in the branch's history.
	Forced bool `json:"forced,omitempty"`
	// Package is what is known of a repository's package then.
	Package chart.Seen `json:"package,omitzero"`
	// Bundle is what to deploy; nil where Known is the newest revision.
	Bundle   *v1.Bundle `json:"bundle,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
	// InputBefore is what the version before said the package is rendered from: its releases
	// have that.
	InputBefore string `json:"input_before,omitempty"`
	// Varies: the package's templates make something else each time.
	Varies bool `json:"varies,omitempty"`
	// Images are what the policies chose; Waits says which
	// registries want to be left alone, and for how long.
	Images []cluster.ImageState     `json:"images,omitempty"`
	Waits  map[string]time.Duration `json:"waits,omitempty"`
	// Edits are what was written to the source, or would be; Pushed is the commit with
	// them, and Branch where it is, when that is not what is followed.
	Edits  []image.Edit `json:"edits,omitempty"`
	Pushed string       `json:"pushed,omitempty"`
	Branch string       `json:"branch,omitempty"`

	astray []astray
}

type answer struct {
	Result Result       `json:"result"`
	Error  string       `json:"error,omitempty"`
	Kind   cluster.Kind `json:"kind,omitempty"`
}

// Bounds of the process.
const (
	maxMemory = 1 << 30   // bytes
	maxFile   = 256 << 20 // of one file: a pack of Git's
	maxAnswer = 6*v1.MaxBundle + 1<<20
)

// Worker starts the process.
type Worker struct {
	Command []string // a program that calls Serve, with its arguments
	Dir     string   // for what is fetched, meanwhile
	// Render is how long templates may take; 0: chart.RenderTimeout.
	Render time.Duration
}

// Run fetches and renders. Errors are of KindInvalid where the source is why, and of
// KindTransient where it could not be reached; which revision it is about is returned with it.
func (w Worker) Run(ctx context.Context, t Task) (Result, error) {
	if err := os.MkdirAll(w.Dir, 0o700); err != nil {
		return Result{}, fmt.Errorf("fetch: %w", err)
	}
	dir, err := os.MkdirTemp(w.Dir, "fetch-")
	if err != nil {
		return Result{}, fmt.Errorf("fetch: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left goes at the next start
	t.Dir, t.RenderTime = dir, cmp.Or(w.Render, chart.RenderTimeout)
	in, err := json.Marshal(t) //nolint:gosec // the login goes to the child's standard input alone
	if err != nil {
		return Result{}, fmt.Errorf("fetch: %w", err)
	}
	d := t.Delivery.Filled().Timeout.D()
	ctx, cancel := context.WithTimeoutCause(ctx, d, cluster.Transientf("the source was not fetched after %s", d))
	defer cancel()
	cmd := exec.CommandContext(ctx, w.Command[0], w.Command[1:]...) //nolint:gosec // this program itself
	cmd.Env = environment()
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = time.Second
	if t.decrypts() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // nothing else sees its tmpfs, which ends with it
	}
	out, said := &capped{most: maxAnswer}, &capped{most: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	ended, err := proc.StartTied(cmd)
	if err == nil {
		err = <-ended
	}
	a, jerr := answered(&out.buf)
	about := Result{Origin: a.Result.Origin, Forced: a.Result.Forced}
	switch {
	case ctx.Err() != nil:
		return about, context.Cause(ctx)
	case err != nil || jerr != nil:
	case a.Error != "":
		return a.Result, &cluster.Error{Kind: a.Kind, Msg: a.Error}
	default:
		return a.Result, nil
	}
	line, _, _ := strings.Cut(strings.TrimSpace(said.buf.String()), "\n")
	if t.decrypts() && !strings.HasPrefix(line, "fatal error: ") && !strings.HasPrefix(line, "panic: runtime error: ") {
		line = "" // it may hold what was decrypted
	}
	switch {
	case t.decrypts() && cmd.Process == nil && errors.Is(err, os.ErrPermission):
		return Result{}, cluster.Invalidf("decrypting takes a mount namespace, so that nothing is on disk in clear, and this server may make none: run it as root with CAP_SYS_ADMIN")
	case out.full:
		return about, cluster.Invalidf("the source makes more than %d MiB", v1.MaxBundle>>20)
	case strings.Contains(line, "out of memory"), strings.Contains(line, "cannot allocate memory"):
		return about, cluster.Invalidf("the source needs more than %d MiB of memory", maxMemory>>20)
	default:
		return about, cluster.Invalidf("the source ended the program that reads it (%v): %s", err, line)
	}
}

// answered is what the process said: which revision it has, then what came of it, if it got
// that far.
func answered(r io.Reader) (answer, error) {
	var last answer
	dec := json.NewDecoder(r)
	for n := 0; ; n++ {
		var a answer
		switch err := dec.Decode(&a); {
		case errors.Is(err, io.EOF) && n > 0:
			return last, nil
		case err != nil:
			return last, err
		}
		last = a
	}
}

// Clean removes what processes left that did not end in order.
func (w Worker) Clean() error { return os.RemoveAll(w.Dir) }

// environment is how the network is reached, and nothing else.
func environment() []string {
	env := []string{}
	for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// capped keeps so much of what is written to it.
type capped struct {
	buf  bytes.Buffer
	most int
	full bool
}

func (c *capped) Write(p []byte) (int, error) {
	if c.buf.Len()+len(p) > c.most {
		c.full = true
		return 0, errors.New("too much output")
	}
	return c.buf.Write(p)
}

// Serve is the process of a Worker: it reads one task from in, and answers on out. It
// gives up the machine's files for good. exit ends it when templates loop, which they
// can without calling anything.
func Serve(ctx context.Context, in io.Reader, out io.Writer, exit func(code int)) error {
	var t Task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	var one sync.Mutex
	say := func(a answer) error {
		one.Lock()
		defer one.Unlock()
		return json.NewEncoder(out).Encode(a)
	}
	failed := func(r Result, err error) answer {
		return answer{Result: Result{Origin: r.Origin, Forced: r.Forced, Images: r.Images, Waits: r.Waits}, Error: err.Error(), Kind: cluster.KindOf(err)}
	}
	var about Result
	t.end = func(err error) {
		one.Lock() // and never unlocked: nothing is said after it
		_ = json.NewEncoder(out).Encode(failed(about, err))
		exit(0)
	}
	r, err := do(ctx, t, func(r Result) error {
		about = Result{Origin: r.Origin, Forced: r.Forced}
		return say(answer{Result: about}) // a source that ends this process is named too
	})
	if err != nil {
		return say(failed(r, err))
	}
	return say(answer{Result: r})
}

func do(ctx context.Context, t Task, fetched func(Result) error) (Result, error) {
	if err := bound(); err != nil {
		return Result{}, err
	}
	// The tree's name occurs in no source: a path below it was relative there.
	tree := filepath.Join(t.Dir, treeName)
	if err := os.Mkdir(tree, 0o700); err != nil {
		return Result{}, fmt.Errorf("fetch: %w", err)
	}
	if t.decrypts() {
		if err := inMemory(tree); err != nil {
			return Result{}, err
		}
	}
	images, waits, err := scanImages(ctx, t)
	if err != nil {
		return Result{Images: images, Waits: waits}, err
	}
	if ImagesKey(images) != t.KnownImages {
		t.Known = ""
	}
	r, err := fetch(ctx, &t, images, tree)
	r.Waits = waits
	if err != nil {
		r.Images = images
		return r, err
	}
	if r.Origin.Revision == t.Known {
		return r, nil
	}
	if err := fetched(r); err != nil {
		return r, err
	}
	if err := t.fetchDependencies(ctx, tree); err != nil {
		return r, err
	}
	if err := confine(t.Dir); err != nil {
		return r, err
	}
	if err := load(ctx, t, &r); err != nil {
		return r, err
	}
	if !commits(t.Delivery) {
		place(&r)
		withImages(&r)
	}
	return r, nil
}

// bound sets the limits that the kernel keeps.
func bound() error {
	for what, most := range map[int]uint64{unix.RLIMIT_DATA: maxMemory, unix.RLIMIT_FSIZE: maxFile, unix.RLIMIT_CORE: 0} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("bound the process: %w", err)
		}
	}
	return nil
}

// inMemory makes dir a bounded tmpfs.
func inMemory(dir string) error {
	const options = "mode=0700,size=192m,nr_inodes=50000" // for MaxTree, maxFiles and what is made of them
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options+",noswap")
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options)
	}
	if err != nil {
		return cluster.Invalidf("decrypting takes a tmpfs, so that nothing is on disk in clear: %w", err)
	}
	return nil
}

// confine makes dir all that the process sees.
func confine(dir string) error {
	if err := unix.Chroot(dir); err != nil {
		return fmt.Errorf("confine the process: %w", err)
	}
	return os.Chdir("/")
}
