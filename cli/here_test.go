package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

// apart is a hub with two apps, in the directory of one of them: shop, whose file
// names it. The other, store, has a service that the first has too.
func apart(t *testing.T) *hub {
	t.Helper()
	h := newHub(t)
	withFront(h)
	h.write("compose.yaml", "name: shop\nservices: {web: {image: a}, front: {image: b}}\n")
	h.must("", "deploy", "-d")
	h.write("compose.yaml", "name: shop\nservices: {web: {image: b}, front: {image: b}}\n")
	h.must("", "deploy", "-d")
	h.run("shop", "web")
	h.must("v", "secret", "set", "key")
	h.host.lines = []cluster.LogLine{{Task: "x_y.1.abc", Text: "hello"}}
	return h
}

// Which app a command means that names none, one or a service: in shop's
// directory, with -p, and where there is no Compose file.
func TestWhichApp(t *testing.T) {
	const none, nodeN1 = "name ", "no app or service is called n1, but a node is: `fairlead node inspect n1`"
	h := apart(t)
	again := h.keep()
	for command, want := range map[string]struct {
		here string // in all that it says; after ! what it must not hold
		p    string // with -p store
		away string // without a Compose file
	}{
		"ls":                               {here: "store", p: "shop", away: "store"},
		"ps":                               {here: "shop/web.1", p: "!shop/web", away: "shop/web.1"},
		"service ls":                       {here: "store/front", p: "!shop/web", away: "store/front"},
		"secret ls":                        {here: "store/pw", p: "!shop/key", away: "store/pw"},
		"exposure":                         {here: "store/front", p: "store/front", away: "store/front"},
		"status":                           {here: "shop: release 2", p: "store: release", away: "nodes"},
		"status --cluster":                 {here: "1 of 1 alive", p: "leave the app out", away: "1 of 1 alive"},
		"explain":                          {here: "!store/front", p: "!shop/web", away: "store/front"},
		"explain front":                    {here: "shop/front", p: "store/front", away: `no app "front"`},
		"explain web.1":                    {here: "shop_web.1", p: `no service "web"`, away: "write APP/web.1"},
		"explain store":                    {here: "store/front", p: "store/front", away: "store/front"},
		"explain store/pump":               {here: "store/pump", p: "store/pump", away: "store/pump"},
		"explain nope":                     {here: `app shop has no service "nope"`, p: `app store has no service "nope"`, away: `no app "nope"`},
		"explain n1":                       {here: nodeN1, p: nodeN1, away: nodeN1},
		"inspect n1":                       {here: nodeN1, p: nodeN1, away: nodeN1},
		"inspect":                          {here: `"name": "shop"`, p: `"name": "store"`, away: none},
		"inspect front":                    {here: `"app": "shop"`, p: `"app": "store"`, away: `no app "front"`},
		"inspect store":                    {here: `"each"`, p: `"each"`, away: `"each"`},
		"logs":                             {here: "hello", p: "hello", away: none},
		"logs web":                         {here: "hello", p: `app store has no service "web"`, away: `no app "web"`},
		"logs store":                       {here: "hello", p: "hello", away: "hello"},
		"history":                          {here: "2 *", p: "1 *", away: none},
		"rollback -d":                      {here: "app shop (compose.yaml:1)\nshop: release 3", p: "app store has no release before", away: none},
		"rollback 1 -d":                    {here: "app shop (compose.yaml:1)\nshop: release 3", p: "store is as asked", away: none},
		"restart -d":                       {here: "app shop (compose.yaml:1)\nshop: release", p: "store: release", away: none},
		"restart front -d":                 {here: "shop: release", p: "store: release", away: `no app "front"`},
		"restart store -d":                 {here: "store: release", p: "store: release", away: "store: release"},
		"scale front=2":                    {here: "shop/front", p: "store/front", away: "write APP/front"},
		"secret inspect key":               {here: "shop/key", p: "no secret", away: "write APP/key"},
		"update -d --image front=c":        {here: "app shop (compose.yaml:1)\nshop: release", p: "store: release", away: none},
		"update -d --image shop/front=c":   {here: "shop: release", p: "name a service of store", away: none},
		"update shop -d --image front.1=c": {here: "name a service of shop", p: "name a service of shop", away: "name a service of shop"},
		"history shop/web":                 {here: "this takes an app, such as shop", p: "this takes an app", away: "this takes an app"},
		"ps shop/web":                      {here: "this takes an app, such as shop", p: "this takes an app", away: "this takes an app"},
	} {
		t.Run(command, func(t *testing.T) {
			check := func(where, want string, args ...string) {
				t.Helper()
				s := h.cli("", append(strings.Fields(command), args...)...)
				if not, no := strings.CutPrefix(want, "!"); strings.Contains(s.all, not) == no {
					t.Errorf("%s it says, where %q is expected:\n%s", where, want, s.all)
				}
			}
			again(t)
			check("here", want.here)
			again(t)
			check("with -p store", want.p, "-p", "store")
			again(t)
			if err := os.Remove(filepath.Join(h.dir, "compose.yaml")); err != nil {
				t.Fatal(err)
			}
			check("away", want.away)
		})
	}
}

// An app that a directory names, and that is not there, is said to be so; a file
// that deploy would refuse names none.
func TestNoSuchAppHere(t *testing.T) {
	h := newHub(t)
	h.write("compose.yaml", "services: {web: {image: a}}\n")
	for _, args := range [][]string{{"status"}, {"logs"}, {"exec", "web", "true"}, {"rollback"}, {"rm"}} {
		s := h.cli("", args...)
		if s.code != 4 || !strings.Contains(s.err, `there is no app "shop"`) || !strings.Contains(s.err, "shop is the app here (named after this directory): deploy it, or name another one") {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
	}
	h.write("compose.yaml", "name: my_shop\nservices: {web: {image: a}}\n")
	for _, args := range [][]string{{"status"}, {"rm"}, {"explain", "web"}, {"secret", "inspect", "pw"}} {
		s := h.cli("", args...)
		if s.code != 2 || !strings.Contains(s.err, "compose.yaml:1: name:") || !strings.Contains(s.err, "until that is mended, name the app") {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
	}
	if s := h.cli("", "status", "zoo"); s.code != 4 || strings.Contains(s.err, "my_shop") {
		t.Errorf("an app that is named: %d %s", s.code, s.all)
	}
}

// The app of COMPOSE_PROJECT_NAME is that of every command here.
func TestAppOfDotEnv(t *testing.T) {
	h := newHub(t)
	h.write("compose.yaml", "name: shop\nservices: {web: {image: a}}\n")
	h.write(".env", "# old\nCOMPOSE_PROJECT_NAME=stall\n")
	h.must("", "deploy", "-d")
	h.must("", "deploy", "depot", "-d")
	if s := h.must("", "rollback", "1", "-d"); !strings.Contains(s.err, "app stall (.env:2)") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "inspect", "web"); !strings.Contains(s.out, `"app": "stall"`) {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "ls"); !strings.Contains(s.out, "depot") || strings.Contains(s.out, "shop") {
		t.Errorf("%s", s.all)
	}
}

// A Compose file comes from standard input too, and lies above as well as here.
func TestFileFromElsewhere(t *testing.T) {
	h := newHub(t)
	if s := h.must("name: piped\nservices: {web: {image: a}}\n", "deploy", "-d", "-f", "-"); !strings.Contains(s.all, "piped: release 1") {
		t.Errorf("%s", s.all)
	}
	h.write("compose.yaml", "name: above\nservices: {web: {image: a}}\n")
	if err := os.Mkdir(filepath.Join(h.dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(h.dir, "src"))
	if s := h.must("", "deploy", "-d"); !strings.Contains(s.all, "above: release 1") {
		t.Errorf("%s", s.all)
	}
	if s := h.must("", "rm"); !strings.Contains(s.err, "app above (compose.yaml:1)") {
		t.Errorf("%s", s.all)
	}
}

// Times and lines that Docker takes; what is none says which are.
func TestLogsFlags(t *testing.T) {
	h := apart(t)
	for _, args := range [][]string{{"--tail", "all"}, {"--tail", "-1"}, {"-n", "5"}, {"--since", "2024-01-01"}, {"--since", "1d"}} {
		if s := h.must("", append([]string{"logs"}, args...)...); !strings.Contains(s.out, "hello") {
			t.Errorf("%v: %s", args, s.all)
		}
	}
	for want, args := range map[string][]string{"write for example 50, or all": {"--tail", "some"}, "write how long ago": {"--since", "yesterday"}} {
		if s := h.cli("", append([]string{"logs"}, args...)...); s.code != 2 || !strings.Contains(s.err, want) {
			t.Errorf("%v: %d %s", args, s.code, s.all)
		}
	}
}

// rm says which app it takes when it is not named: its tasks have ended here.
func TestRemoveSaysWhichApp(t *testing.T) {
	for want, args := range map[string][]string{"app shop (compose.yaml:1)\n": {"rm"}, "": {"rm", "-p", "shop"}} {
		h := newHub(t)
		h.write("compose.yaml", "name: shop\nservices: {web: {image: a}}\n")
		h.must("", "deploy", "-d")
		if s := h.must("", args...); s.err != want || !strings.Contains(s.out, "removed service   web") {
			t.Errorf("%v: %q", args, s.all)
		}
	}
}
