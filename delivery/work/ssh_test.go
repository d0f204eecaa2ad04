package work_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/work"
	"github.com/fairlead/fairlead/integration/sshd"
)

// small is a server of Go's own ssh.
func small(tb testing.TB) sshd.Server {
	tb.Helper()
	host, hostLine := sshd.Key(tb)
	user, userLine := sshd.Key(tb)
	signer, err := ssh.ParsePrivateKey(host)
	if err != nil {
		tb.Fatal(err)
	}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) != userLine {
			return nil, errors.New("not this key")
		}
		return &ssh.Permissions{}, nil
	}}
	conf.AddHostKey(signer)
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(tb.Context(), c, conf)
		}
	}()
	return sshd.Server{Addr: l.Addr().String(), User: "git", Login: user, Host: hostLine}
}

// ssh is a source of the forge's repository over ssh, followed as src says.
func (f *forge) ssh(s sshd.Server, src cluster.SourceSpec) cluster.SourceSpec {
	src.URL, src.Secret, src.KnownHosts = fmt.Sprintf("ssh://%s@%s%s", s.User, s.Addr, f.dir), "key", s.Known()
	return src
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

func TestSSHSpeaksToKnownHostsAlone(t *testing.T) {
	for name, start := range map[string]func(testing.TB) sshd.Server{"go": small, "openssh": sshd.Start} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			f.write("compose.yaml", compose("web:1"))
			commit := f.push("the first")
			s := start(t)
			d := f.local()
			d.Source = f.ssh(s, d.Source)
			if err := d.Validate(); err != nil {
				t.Fatal(err)
			}
			if r := f.must(work.Task{Delivery: d, Password: s.Login}); r.Origin.Revision != commit || r.Bundle == nil {
				t.Errorf("%+v", r.Origin)
			}
			other, otherLine := sshd.Key(t)
			f.refused(work.Task{Delivery: d, Password: other}, cluster.KindForbidden, "authenticate")
			f.refused(work.Task{Delivery: d, Password: []byte("no key")}, cluster.KindInvalid, "no private key")
			s.Host = otherLine
			d.Source.KnownHosts = s.Known()
			f.refused(work.Task{Delivery: d, Password: s.Login}, cluster.KindForbidden, "another key")
			d.Source.KnownHosts = "git.example.com " + otherLine
			f.refused(work.Task{Delivery: d, Password: s.Login}, cluster.KindForbidden, "no key of")
			d.Source.KnownHosts = ""
			if err := d.Validate(); err == nil || !strings.Contains(err.Error(), "keys must be known") {
				t.Errorf("without known hosts: %v", err)
			}
		})
	}
}
