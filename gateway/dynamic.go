package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/atomicfile"
	"github.com/fairlead/fairlead/cluster"
)

// dynamicFile is one file of Traefik's file provider. What is in these must never
// be on a disk, so they are on tmpfs; a restart of the machine needs them
// written again.
type dynamicFile struct {
	name   string // of the file
	marker string // prefix of the middleware that shows that the file has been read
}

var (
	certificatesFile = dynamicFile{"certificates.yaml", "fairlead-certs-"}
	usersFile        = dynamicFile{"users.yaml", "fairlead-users-"}
)

func (f dynamicFile) path(c Config) string { return filepath.Join(c.dynamicDir(), f.name) }

// write replaces the file. Its content is TLS certificates and middlewares, by
// name; secret says that there is something in it.
func (f dynamicFile) write(c Config, certificates []object, middlewares object, secret bool) error {
	if err := prepareDynamic(c, secret); err != nil {
		return err
	}
	b, err := json.Marshal([]any{certificates, middlewares})
	if err != nil {
		return fmt.Errorf("write %s for Traefik: %w", f.name, err)
	}
	// A harmless middleware shows in the API when the file has been read.
	sum := sha256.Sum256(b)
	all := object{f.marker + hex.EncodeToString(sum[:8]): object{"stripPrefix": object{"prefixes": []string{"/fairlead-seed"}}}}
	maps.Copy(all, middlewares)
	file := object{"http": object{"middlewares": all}}
	if len(certificates) > 0 {
		file["tls"] = object{"certificates": certificates}
	}
	if b, err = json.Marshal(file); err != nil {
		return fmt.Errorf("write %s for Traefik: %w", f.name, err)
	}
	// Traefik takes the file for a template first, and JSON itself never has two in a row.
	b = bytes.ReplaceAll(b, []byte("{{"), []byte(`{\u007b`))
	if err := atomicfile.Write(f.path(c), b); err != nil {
		return fmt.Errorf("write %s for Traefik: %w", f.name, err)
	}
	return nil
}

// HasFiles reports whether the files are there; a boot takes them.
func HasFiles(c Config) bool {
	for _, f := range []dynamicFile{certificatesFile, usersFile} {
		if _, ok := f.shown(c); !ok {
			return false
		}
	}
	return true
}

// prepareDynamic makes the files' directory, which must be in memory for secrets.
func prepareDynamic(c Config, secret bool) error {
	dir := c.dynamicDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("gateway: make the directory for Traefik's files: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("gateway: look at %s: %w", dir, err)
	}
	if secret && fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return cluster.Invalidf("gateway: %s is not on tmpfs: private keys and users are never written to a disk; use a run directory such as /run/fairlead", dir)
	}
	return nil
}

// middlewares returns the names of those in the present file, nil when there is none.
func (f dynamicFile) middlewares(c Config) []string {
	b, err := os.ReadFile(f.path(c))
	if err != nil {
		return nil
	}
	var file struct {
		HTTP struct {
			Middlewares map[string]json.RawMessage `json:"middlewares"`
		} `json:"http"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil
	}
	return slices.Collect(maps.Keys(file.HTTP.Middlewares))
}

// shown returns the name of the middleware that shows that the present file has
// been read, false when there is no file.
func (f dynamicFile) shown(c Config) (string, bool) {
	for _, name := range f.middlewares(c) {
		if strings.HasPrefix(name, f.marker) {
			return name, true
		}
	}
	return "", false
}
