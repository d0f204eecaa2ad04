package chart

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

//go:embed all:skeleton
var skeleton embed.FS

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Create makes a chart in dir/name that can be installed as it is, and returns where.
func Create(dir, name string) (string, error) {
	if !nameRE.MatchString(name) {
		return "", cluster.Invalidf("%.80q cannot name a chart: use lower-case letters, digits and -", name)
	}
	out := filepath.Join(dir, name)
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return "", cluster.Invalidf("%s is there already; choose another name, or remove it", out)
	}
	err := fs.WalkDir(skeleton, "skeleton", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(out, strings.TrimPrefix(p, "skeleton"))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755) //nolint:gosec // a chart is no secret
		}
		b, err := skeleton.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(to, []byte(strings.ReplaceAll(string(b), "CHARTNAME", name)), 0o644) //nolint:gosec // a chart is no secret
	})
	return out, err
}
