package e2e

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/fairlead/fairlead/cluster"
)

// guarded is a Compose service whose route asks for a user, by Traefik's labels.
func guarded(image, host, user, hash string) string {
	return fmt.Sprintf(`
    image: %[1]s
    healthcheck: %[2]s
    expose: ["8080"]
    environment: {VERSION: guarded}
    labels:
      traefik.http.routers.g.rule: Host(%[6]s%[3]s%[6]s)
      traefik.http.routers.g.middlewares: auth
      traefik.http.middlewares.auth.basicauth.users: "%[4]s:%[5]s"
`, image, healthcheck, host, user, strings.ReplaceAll(hash, "$", "$$"), "`")
}

func passwordHash(t *testing.T, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// as asks for a host's page as a user ("" is nobody), and returns how it answers.
func (n *node) as(host, user, password string) (int, string) {
	req, err := http.NewRequest(http.MethodGet, "http://"+host+"/", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := n.client(false).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// guards reports whether a host is for a user with a password alone.
func (n *node) guards(host, user, password string) error {
	if s, body := n.as(host, "", ""); s != http.StatusUnauthorized {
		return fmt.Errorf("without a password it answers %d %s", s, body)
	}
	if s, body := n.as(host, user, password+"x"); s != http.StatusUnauthorized {
		return fmt.Errorf("with a wrong password it answers %d %s", s, body)
	}
	if s, body := n.as(host, user, password); s != http.StatusOK || !strings.HasPrefix(body, "guarded ") {
		return fmt.Errorf("with the password it answers %d %s", s, body)
	}
	return nil
}

// A route that asks for users: their hashes are in no key of etcd and in no file
// on disk, in no log and in no container's description, and it works.
func TestUsersOfARoute(t *testing.T) {
	n := start(t)
	image := n.image()
	first, second := passwordHash(t, "first"), passwordHash(t, "second")
	file := func(hash string) string {
		return n.write("compose.yaml", "name: users\nservices:\n  web:"+guarded(image, "users.example.com", "ann", hash))
	}
	n.do("deploy", "-f", file(first))
	n.eventually(15*time.Second, "it asks for a user", func() error { return n.guards("users.example.com", "ann", "first") })
	var before cluster.Task
	if tasks := n.ready("users"); len(tasks) == 1 {
		before.ID = cluster.TaskID(tasks[0].ID)
	}
	out := n.do("deploy", "-f", file(first))
	if releases := strings.Count(n.do("history", "users"), "deploy"); releases != 1 {
		t.Errorf("the same file made another release: %s", out)
	}
	n.do("deploy", "-f", file(second))
	n.eventually(15*time.Second, "it asks for the new password", func() error { return n.guards("users.example.com", "ann", "second") })
	if tasks := n.ready("users"); len(tasks) != 1 || tasks[0].ID != string(before.ID) {
		t.Errorf("another password replaced the container: %v, then %v", before.ID, tasks)
	}

	shown := n.do("inspect", "users/web", "-o", "json") + n.do("plan", "-f", file(first)) + n.do("exposure")
	inspect, err := exec.Command("docker", "inspect", n.ready("users")[0].Cont).Output()
	if err != nil {
		t.Fatal(err)
	}
	n.stop(15) // everything is on disk now
	log, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	files, sealed := 0, false
	look := func(where string, b []byte) {
		for _, h := range []string{first, second} {
			for _, form := range []string{h, strings.ReplaceAll(h, "$", "$$"), h[len(h)-20:]} {
				if bytes.Contains(b, []byte(form)) {
					t.Errorf("%s holds a user's hash", where)
				}
			}
		}
	}
	look("what the command line shows", []byte(shown))
	look("docker inspect", inspect)
	look("the server's log", log)
	err = filepath.WalkDir(n.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		sealed = sealed || strings.HasSuffix(path, ".wal") && bytes.Contains(b, []byte("fairlead/v1/apps/users/users/basicauth-"))
		look(path, b)
		return nil
	})
	if err != nil || files < 10 || !sealed {
		t.Errorf("%d files, the sealed list among them: %v, %v: this test looks at the wrong ones", files, sealed, err)
	}
	if b, err := os.ReadFile(filepath.Join(n.run, "gateway", "dynamic", "users.yaml")); err != nil || !bytes.Contains(b, []byte(second)) {
		t.Errorf("the gateway's file in memory does not hold it: %v", err)
	}
}
