package pki

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"filippo.io/age"

	"github.com/fairlead/fairlead/cluster"
)

const (
	identityFile  = "node.age"
	clusterIDFile = "cluster-id"
)

// NodeIdentity reads this node's age identity from dir, or makes one. Secrets
// are encrypted to its Recipient; it never leaves the machine.
func NodeIdentity(dir string) (_ *age.X25519Identity, err error) {
	path := filepath.Join(dir, identityFile)
	b, err := once(path, func() ([]byte, error) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, fmt.Errorf("make the node's identity: %w", err)
		}
		return fmt.Appendf(nil, "# public key: %s\n%s\n", id.Recipient(), id), nil
	})
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			break // its message would quote the line
		}
		return id, nil
	}
	return nil, cluster.Invalidf("%s holds no age identity: restore it, or remove it and what was sealed to this node is sealed again", path)
}

var clusterIDRE = regexp.MustCompile(`^[a-z2-7]{10}$`)

// ClusterID reads the cluster's ID from dir, or makes one: ten characters of
// base32. It is in labels and names of what Fairlead makes on a machine.
func ClusterID(dir string) (string, error) {
	path := filepath.Join(dir, clusterIDFile)
	b, err := once(path, func() ([]byte, error) {
		var raw [7]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return nil, fmt.Errorf("make the cluster's ID: %w", err)
		}
		return []byte(strings.ToLower(base32.StdEncoding.EncodeToString(raw[:])[:10]) + "\n"), nil
	})
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(b))
	if !clusterIDRE.MatchString(id) {
		return "", cluster.Invalidf("%s holds %q, which is no cluster ID", path, id)
	}
	return id, nil
}

// once returns the file's content, which fresh provides the first time.
func once(path string, fresh func() ([]byte, error)) (_ []byte, err error) {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	b, err := read(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if b, err = fresh(); err != nil {
		return nil, err
	}
	return b, write(path, b)
}
