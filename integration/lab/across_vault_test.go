package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/fairlead/fairlead/integration/vaultd"
)

// A secret that is in Vault, for tasks on a node that joined. Without Vault they run on;
// a new one waits, says for what, and runs once Vault is back.
func vaulted(b *bed) {
	v := vaultd.Start(b.t)
	v.Put("shop/db", map[string]any{"password": "from-the-vault"})
	v.Policy("shop", "shop")
	role, secretID := v.AppRole("fairlead", "shop", "1h")
	b.reaches("n1", v.Address)

	args := b.unit("n1")
	b.do("kill", "n1/fairlead")
	log, ended := b.byHand("n1", "", append(args, "--vault", v.Address, "--vault-ca", v.CA, "--vault-role-id", role, "--vault-secret-id-file", secretID)...)
	defer func() {
		b.do("exec", "n1", "--", "pkill", "-TERM", "-f", "^"+strings.Join(args, " ")+" --vault")
		<-ended
		b.do("start", "n1/fairlead")
		b.do("status", "--wait", "1m")
		if b.t.Failed() {
			b.t.Logf("the server with Vault:\n%s", b.read(log))
		}
	}()
	b.eventually(time.Minute, "the server with Vault answers", func() error {
		_, err := output(b.fairlead(b.t.Context(), "node", "ls"))
		return err
	})
	b.aliveSoon("n1 n2 n3")
	b.run("name: sealed\nservices:\n  web:\n" + image + at("n2") + `    secrets: [password]
    x-fairlead: {routes: [{host: sealed.example.com, port: 8080}], secret_env: {PASSWORD: password}}
secrets:
  password: {external: true, x-fairlead: {vault: "kv/shop/db#password"}}
`)
	has := func() {
		b.t.Helper()
		for path, query := range map[string][]string{"/file": {"name", "/run/secrets/password"}, "/env": {"name", "PASSWORD"}} {
			b.eventually(time.Minute, "it has the secret", func() error {
				got, err := b.ask("sealed", path, query...)
				if err == nil && got != "from-the-vault" {
					err = fmt.Errorf("%s is %q", path, got)
				}
				return err
			})
		}
	}
	has()
	before := b.readySoon("sealed", 1)
	if before[0].Node != "n2" {
		b.t.Fatalf("%+v", before)
	}
	v.Stop()
	b.cluster("scale", "sealed/web=2")
	b.eventually(time.Minute, "the new task waits for Vault", func() error {
		for _, args := range [][]string{{"ps", "sealed"}, {"explain", "sealed/web"}} {
			if out := b.cluster(args...); !strings.Contains(out, "secret sealed/password") || !strings.Contains(out, "ault") {
				return fmt.Errorf("%v says\n%s", args, out)
			}
		}
		return nil
	})
	tasks := b.ps("sealed")
	if len(tasks) != 2 || tasks[1].Ready {
		b.t.Errorf("without Vault: %+v", tasks)
	}
	b.same("Vault is away", before, tasks[:1])
	has()
	v.Restart()
	v.Unseal()
	b.same("Vault is back", before, b.readySoon("sealed", 2)[:1])
	has()
	b.cluster("rm", "sealed", "-y")
}

// reaches lets a node reach a server of this machine, at the address that it has here.
func (b *bed) reaches(node, at string) {
	b.t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		b.t.Fatal(err)
	}
	var l net.Listener
	if err := b.inNetOf(node, func() (err error) { l, err = net.Listen("tcp", u.Host); return err }); err != nil {
		b.t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					b.t.Error(err)
				}
				return
			}
			open.Go(func() { carry(ctx, c, u.Host) })
		}
	})
	b.t.Cleanup(func() { _ = l.Close(); end(); open.Wait() })
}

// carry carries a connection to an address until either end has said all, or ctx ends:
// who keeps one for later says nothing.
func carry(ctx context.Context, c net.Conn, to string) {
	defer c.Close()
	d, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{c, d}, {d, c}} {
		go func() { _, _ = io.Copy(way[0], way[1]); done <- struct{}{} }()
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
