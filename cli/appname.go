package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// current is the app that a command is about when it names none, with what is
// known of it without asking the server.
type current struct {
	app      cluster.AppName // "": there is none
	services []string        // of the Compose file here
	from     string          // "compose.yaml:1", where the directory says it
}

// current is the app of -p, else of the Compose file here or of what its variables
// say, else none. A file that
// deploy would refuse names no app: to guess could mean another one.
func (a *app) current() (current, error) {
	if a.appFlag != "" {
		return current{app: cluster.AppName(a.appFlag)}, cluster.ValidAppName(cluster.AppName(a.appFlag))
	}
	here, found := compose.AppIn(a.dir, environment())
	switch {
	case !found:
		return current{}, nil
	case here.Err != nil:
		return current{}, usagef("%w\nuntil that is mended, name the app: APP/SERVICE, or -p APP", here.Err)
	}
	from := here.From
	if from == "" {
		from = "named after this directory"
	}
	return current{here.App, here.Services, from}, nil
}

// currentApp is the current app, for a command whose arguments name none.
func (a *app) currentApp() (cluster.AppName, error) {
	c, err := a.current()
	a.took = c
	return c.app, err
}

// appNamed is the app that an argument names.
func appNamed(arg string) (cluster.AppName, error) {
	if app, service, found := strings.Cut(arg, "/"); found {
		return "", usagef("%q is a service: this takes an app, such as %s", app+"/"+service, app)
	}
	return cluster.AppName(arg), cluster.ValidAppName(cluster.AppName(arg))
}

// appArg is the app named by the arguments, else the current one.
func (a *app) appArg(args []string) (cluster.AppName, error) {
	if len(args) > 0 {
		return appNamed(args[0])
	}
	name, err := a.currentApp()
	if err == nil && name == "" {
		err = usagef("name the app, or run this in the directory of its compose.yaml")
	}
	return name, err
}

// sayTook tells people which app a command changes that names none.
func (a *app) sayTook() {
	if a.took.from != "" && a.human() {
		a.note("app %s (%s)", a.took.app, a.took.from)
	}
}

// lost adds to the answer that there is no such app how that app was come by.
func (a *app) lost(err error) error {
	if a.took.from == "" || cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), fmt.Sprintf("there is no app %q", a.took.app)) {
		return err
	}
	return fmt.Errorf("%w\n%s is the app here (%s): deploy it, or name another one", err, a.took.app, a.took.from)
}

// address reads "app/service.slot" or, inside an app's directory, "service.slot".
func (a *app) address(s string) (cluster.Address, error) {
	if strings.Contains(s, "/") {
		return cluster.ParseAddress(s, "")
	}
	c, err := a.current()
	if err != nil {
		return cluster.Address{}, err
	}
	a.took = c
	// "my_db" is a service here before it is the service db of an app named my.
	name, slot := s, ""
	if i := strings.LastIndex(s, "."); i > 0 {
		name, slot = s[:i], s[i:]
	}
	if slices.Contains(c.services, name) {
		return cluster.ParseAddress(string(c.app)+"/"+name+slot, c.app)
	}
	return cluster.ParseAddress(s, c.app)
}

// appOrAddress is what is meant where an app may stand in the place of an address:
// without an argument the current app, else an address, the current app by its
// name, a service of it, or another app.
func (a *app) appOrAddress(ctx context.Context, cl *client.Client, args []string) (cluster.Address, error) {
	if len(args) == 0 {
		name, err := a.currentApp()
		if err == nil && name == "" {
			err = usagef("name an app or a service, or run this in the directory of a compose.yaml")
		}
		return cluster.Address{App: name}, err
	}
	word := args[0]
	if strings.Contains(word, "/") {
		return a.address(word)
	}
	c, err := a.current()
	switch {
	case err != nil:
		return cluster.Address{}, err
	case word == string(c.app):
		return cluster.Address{App: c.app}, nil
	case strings.ContainsAny(word, "_."):
		return a.address(word)
	case c.app == "":
		return cluster.Address{App: cluster.AppName(word)}, cluster.ValidAppName(cluster.AppName(word))
	}
	at, err := a.address(word)
	if err != nil || slices.Contains(c.services, word) {
		return at, err
	}
	// Not in the file here: a service all the same, or else an app.
	_, err = cl.Service(ctx, cluster.ServiceID{App: at.App, Name: at.Service})
	if cluster.KindOf(err) == cluster.KindNotFound && cluster.ValidAppName(cluster.AppName(word)) == nil {
		if _, err := cl.App(ctx, cluster.AppName(word)); err == nil {
			return cluster.Address{App: cluster.AppName(word)}, nil
		}
	}
	return at, err
}

// filter is the app whose things are listed: an argument, else -p, else all.
func (a *app) filter(args []string) (cluster.AppName, error) {
	switch {
	case len(args) > 0:
		return appNamed(args[0])
	case a.appFlag != "":
		return appNamed(a.appFlag)
	}
	return "", nil
}

// exists refuses an app that is not there, of which an empty list would say nothing.
func exists(ctx context.Context, cl *client.Client, name cluster.AppName, found int) error {
	if name == "" || found > 0 {
		return nil
	}
	_, err := cl.App(ctx, name)
	return err
}

// slotExists refuses a slot in which no task is or was.
func slotExists(ctx context.Context, cl *client.Client, at cluster.Address) error {
	if at.Slot == 0 {
		return nil
	}
	tasks, err := cl.Tasks(ctx, at.App, true)
	if err != nil {
		return err
	}
	known := false
	for _, t := range tasks {
		if t.Name == at.Service {
			known = true
			if t.Slot == at.Slot {
				return nil
			}
		}
	}
	if !known { // no such service has a better answer
		if _, err := cl.Service(ctx, cluster.ServiceID{App: at.App, Name: at.Service}); err != nil {
			return err
		}
	}
	return noSlot(at)
}

func noSlot(at cluster.Address) error {
	return cluster.NotFoundf("there is no task %s; `fairlead ps %s` lists those there are", at, at.App)
}
