// Package sshd is an OpenSSH server for tests.
package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fairlead/fairlead/integration/need"
)

// Key makes a key pair: the private one as ssh keeps it, and the line of the public one.
func Key(tb testing.TB) (private []byte, public string) {
	tb.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		tb.Fatal(err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

// Server is an ssh server that lets one key run programs, and so git.
type Server struct {
	Addr, User string
	Login      []byte // the private key that it lets in
	Host       string // its public key
}

// Known is its line of a file of known hosts.
func (s Server) Known() string {
	host, port, _ := net.SplitHostPort(s.Addr)
	return fmt.Sprintf("[%s]:%s %s\n", host, port, s.Host)
}

// apart starts sshd with a directory and a user of its own, which a machine that has none
// installed lacks.
const apart = `set -eu
mount -t tmpfs tmpfs /run
mkdir /run/sshd
cp /etc/passwd "$2/passwd"
grep -q ^sshd: "$2/passwd" || echo "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin" >>"$2/passwd"
mount --bind "$2/passwd" /etc/passwd
exec "$1" -D -e -f "$2/conf"`

// Start starts the OpenSSH server of this machine, or of a package, until the test ends.
func Start(tb testing.TB) Server {
	tb.Helper()
	out, err := exec.CommandContext(tb.Context(), "bash", filepath.Join(need.Root(tb), "scripts/sshd")).Output()
	sshd := strings.TrimSpace(string(out))
	if err != nil || sshd == "" {
		need.Skip(tb, "no OpenSSH server (scripts/sshd): %v", err)
	}
	dir := tb.TempDir()
	host, hostLine := Key(tb)
	user, userLine := Key(tb)
	port := need.Port(tb)
	for name, content := range map[string][]byte{
		"host": host, "authorized": []byte(userLine + "\n"),
		"conf": fmt.Appendf(nil, "ListenAddress 127.0.0.1:%d\nHostKey %s/host\nAuthorizedKeysFile %[2]s/authorized\nStrictModes no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n", port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	cmd := exec.CommandContext(tb.Context(), "unshare", "--mount", "sh", "-c", apart, "sh", sshd, dir)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(sshd))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s := Server{fmt.Sprintf("127.0.0.1:%d", port), "root", user, hostLine}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(tb.Context(), "tcp", s.Addr)
		if err == nil {
			_ = c.Close()
			return s
		}
		if time.Now().After(deadline) {
			tb.Fatalf("sshd does not listen: %v", err)
		}
	}
}
