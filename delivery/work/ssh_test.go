package work_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/integration/need"
)

// key makes a key pair: the private one as ssh keeps it, and the line of the public one.
func key(t *testing.T) (private []byte, public string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

// served is an ssh server that lets user's key run Git on the forge.
type served struct {
	addr, user string
	login      []byte // the private key that it lets in
	host       string // its public key
}

func (s served) known() string {
	host, port, _ := net.SplitHostPort(s.addr)
	return fmt.Sprintf("[%s]:%s %s\n", host, port, s.host)
}

// small is a server of Go's own ssh.
func small(t *testing.T) served {
	t.Helper()
	host, hostLine := key(t)
	user, userLine := key(t)
	signer, err := ssh.ParsePrivateKey(host)
	if err != nil {
		t.Fatal(err)
	}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) != userLine {
			return nil, errors.New("not this key")
		}
		return &ssh.Permissions{}, nil
	}}
	conf.AddHostKey(signer)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(t.Context(), c, conf)
		}
	}()
	return served{l.Addr().String(), "git", user, hostLine}
}

func serveSSH(ctx context.Context, c net.Conn, conf *ssh.ServerConfig) {
	defer func() { _ = c.Close() }()
	_, chans, reqs, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, in, err := nc.Accept()
		if err != nil {
			return
		}
		for r := range in {
			if r.Type != "exec" {
				_ = r.Reply(false, nil)
				continue
			}
			_ = r.Reply(true, nil)
			cmd := exec.CommandContext(ctx, "sh", "-c", string(r.Payload[4:]))
			cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
			stdin, _ := cmd.StdinPipe()
			go func() { _, _ = io.Copy(stdin, ch); _ = stdin.Close() }()
			_ = cmd.Run()
			_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
			_ = ch.Close()
			break
		}
	}
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

// openssh is the real one, of this machine or of a package.
func openssh(t *testing.T) served {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "bash", filepath.Join(need.Root(t), "scripts/sshd")).Output()
	sshd := strings.TrimSpace(string(out))
	if err != nil || sshd == "" {
		need.Skip(t, "no OpenSSH server (scripts/sshd): %v", err)
	}
	dir := t.TempDir()
	host, hostLine := key(t)
	user, userLine := key(t)
	port := need.Port(t)
	for name, content := range map[string][]byte{
		"host": host, "authorized": []byte(userLine + "\n"),
		"conf": fmt.Appendf(nil, "ListenAddress 127.0.0.1:%d\nHostKey %s/host\nAuthorizedKeysFile %[2]s/authorized\nStrictModes no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n", port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", apart, "sh", sshd, dir)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(sshd))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s := served{fmt.Sprintf("127.0.0.1:%d", port), "root", user, hostLine}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.addr)
		if err == nil {
			_ = c.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not listen: %v", err)
		}
	}
}

func TestSSHSpeaksToKnownHostsAlone(t *testing.T) {
	for name, start := range map[string]func(*testing.T) served{"go": small, "openssh": openssh} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			f.write("compose.yaml", compose("web:1"))
			commit := f.push("the first")
			s := start(t)
			d := f.local()
			d.Source.URL, d.Source.Secret, d.Source.KnownHosts = fmt.Sprintf("ssh://%s@%s%s", s.user, s.addr, f.dir), "key", s.known()
			if err := d.Validate(); err != nil {
				t.Fatal(err)
			}
			if r := f.must(work.Task{Delivery: d, Password: s.login}); r.Origin.Revision != commit || r.Bundle == nil {
				t.Errorf("%+v", r.Origin)
			}
			other, otherLine := key(t)
			f.refused(work.Task{Delivery: d, Password: other}, cluster.KindForbidden, "authenticate")
			f.refused(work.Task{Delivery: d, Password: []byte("no key")}, cluster.KindInvalid, "no private key")
			s.host = otherLine
			d.Source.KnownHosts = s.known()
			f.refused(work.Task{Delivery: d, Password: s.login}, cluster.KindForbidden, "another key")
			d.Source.KnownHosts = "git.example.com " + otherLine
			f.refused(work.Task{Delivery: d, Password: s.login}, cluster.KindForbidden, "no key of")
			d.Source.KnownHosts = ""
			if err := d.Validate(); err == nil || !strings.Contains(err.Error(), "keys must be known") {
				t.Errorf("without known hosts: %v", err)
			}
		})
	}
}
