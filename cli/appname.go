package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
)

// currentApp is the app of -p, else of the Compose file here, else none.
func (a *app) currentApp() (cluster.AppName, error) {
	name, _, err := a.current()
	return name, err
}

// current is the current app and, where a Compose file says so, its services.
func (a *app) current() (cluster.AppName, []string, error) {
	if a.appFlag != "" {
		return cluster.AppName(a.appFlag), nil, cluster.ValidAppName(cluster.AppName(a.appFlag))
	}
	name, services, _ := compose.AppIn(a.dir, environment())
	return name, services, nil
}

// appArg is the app named by the arguments, else the current one.
func (a *app) appArg(args []string) (cluster.AppName, error) {
	if len(args) > 0 {
		name := cluster.AppName(args[0])
		return name, cluster.ValidAppName(name)
	}
	name, err := a.currentApp()
	if err == nil && name == "" {
		err = usagef("name the app, or run this in the directory of its compose.yaml")
	}
	return name, err
}

// address reads "app/service.slot" or, inside an app's directory, "service.slot".
func (a *app) address(s string) (cluster.Address, error) {
	current, services, err := a.current()
	if err != nil {
		return cluster.Address{}, err
	}
	// "my_db" is a service here before it is the service db of an app named my.
	name, slot := s, ""
	if i := strings.LastIndex(s, "."); i > 0 {
		name, slot = s[:i], s[i:]
	}
	if slices.Contains(services, name) {
		return cluster.ParseAddress(string(current)+"/"+name+slot, current)
	}
	return cluster.ParseAddress(s, current)
}

// filter is the app whose things are listed: an argument, else -p, else all.
func (a *app) filter(args []string) (cluster.AppName, error) {
	name := cluster.AppName(a.appFlag)
	if len(args) > 0 {
		name = cluster.AppName(args[0])
	}
	if name == "" {
		return "", nil
	}
	return name, cluster.ValidAppName(name)
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
