package autoscaler

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// oraclePod and oracleCase are what testdata/oracle writes.
type oraclePod struct {
	Phase            string
	Deleted, Ready   bool
	Started, Changed int
	Request          int64
	Sample           bool
	Use              int64
	Age, Window      int
}

type oracleCase struct {
	Resource              string
	Current, Target       int
	Pods                  []oraclePod
	Replicas, Utilisation int
	Error                 string
}

// TestKubernetesAgrees compares the calculation with what Kubernetes 1.34's own
// replica calculator answered (testdata/oracle asked it).
func TestKubernetesAgrees(t *testing.T) {
	b, err := os.ReadFile("testdata/hpa.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []oracleCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 600 {
		t.Fatalf("only %d cases", len(cases))
	}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, c := range cases {
		s := c.snapshot(now)
		p := index(s)
		r := resources(*s.Services[0].Spec.Autoscale)[0]
		got := r.recommend(c.Current, p.pods[web])
		if c.Error != "" {
			if got.Error == "" {
				t.Errorf("case %d: %d replicas, Kubernetes refuses: %s", i, got.Replicas, c.Error)
			}
			continue
		}
		if got.Error != "" || got.Replicas != c.Replicas || got.Percent != c.Utilisation {
			t.Errorf("case %d: %+v, Kubernetes says %d replicas at %d %%\n%+v", i, got, c.Replicas, c.Utilisation, c)
		}
	}
}

var web = cluster.ServiceID{App: "shop", Name: "web"}

// snapshot says the case in Fairlead's words.
func (c oracleCase) snapshot(now time.Time) Snapshot {
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	a := cluster.Autoscale{Min: 1, Max: 1000}
	if c.Resource == "cpu" {
		a.CPUPercent = c.Target
	} else {
		a.MemoryPercent = c.Target
	}
	s := Snapshot{Now: now, Services: []cluster.Service{{ServiceID: web, Spec: cluster.ServiceSpec{Autoscale: &a}}}}
	for i, p := range c.Pods {
		id := cluster.TaskID(fmt.Sprint("t", i))
		t := cluster.Task{ID: id, ServiceID: web, Slot: i + 1, N: int64(i), Desire: cluster.DesireRun}
		t.Spec.Resources = cluster.Resources{ReserveCPU: p.Request, ReserveMemory: p.Request}
		if p.Deleted {
			t.Desire = cluster.DesireDrain
		}
		st := cluster.Status{Task: id, ServiceID: web, Started: ago(p.Started), At: ago(p.Changed), Ready: p.Ready, State: cluster.StateRunning}
		switch p.Phase {
		case "pending":
			st.State = cluster.StatePulling
		case "failed":
			st.State = cluster.StateFailed
		}
		if p.Ready {
			st.ReadySince = ago(p.Changed)
		}
		s.Tasks, s.Statuses = append(s.Tasks, t), append(s.Statuses, st)
		if p.Sample {
			s.Samples = append(s.Samples, cluster.Sample{
				Task: id, CPU: p.Use, Memory: p.Use, At: ago(p.Age), Window: cluster.Duration(time.Duration(p.Window) * time.Second),
			})
		}
	}
	return s
}
