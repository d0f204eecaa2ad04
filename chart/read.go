package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/ignore"

	"github.com/fairlead/fairlead/cluster"
)

// Bounds of a chart, with the charts in it.
const (
	MaxSize   = 64 << 20 // bytes, unpacked
	maxFiles  = 20_000
	maxNested = 8 // archives within archives
)

// File is a file of a chart; its name is relative to the chart.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Get returns the content of a file, or nil.
func Get(files []File, name string) []byte {
	if i := slices.IndexFunc(files, func(f File) bool { return f.Name == name }); i >= 0 {
		return files[i].Data
	}
	return nil
}

// Read reads a chart from its directory or archive. What .helmignore names is left
// out of a directory; a link in it may lead to a file of the same chart alone.
func Read(name string) ([]File, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, cluster.NotFoundf("there is no chart %s", name)
	case err != nil:
		return nil, cluster.Invalidf("chart %s: %w", name, err)
	case info.IsDir():
		return readDir(name)
	}
	f, err := os.Open(name) //nolint:gosec // the user's own chart
	if err != nil {
		return nil, cluster.Invalidf("chart %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // read only
	return ReadArchive(name, f)
}

// ReadArchive reads a chart's archive; name is for errors.
func ReadArchive(name string, r io.Reader) ([]File, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, cluster.Invalidf("chart %s: %w", name, err)
	}
	l := limits{left: MaxSize, files: maxFiles}
	if err := l.take(name, int64(len(b))); err != nil {
		return nil, err
	}
	l = limits{left: MaxSize, files: maxFiles}
	if err := l.archive(name, b, 0); err != nil {
		return nil, err
	}
	list, err := archive.LoadArchiveFiles(bytes.NewReader(b))
	if err != nil {
		return nil, cluster.Invalidf("chart %s: %w", name, err)
	}
	files := make([]File, len(list))
	for i, f := range list {
		files[i] = File{Name: f.Name, Data: f.Data}
	}
	return files, isChart(name, files)
}

func isChart(name string, files []File) error {
	if Get(files, "Chart.yaml") == nil {
		return cluster.Invalidf("%s is no chart: it has no Chart.yaml; `fairlead chart create` makes one that works", name)
	}
	return nil
}

// limits are what is left of the bounds of a chart.
type limits struct {
	left  int64
	files int
}

func (l *limits) take(chart string, size int64) error {
	if l.left -= size; l.left < 0 {
		return cluster.Invalidf("chart %s is larger than %d MiB", chart, MaxSize>>20)
	}
	if l.files--; l.files < 0 {
		return cluster.Invalidf("chart %s has more than %d files", chart, maxFiles)
	}
	return nil
}

// archive looks at an archive, and at those in it, without keeping anything.
func (l *limits) archive(chart string, b []byte, depth int) error {
	if depth > maxNested {
		return cluster.Invalidf("chart %s holds archives within archives, more than %d deep", chart, maxNested)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return cluster.Invalidf("%s is no chart's archive: it is not gzip", chart)
	}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cluster.Invalidf("chart %s: %w", chart, err)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeXGlobalHeader, tar.TypeXHeader:
		default:
			return cluster.Invalidf("chart %s: %q is a link or a device; an archive of a chart has files alone", chart, h.Name)
		}
		if bad := badName(h.Name); bad != "" {
			return cluster.Invalidf("chart %s: %q %s", chart, h.Name, bad)
		}
		if err := l.file(chart, h, tr, depth); err != nil {
			return err
		}
	}
}

func (l *limits) file(chart string, h *tar.Header, r io.Reader, depth int) error {
	if h.Typeflag != tar.TypeReg {
		return l.take(chart, 0)
	}
	nested := isNested(h.Name)
	var kept bytes.Buffer
	into := io.Discard
	if nested {
		into = &kept
	}
	n, err := io.Copy(into, io.LimitReader(r, l.left+1)) // what the header says of the size is not believed
	if err != nil {
		return cluster.Invalidf("chart %s: %q: %w", chart, h.Name, err)
	}
	if err := l.take(chart, n); err != nil || !nested {
		return err
	}
	return l.archive(chart+": "+h.Name, kept.Bytes(), depth+1)
}

// isNested reports whether a file is a chart's archive within a chart.
func isNested(name string) bool {
	return strings.HasSuffix(name, ".tgz") && slices.Contains(strings.Split(name, "/"), "charts")
}

// badName says why a file of an archive is refused.
func badName(name string) string {
	switch slash := strings.ReplaceAll(name, `\`, "/"); {
	case path.IsAbs(slash), len(slash) > 1 && slash[1] == ':':
		return "is an absolute path"
	case slices.Contains(strings.Split(slash, "/"), ".."):
		return "leads out of the chart"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "holds control characters"
	}
	return ""
}

var utf8bom = []byte{0xEF, 0xBB, 0xBF}

// readDir reads a directory as Helm does, but for what a link may lead to. The root
// that it is read through follows none out of it, also one made meanwhile.
func readDir(dir string) ([]File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, cluster.Invalidf("chart %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }() // read only
	return readRoot(root, dir, &limits{left: MaxSize, files: maxFiles})
}

// readRoot reads the directory that root is; dir is for errors.
func readRoot(root *os.Root, dir string, l *limits) ([]File, error) {
	if info, err := root.Stat("Chart.yaml"); err != nil || info.IsDir() {
		return nil, isChart(dir, nil)
	}
	rules := ignore.Empty()
	if b, err := root.ReadFile(ignore.HelmIgnore); err == nil {
		if rules, err = ignore.Parse(bytes.NewReader(b)); err != nil {
			return nil, cluster.Invalidf("chart %s: .helmignore: %w", dir, err)
		}
	}
	rules.AddDefaults()
	var files []File
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 && rules.Ignore(name, linkInfo{name}) {
			return nil
		}
		info, err := root.Stat(name)
		if err != nil || (d.Type()&fs.ModeSymlink != 0 && info.IsDir()) {
			return badLink(name, d, err)
		}
		switch {
		case rules.Ignore(name, info) && info.IsDir():
			return fs.SkipDir
		case info.IsDir() || rules.Ignore(name, info):
			return nil
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no file", name)
		case info.Size() > l.left:
			return l.take(dir, info.Size())
		}
		b, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		if err := l.take(dir, int64(len(b))); err != nil {
			return err
		}
		if isNested(name) {
			if err := l.archive(name, b, 1); err != nil {
				return err
			}
		}
		files = append(files, File{Name: name, Data: bytes.TrimPrefix(b, utf8bom)})
		return nil
	})
	switch {
	case cluster.KindOf(err) == cluster.KindInvalid:
		return nil, err
	case err != nil:
		return nil, cluster.Invalidf("chart %s: %w", dir, err)
	}
	return files, isChart(dir, files)
}

func badLink(name string, d fs.DirEntry, err error) error {
	if d.Type()&fs.ModeSymlink == 0 {
		return err
	}
	return cluster.Invalidf("%s is a link to a directory, or out of the chart; copy what it leads to", name)
}

// linkInfo stands for a link whose end nobody looks at.
type linkInfo struct{ name string }

func (l linkInfo) Name() string         { return path.Base(l.name) }
func (linkInfo) Size() int64            { return 0 }
func (linkInfo) IsDir() bool            { return false }
func (linkInfo) Mode() fs.FileMode      { return fs.ModeSymlink }
func (linkInfo) ModTime() (t time.Time) { return t }
func (linkInfo) Sys() any               { return nil }
