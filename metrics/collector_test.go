package metrics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
)

const id = "4f1c9d3b2a7e4f1c9d3b2a7e4f1c9d3b2a7e4f1c9d3b2a7e4f1c9d3b2a7e4f1c"

// machine is a file tree as the kernel shows it.
type machine struct {
	t    *testing.T
	root string
	now  time.Time
	c    *Collector
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	m.c = New(Config{
		Proc: filepath.Join(m.root, "proc"), Cgroup: filepath.Join(m.root, "cgroup"),
		Now: func() time.Time { return m.now }, Log: hclog.NewNullLogger(),
	})
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	p := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// recorded reads a file of testdata.
func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (m *machine) collect(after time.Duration, targets ...Target) []cluster.Sample {
	m.now = m.now.Add(after)
	m.c.Collect(targets)
	return m.c.Samples()
}

var target = Target{Task: "shop_web.1.abc", Container: id, Pid: 42}

func (m *machine) want(got []cluster.Sample, cpu, memory int64, window time.Duration) {
	m.t.Helper()
	want := []cluster.Sample{{Task: target.Task, CPU: cpu, Memory: memory, At: m.now, Window: cluster.Duration(window)}}
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestV1(t *testing.T) {
	for name, tc := range map[string]struct{ groups, cpu, memory string }{
		"one controller a hierarchy": {
			"4:memory:/docker/" + id + "\n2:cpuacct:/docker/" + id + "\n1:cpu:/docker/" + id + "\n0::/\n",
			"cgroup/cpuacct/docker/" + id, "cgroup/memory/docker/" + id,
		},
		"systemd's names, cpu and cpuacct together": {
			"5:cpu,cpuacct:/system.slice/docker-" + id + ".scope\n4:memory:/system.slice/docker-" + id + ".scope\n0::/system.slice/docker-" + id + ".scope\n",
			"cgroup/cpu,cpuacct/system.slice/docker-" + id + ".scope", "cgroup/memory/system.slice/docker-" + id + ".scope",
		},
		"groups made inside of the container": {
			"4:memory:/docker/" + id + "/init\n2:cpuacct:/docker/" + id + "/a/b\n",
			"cgroup/cpuacct/docker/" + id, "cgroup/memory/docker/" + id,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.write("proc/42/cgroup", tc.groups)
			m.write(tc.cpu+"/cpuacct.usage", "1000000000\n")
			m.write(tc.memory+"/memory.usage_in_bytes", "2000000000\n")
			m.write(tc.memory+"/memory.stat", recorded(t, "v1/memory.stat")) // total_inactive_file 1465618432
			if got := m.collect(0, target); len(got) != 0 {
				t.Errorf("a first reading makes a sample: %+v", got)
			}
			m.write(tc.cpu+"/cpuacct.usage", "8500000000\n") // 7.5 s in 10 s
			m.want(m.collect(10*time.Second, target), 750, 2000000000-1465618432, 10*time.Second)
		})
	}
}

func TestV2(t *testing.T) {
	for name, path := range map[string]string{
		"systemd's names": "/system.slice/docker-" + id + ".scope",
		"cgroupfs":        "/docker/" + id,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.write("proc/42/cgroup", "0::"+path+"\n")
			m.write("cgroup"+path+"/cpu.stat", recorded(t, "v2/cpu.stat")) // usage_usec 3797070643
			m.write("cgroup"+path+"/memory.current", "104857600\n")
			m.write("cgroup"+path+"/memory.stat", recorded(t, "v2/memory.stat")) // inactive_file 31457280
			m.collect(0, target)
			m.write("cgroup"+path+"/cpu.stat", strings.Replace(recorded(t, "v2/cpu.stat"), "3797070643", "3797370643", 1)) // 0.3 s
			m.want(m.collect(time.Second, target), 300, 104857600-31457280, time.Second)
		})
	}
}

func TestReadingsBelongTogether(t *testing.T) {
	m := newMachine(t)
	v2 := func(id string, pid int, usec, memory, inactive int) {
		dir := "cgroup/docker/" + id
		m.write(fmt.Sprintf("proc/%d/cgroup", pid), "0::/docker/"+id+"\n")
		m.write(dir+"/cpu.stat", fmt.Sprintf("usage_usec %d\n", usec))
		m.write(dir+"/memory.current", fmt.Sprint(memory))
		m.write(dir+"/memory.stat", fmt.Sprintf("anon 1\ninactive_file %d\n", inactive))
	}
	v2(id, 42, 1_000_000, 50, 10)
	m.collect(0, target)
	v2(id, 42, 3_000_000, 50, 10)
	m.want(m.collect(time.Second, target), 2000, 40, time.Second)
	first := m.now
	if got := m.collect(100*time.Millisecond, target); len(got) != 1 || !got[0].At.Equal(first) {
		t.Errorf("a reading after 100ms is not left for later: %+v", got)
	}
	v2(id, 42, 3_500_000, 50, 90)
	m.want(m.collect(900*time.Millisecond, target), 500, 0, time.Second)

	other := "ffff9d3b2a7e4f1c9d3b2a7e4f1c9d3b2a7e4f1c9d3b2a7e4f1c9d3b2a7effff"
	v2(other, 43, 9_000_000, 50, 10)
	again := Target{Task: target.Task, Container: other, Pid: 43}
	if got := m.collect(time.Second, again); len(got) != 0 {
		t.Errorf("a sample from the readings of two containers: %+v", got)
	}
	v2(other, 43, 8_000_000, 50, 10)
	if got := m.collect(time.Second, again); len(got) != 0 {
		t.Errorf("a sample from a counter that went back: %+v", got)
	}
	v2(other, 43, 8_100_000, 50, 10)
	if got := m.collect(time.Second, again); len(got) != 1 || got[0].CPU != 100 {
		t.Errorf("the next one: %+v", got)
	}
	if got := m.collect(time.Second); len(got) != 0 || len(m.c.read) != 0 {
		t.Errorf("targets that are gone are remembered: %+v", got)
	}
}

func TestWhatCannotBeReadHasNoSample(t *testing.T) {
	m := newMachine(t)
	for _, text := range []string{
		"",                        // the process is in no group
		"0::/user.slice\n",        // another process got the number
		"1:name=systemd:/x\n",     // no controller
		"broken\n",                // not a line of this file
		"0::/docker/" + id + "\n", // the files are gone
	} {
		m.write("proc/42/cgroup", text)
		for range 2 {
			if got := m.collect(time.Second, target, Target{Task: "x", Pid: 0}); len(got) != 0 {
				t.Errorf("%q: %+v", text, got)
			}
		}
	}
	m.write("cgroup/docker/"+id+"/cpu.stat", "usage_usec x\n")
	if got := m.collect(time.Second, target); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := m.c.locate(Target{Task: "t", Container: "other", Pid: 42}); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("another container's process: %v", err)
	}
	// It recovers when the files are there again.
	m.write("cgroup/docker/"+id+"/cpu.stat", "usage_usec 1\n")
	m.write("cgroup/docker/"+id+"/memory.current", "5")
	m.write("cgroup/docker/"+id+"/memory.stat", "inactive_file 1")
	m.collect(time.Second, target)
	m.want(m.collect(time.Second, target), 0, 4, time.Second)
}

func TestRunMeasuresEachInterval(t *testing.T) {
	m := newMachine(t)
	dir := "cgroup/docker/" + id
	m.write("proc/42/cgroup", "0::/docker/"+id+"\n")
	m.write(dir+"/cpu.stat", "usage_usec 1\n")
	m.write(dir+"/memory.current", "5")
	m.write(dir+"/memory.stat", "inactive_file 1")
	synctest.Test(t, func(t *testing.T) {
		m.c.cfg.Now = time.Now
		ctx, cancel := context.WithCancelCause(t.Context())
		calls, done := 0, make(chan error, 1)
		go func() {
			done <- m.c.Run(ctx, 10*time.Second, func(context.Context) ([]Target, error) {
				calls++
				if calls == 2 {
					return nil, errors.New("engine hangs")
				}
				return []Target{target}, nil
			})
		}()
		time.Sleep(35 * time.Second) // fake time
		synctest.Wait()
		if calls != 4 {
			t.Errorf("listed %d times in 35s", calls)
		}
		if got := m.c.Samples(); len(got) != 1 || got[0].Window.D() != 10*time.Second {
			t.Errorf("samples: %+v", got)
		}
		stop := errors.New("stop")
		cancel(stop)
		if err := <-done; !errors.Is(err, stop) {
			t.Errorf("Run = %v", err)
		}
	})
}
