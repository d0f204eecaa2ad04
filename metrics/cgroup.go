package metrics

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// files are where a container's use is read.
type files struct {
	cpu     string // accumulated CPU time
	cpuKey  string // in cpu; "": the file is one number
	cpuUnit uint64 // nanoseconds
	memory  string // bytes in use
	stat    string // where the inactive file cache is told
	statKey string
}

// locate finds the control group of a container by its first process.
func (c *Collector) locate(t Target) (files, error) {
	b, err := os.ReadFile(filepath.Join(c.cfg.Proc, strconv.Itoa(t.Pid), "cgroup"))
	if err != nil {
		return files{}, fmt.Errorf("find the control group of task %s: %w", t.Task, err)
	}
	groups, err := parseGroups(b)
	if err != nil {
		return files{}, fmt.Errorf("task %s, process %d: %w", t.Task, t.Pid, err)
	}
	cpu, hasCPU := groups["cpuacct"]
	memory, hasMemory := groups["memory"]
	if hasCPU && hasMemory {
		cpuDir, err := c.dir(t, cpu, "cpuacct")
		if err != nil {
			return files{}, err
		}
		memoryDir, err := c.dir(t, memory, "memory")
		if err != nil {
			return files{}, err
		}
		return files{
			cpu: filepath.Join(cpuDir, "cpuacct.usage"), cpuUnit: 1,
			memory: filepath.Join(memoryDir, "memory.usage_in_bytes"),
			stat:   filepath.Join(memoryDir, "memory.stat"), statKey: "total_inactive_file",
		}, nil
	}
	unified, ok := groups[""]
	if !ok {
		return files{}, cluster.NotFoundf("task %s: process %d is in no control group for cpuacct and memory", t.Task, t.Pid)
	}
	dir, err := c.dir(t, unified, "")
	if err != nil {
		return files{}, err
	}
	return files{
		cpu: filepath.Join(dir, "cpu.stat"), cpuKey: "usage_usec", cpuUnit: 1000,
		memory: filepath.Join(dir, "memory.current"),
		stat:   filepath.Join(dir, "memory.stat"), statKey: "inactive_file",
	}, nil
}

// group is one line of /proc/<pid>/cgroup.
type group struct {
	mount string // the hierarchy's directory where controllers share one: "cpu,cpuacct"
	path  string
}

// parseGroups reads /proc/<pid>/cgroup: groups by controller, v2's under "".
func parseGroups(b []byte) (map[string]group, error) {
	out := map[string]group{}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			return nil, cluster.Invalidf("control group line %q is not three fields", line)
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			out[controller] = group{mount: parts[1], path: parts[2]}
		}
	}
	return out, nil
}

// dir is the directory of a container's group. What a container makes inside of
// its group (a process manager does) is cut off. A path that does not name the
// container is another process's.
func (c *Collector) dir(t Target, g group, controller string) (string, error) {
	path := g.path
	if t.Container != "" {
		i := strings.Index(path, t.Container)
		if i < 0 {
			return "", cluster.NotFoundf("task %s: process %d is not in container %.12s any more, but in %s", t.Task, t.Pid, t.Container, path)
		}
		if end := strings.IndexByte(path[i:], '/'); end >= 0 {
			path = path[:i+end]
		}
	}
	dir := filepath.Join(c.cfg.Cgroup, controller, filepath.Clean("/"+path))
	if controller != "" && g.mount != controller {
		// Usually there is a link by the controller's name, but not everywhere.
		if _, err := os.Stat(filepath.Join(c.cfg.Cgroup, controller)); err != nil {
			dir = filepath.Join(c.cfg.Cgroup, g.mount, filepath.Clean("/"+path))
		}
	}
	return dir, nil
}

// read returns nanoseconds of CPU and bytes of working set.
func (f files) read() (cpu, memory uint64, err error) {
	if cpu, err = number(f.cpu, f.cpuKey); err != nil {
		return 0, 0, err
	}
	if memory, err = number(f.memory, ""); err != nil {
		return 0, 0, err
	}
	inactive, err := number(f.stat, f.statKey)
	if err != nil {
		return 0, 0, err
	}
	return cpu * f.cpuUnit, memory - min(memory, inactive), nil
}

// number reads a file that holds one number, or the value of a key in one that
// holds "key number" in each line.
func number(file, key string) (uint64, error) {
	b, err := os.ReadFile(file) //nolint:gosec // below the configured roots
	if err != nil {
		return 0, err
	}
	text := string(bytes.TrimSpace(b))
	if key != "" {
		text = ""
		lines := bufio.NewScanner(bytes.NewReader(b))
		for lines.Scan() {
			if k, v, _ := strings.Cut(lines.Text(), " "); k == key {
				text = strings.TrimSpace(v)
				break
			}
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, cluster.Invalidf("%s %s: %w", file, key, err)
	}
	return n, nil
}
