package cli

import (
	"fmt"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

var passwordRE = regexp.MustCompile(`(?i)(passw(or)?d|passphrase|token|(api|private|secret|access)_?key)$`)

// warnOfPasswords says which of the values given look like passwords: they are kept, and
// shown, as they were given.
func (a *app) warnOfPasswords(values, kept string) {
	var m map[string]any
	if yaml.Unmarshal([]byte(values), &m) != nil {
		return
	}
	for _, path := range passwordsIn("", m) {
		a.note("warning: the value %s looks like a password, and is kept with the %s in clear: leave it to the package to make one up (x-fairlead: {generate: 32}), or set a secret that it names", path, kept)
	}
}

func passwordsIn(at string, m map[string]any) (paths []string) {
	for k, v := range m {
		path := k
		if at != "" {
			path = at + "." + k
		}
		switch v := v.(type) {
		case map[string]any:
			paths = append(paths, passwordsIn(path, v)...)
		case string, float64:
			if passwordRE.MatchString(k) && fmt.Sprint(v) != "" {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return paths
}
