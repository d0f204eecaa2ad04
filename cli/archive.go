package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/go-archive"
)

// withFile is the archive with one more file in it.
func withFile(in io.ReadCloser, name, content string) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() {
		defer in.Close() //nolint:errcheck // only read
		pw.CloseWithError(appendFile(pw, in, name, content))
	}()
	return pr
}

func appendFile(w io.Writer, in io.Reader, name, content string) error {
	tw, tr := tar.NewWriter(w), tar.NewReader(in)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil { //nolint:gosec // the user's own files
			return err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	if _, err := io.WriteString(tw, content); err != nil {
		return err
	}
	return tw.Close()
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pack is the tar of a file or directory, under a name or, without one, its own.
func pack(path, name string) (io.ReadCloser, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, err
	}
	o := &archive.TarOptions{IncludeFiles: []string{filepath.Base(abs)}}
	if name != "" {
		o.RebaseNames = map[string]string{filepath.Base(abs): name}
	}
	return archive.TarWithOptions(filepath.Dir(abs), o)
}

// unpack writes a tar below dir, or to dir itself when it is a file's name.
// Names that lead out of it are refused.
func unpack(in io.Reader, to string) error {
	st, err := os.Stat(to)
	dir, rename := to, ""
	if err != nil || !st.IsDir() {
		dir, rename = filepath.Dir(to), filepath.Base(to)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only a handle
	for tr := tar.NewReader(in); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := renamed(h.Name, rename)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = renamed(h.Linkname, rename)
		}
		if err := unpackOne(root, name, h, tr); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
}

// renamed is an entry's name with another first part.
func renamed(name, to string) string {
	name = filepath.Clean(name)
	if to == "" {
		return name
	}
	_, rest, _ := strings.Cut(name, "/")
	return filepath.Join(to, rest)
}

func unpackOne(root *os.Root, name string, h *tar.Header, in io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, h.FileInfo().Mode().Perm()|0o700)
	case tar.TypeSymlink, tar.TypeLink:
		if st, err := root.Lstat(name); err == nil && !st.IsDir() {
			if err := root.Remove(name); err != nil { // what an earlier copy left
				return err
			}
		}
		if h.Typeflag == tar.TypeLink {
			return root.Link(h.Linkname, name)
		}
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, h.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, in)
		return errors.Join(err, f.Close())
	}
	return nil // devices and the like have no use outside the container
}
