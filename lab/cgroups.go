package lab

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupDirs are the directories of control groups below fairlead-lab/group, those
// inside first: one for each hierarchy of version 1.
func cgroupDirs(root, group string) []string {
	var out []string
	for _, pattern := range []string{"", "*"} {
		tops, _ := filepath.Glob(filepath.Join(root, pattern, "fairlead-lab", group))
		for _, top := range tops {
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					out = append(out, path)
				}
				return nil
			})
		}
	}
	slices.Sort(out)
	slices.Reverse(out) // what is inside sorts after what it is in
	return slices.Compact(out)
}

// removeCgroups removes a lab's control groups, or one machine's, and reports
// whether none is left: the kernel may take a moment after the last process's end.
func removeCgroups(group string) bool {
	for _, dir := range cgroupDirs(cgroupRoot, group) {
		_ = os.Remove(dir)
	}
	return len(cgroupDirs(cgroupRoot, group)) == 0
}
