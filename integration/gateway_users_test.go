package integration

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/gateway"
)

const (
	listOne = "basicauth-0000000000000001"
	listTwo = "basicauth-0000000000000002"
	listMD5 = "digestauth-0000000000000003"

	// Where replacing a list is tried again.
	listThree = "basicauth-0000000000000004"
	listFour  = "basicauth-0000000000000005"
)

func basicUsers(t *testing.T, id string, users ...string) gateway.UserList {
	t.Helper()
	l := gateway.UserList{ID: id, Auth: cluster.Auth{Kind: cluster.BasicAuth, Realm: "shop"}}
	for _, u := range users {
		name, password, _ := strings.Cut(u, ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		l.Auth.Users = append(l.Auth.Users, name+":"+string(hash))
	}
	return l
}

// ask asks for the route of web with a user's name and password, if any.
func (l *gatewayLab) ask(user string) int {
	req, err := http.NewRequest(http.MethodGet, "http://"+l.web+"/", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Host = "web.example.com"
	if name, password, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	resp, err := gatewayOnce.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (l *gatewayLab) guard(ids ...string) {
	r := cluster.Route{Host: "web.example.com", Port: 9000}
	for _, id := range ids {
		r.Middlewares = append(r.Middlewares, cluster.Middleware{Name: "auth", Sealed: id})
	}
	l.service(gatewayService("web", []cluster.Route{r}))
}

// watched calls f while it asks all the time, and returns the answers that came,
// in their order, each once in a row.
func (l *gatewayLab) watched(user string, f func()) (answers []int) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if s := l.ask(user); len(answers) == 0 || answers[len(answers)-1] != s {
				answers = append(answers, s)
			}
		}
	})
	f()
	cancel()
	wg.Wait()
	return answers
}

// replaceList has the route ask for another list at the same time as that comes: one who is
// in both is let in all the while. The gateway holds a route back for its list for some seconds,
// which a slow machine may need for more; what comes of that is a 404, rightly, and it is done
// again with the next list.
func (l *gatewayLab) replaceList(old gateway.UserList, write func(...gateway.UserList)) {
	l.t.Helper()
	late := func() int { return strings.Count(l.log.String(), "routes refer to user lists that are not here") }
	lists, was := []gateway.UserList{old}, "ann:first"
	for _, id := range []string{listTwo, listThree, listFour} {
		before, now := late(), "ann:"+id
		lists = append(lists, basicUsers(l.t, id, now, "bob:always"))
		answers := l.watched("bob:always", func() {
			l.guard(id)
			time.Sleep(300 * time.Millisecond) // the file comes after the route
			write(lists...)
			l.until("the new list is asked", func() bool { return l.ask(now) == http.StatusOK })
		})
		if late() == before {
			if len(answers) != 1 || answers[0] != http.StatusOK {
				l.t.Errorf("while the list is replaced, one who is in both gets %v", answers)
			}
			if s := l.ask(was); s != http.StatusUnauthorized {
				l.t.Errorf("the old password gets %d", s)
			}
			return
		}
		was = now
	}
	l.t.Error("no list came in time for its route")
}

// A route that asks for users is never open without them: it answers 404 until
// its gateway has the list. A list that changes is there before the route asks for it.
func TestGatewayAsksForUsers(t *testing.T) {
	l := newGatewayLab(t)
	l.backend("127.77.20.1", 9000)
	write := func(lists ...gateway.UserList) {
		t.Helper()
		if err := gateway.WriteUserLists(l.cfg, lists); err != nil {
			t.Fatal(err)
		}
	}
	one := basicUsers(t, listOne, "ann:first", "bob:always")

	l.until("Traefik answers", func() bool { return l.ask("") == http.StatusNotFound })
	// The list does not come: the route comes without it, and answers nobody.
	answers := l.watched("ann:first", func() {
		l.guard(listOne)
		l.acked(l.serve("web", "127.77.20.1"))
	})
	if len(answers) != 1 || answers[0] != http.StatusNotFound {
		t.Errorf("without its list the route answers %v", answers)
	}
	if b, err := os.ReadFile(filepath.Join(l.cfg.DataDir, "gateway", "routes.json")); err == nil && strings.Contains(string(b), "$2a$") {
		t.Error("a hash is on disk")
	}
	// It comes late.
	write(one)
	l.until("it asks for a user", func() bool { return l.ask("") == http.StatusUnauthorized })
	for user, want := range map[string]int{"ann:first": 200, "ann:second": 401, "bob:always": 200, "eve:first": 401, ":": 401} {
		if s := l.ask(user); s != want {
			t.Errorf("%s gets %d, not %d", user, s, want)
		}
	}
	// A new Traefik knows it before it is reached.
	if answers := l.watched("", func() {
		if err := l.gw.Replace(t.Context()); err != nil {
			t.Error(err)
		}
	}); len(answers) != 1 || answers[0] != http.StatusUnauthorized {
		t.Errorf("while Traefik is replaced it answers %v", answers)
	}
	l.replaceList(one, write)
	// Without any, and then with one again: open only while nothing is asked for.
	l.guard()
	l.until("it is open", func() bool { return l.ask("") == http.StatusOK })
	answers = l.watched("", func() {
		l.guard(listTwo)
		l.until("it asks again", func() bool { return l.ask("") == http.StatusUnauthorized })
	})
	// The last answer may be one too early.
	if got := fmt.Sprint(answers); got != "[200 401]" && got != "[401]" && got != "[200]" {
		t.Errorf("when users are asked for it answers %v", answers)
	}
	// A list that is gone takes its route with it.
	write()
	l.until("it answers nobody", func() bool { return l.ask("bob:always") == http.StatusNotFound })

	sum := md5.Sum([]byte("ann:realm:secret"))
	write(gateway.UserList{ID: listMD5, Auth: cluster.Auth{Kind: cluster.DigestAuth, Users: []string{"ann:realm:" + hex.EncodeToString(sum[:])}}})
	l.guard(listMD5)
	l.until("it asks for a digest", func() bool {
		req, _ := http.NewRequest(http.MethodGet, "http://"+l.web+"/", nil)
		req.Host = "web.example.com"
		resp, err := gatewayOnce.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusUnauthorized && strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Digest ")
	})
}
