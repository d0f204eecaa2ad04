package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fairlead/fairlead/store"
)

// alarmEvery is how often an external etcd is asked for its alarms.
const alarmEvery = 10 * time.Second

// storeAlarms is what an operator should know of the store. The embedded etcd
// looks after itself and says what it cannot; an external one is somebody
// else's to look after, so its alarms are only passed on. They are kept here
// and not in the store, which takes no writes when it is full.
type storeAlarms struct {
	embedded func() string // nil with an external etcd

	mu       sync.Mutex
	external []string
	servers  []string // what is wrong with other servers
	clock    string   // what is wrong with this machine's clock
}

// list returns the present alarms.
func (a *storeAlarms) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := append(slices.Clone(a.external), a.servers...)
	if a.clock != "" {
		out = append(out, a.clock)
	}
	if a.embedded != nil {
		if text := a.embedded(); text != "" {
			out = append(out, text)
		}
	}
	return out
}

func (a *storeAlarms) setClock(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clock = text
}

// alarmList is what an operator should know of what this server depends on.
func (m *machine) alarmList() []string {
	list := m.alarms.list()
	if m.vault != nil {
		if text := m.vault.Alarm(); text != "" {
			list = append(list, text)
		}
	}
	return list
}

// watchAlarms asks an external etcd for its alarms until ctx ends.
func (m *machine) watchAlarms(ctx context.Context, st *store.Etcd) error {
	tick := time.NewTicker(alarmEvery)
	defer tick.Stop()
	for {
		list, err := st.Alarms(ctx)
		if err != nil {
			// That it does not answer at all is told by what needs it.
			m.Log.Debug("could not ask etcd for its alarms; will retry", "error", err)
		} else {
			m.alarms.mu.Lock()
			fresh := !slices.Equal(list, m.alarms.external)
			m.alarms.external = list
			m.alarms.mu.Unlock()
			for _, text := range list {
				if fresh {
					m.Log.Error(text)
				}
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
