// Package etcdd runs an etcd of a test's own as a process of its own, with TLS and
// client certificates: what an operator's etcd is.
package etcdd

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/need"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/proc"
	"github.com/fairlead/fairlead/store"
)

// Versions that there are.
const (
	Debian  = "debian"  // 3.4, of Debian 12's package
	Current = "current" // the release that is embedded, as a program
)

// Etcd is one server.
type Etcd struct {
	// Endpoint, and the files that a client needs.
	Endpoint, CA, Cert, Key string

	t       testing.TB
	dir     string
	program string
	peer    string
	keys    *pki.PKI
	cmd     *exec.Cmd
	ended   <-chan error
}

// Start starts an etcd of a version, on loopback; it ends with the test.
func Start(tb testing.TB, version string) *Etcd {
	tb.Helper()
	return StartAt(tb, version, "127.0.0.1")
}

// StartAt starts an etcd on an address of this machine's.
func StartAt(tb testing.TB, version, addr string) *Etcd {
	tb.Helper()
	e := &Etcd{t: tb, dir: tb.TempDir(), program: program(tb, version)}
	var err error
	if e.keys, err = pki.Open(filepath.Join(e.dir, "pki"), pki.Host{Node: "etcd", Hosts: []string{addr}}, time.Now); err != nil {
		tb.Fatal(err)
	}
	e.Endpoint, e.peer = fmt.Sprintf("https://%s:%d", addr, need.Port(tb)), fmt.Sprintf("https://127.0.0.1:%d", need.Port(tb))
	e.CA, e.Cert, e.Key = e.keys.CAFile(), e.keys.RootFile(), e.keys.RootFile()
	tb.Cleanup(e.Kill)
	e.Up()
	return e
}

func program(tb testing.TB, version string) string {
	tb.Helper()
	if version == Debian {
		out, err := exec.Command("bash", filepath.Join(need.Root(tb), "scripts/etcd-debian")).Output()
		path := strings.TrimSpace(string(out))
		if err != nil || path == "" {
			need.Skip(tb, "needs Debian's etcd: %v", err)
		}
		return path
	}
	path := filepath.Join(tb.TempDir(), "etcd")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "go.etcd.io/etcd/server/v3")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build etcd: %v\n%s", err, out)
	}
	return path
}

// Up starts the program, again after Kill, and waits until it answers.
func (e *Etcd) Up() {
	e.t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command(e.program, "--name", "etcd", "--data-dir", filepath.Join(e.dir, "data"),
		"--listen-client-urls", e.Endpoint, "--advertise-client-urls", e.Endpoint,
		"--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer, "--initial-cluster", "etcd="+e.peer,
		"--client-cert-auth", "--trusted-ca-file", e.CA, "--cert-file", e.keys.ServerFile(), "--key-file", e.keys.ServerFile(),
		"--peer-client-cert-auth", "--peer-trusted-ca-file", e.CA, "--peer-cert-file", e.keys.PeerFile(), "--peer-key-file", e.keys.PeerFile())
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if e.ended, err = proc.StartTied(e.cmd); err != nil {
		e.cmd = nil
		e.t.Fatal(err)
	}
	st := e.Store()
	defer st.Close()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err = st.Get(ctx, "ready"); cluster.KindOf(err) == cluster.KindNotFound {
			return
		}
		if ctx.Err() != nil {
			b, _ := os.ReadFile(log.Name())
			e.t.Fatalf("etcd does not answer: %v\n%s", err, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Store is a client.
func (e *Etcd) Store() *store.Etcd {
	e.t.Helper()
	st, err := store.NewEtcd(store.EtcdConfig{Endpoints: []string{e.Endpoint}, TLS: e.keys.RootTLS()}, hclog.NewNullLogger())
	if err != nil {
		e.t.Fatal(err)
	}
	return st
}

// Guard has the etcd ask who its clients are; from then on Cert and Key are those of a user who has
// these grants alone.
func (e *Etcd) Guard(user string, grants []store.Grant) {
	e.t.Helper()
	st := e.Store()
	defer st.Close()
	err := st.AddUser(e.t.Context(), user, grants)
	if err == nil {
		err = st.Secure(e.t.Context())
	}
	var cert []byte
	if err == nil {
		cert, err = e.keys.Issue(pki.Request{Use: pki.UseClient, Name: user, Now: time.Now()})
	}
	path := filepath.Join(e.dir, "user.pem")
	if err == nil {
		err = os.WriteFile(path, cert, 0o600)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	e.Cert, e.Key = path, path
}

// TLS is that of a client who may do everything.
func (e *Etcd) TLS() *tls.Config { return e.keys.RootTLS() }

// Kill ends the program with SIGKILL.
func (e *Etcd) Kill() {
	if e.cmd != nil {
		_ = e.cmd.Process.Kill()
		<-e.ended
		e.cmd = nil
	}
}

// Save ends the program and keeps a copy of its data; it is not started again.
func (e *Etcd) Save() {
	e.t.Helper()
	e.Kill()
	e.copyData("data", "saved")
}

// PutBack ends the program and has the data of Save in place of its own; it is not started again.
func (e *Etcd) PutBack() {
	e.t.Helper()
	e.Kill()
	e.copyData("saved", "data")
}

// Empty ends the program and removes its data; it is not started again.
func (e *Etcd) Empty() {
	e.t.Helper()
	e.Kill()
	if err := os.RemoveAll(filepath.Join(e.dir, "data")); err != nil {
		e.t.Fatal(err)
	}
}

func (e *Etcd) copyData(from, to string) {
	e.t.Helper()
	err := os.RemoveAll(filepath.Join(e.dir, to))
	if err == nil {
		err = os.CopyFS(filepath.Join(e.dir, to), os.DirFS(filepath.Join(e.dir, from)))
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// Flags have a server use it.
func (e *Etcd) Flags() []string {
	return []string{"--etcd-endpoints", e.Endpoint, "--etcd-ca", e.CA, "--etcd-cert", e.Cert, "--etcd-key", e.Key}
}
