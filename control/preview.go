package control

import (
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/preview"
	"github.com/fairlead/fairlead/store"
)

// Preview returns what the API asks before it changes an app: which services
// would wait, were the app these services with these counts. It reads and
// decides nothing.
func Preview(m *store.Mirror, now func() time.Time) func(cluster.AppName, []cluster.Service, []cluster.Scale) []cluster.Wait {
	return func(app cluster.AppName, services []cluster.Service, scales []cluster.Scale) []cluster.Wait {
		s := preview.Snapshot{Now: now().UTC()}
		m.Read(func(v store.View) {
			s.Lost, s.Kept = store.LostVolumes(v), store.VolumePlaces(v)
			s.Nodes, s.Services, s.Scales, s.Tasks = store.Nodes(v), store.Services(v), store.Scales(v), store.Tasks(v)
			s.Placements, s.Statuses, s.Rollouts = store.Placements(v), store.Statuses(v), store.Rollouts(v)
		})
		return preview.Waits(s, preview.Change{App: app, Services: services, Scales: scales})
	}
}
