package work

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

// locked is a file that is not what it should be: it stays encrypted, is elsewhere or leads
// out of the source. It matters where it is used.
type locked struct {
	name    string // where it is met
	file    string
	content []byte // nil: there is none
	why     string
}

// leftOut notes links and submodules that cannot be used.
func (o *opened) leftOut(links []astray) {
	for _, l := range links {
		o.locked = append(o.locked, locked{name: root(l.name), file: root(l.name), why: l.why()})
	}
}

// is reports whether a name is the file's, or of something below it.
func (l locked) is(name string) bool {
	return name == l.name || strings.HasPrefix(name, l.name+"/")
}

var pointerRE = regexp.MustCompile(`^version https://git-lfs\.github\.com/spec/v1\r?\n(?:.*\n)*?(oid sha256:[0-9a-f]{64})\r?\n`)

// isPointer reports whether a file says where Git LFS has its content.
func isPointer(content []byte) bool {
	const most = 1024 // as Git LFS has it
	return len(content) < most && pointerRE.Match(content)
}

func (l locked) refusal(place string) error {
	if place != "" {
		place += ": "
	}
	return cluster.Invalidf("%s%s: %s", place, l.file, l.why)
}

// unlocked refuses files, by their names, that are locked.
func (o *opened) unlocked(names ...string) error {
	for _, l := range o.locked {
		if slices.ContainsFunc(names, l.is) {
			return l.refusal("")
		}
	}
	return nil
}

// ciphertext refuses a bundle that has something of a file that is locked.
func (o *opened) ciphertext(b v1.Bundle) error {
	if len(o.locked) == 0 {
		return nil
	}
	all := map[string]any{"configs": map[string]any{}, "secrets": map[string]any{}}
	for what, list := range map[string]any{"services": b.Services, "hooks": b.Hooks} {
		plain, _ := json.Marshal(list) // plain data
		var v any
		_ = json.Unmarshal(plain, &v) // as it was just made
		all[what] = v
	}
	for n, c := range b.Configs {
		all["configs"].(map[string]any)[n] = string(c) //nolint:forcetypeassert // as made above
	}
	for n, s := range b.Secrets {
		all["secrets"].(map[string]any)[n] = string(s.Value) //nolint:forcetypeassert // as made above
	}
	var err error
	visit(all, "", func(at, s string) bool {
		for _, l := range o.locked {
			if l.content != nil && (strings.TrimSpace(s) == strings.TrimSpace(string(l.content)) || has(s, l.content)) {
				err = l.refusal(at)
				return false
			}
		}
		return true
	})
	return err
}

// has says whether a value of a SOPS file, or what LFS knows a file by, is in s.
func has(s string, content []byte) bool {
	if isPointer(content) && strings.Contains(s, string(pointerRE.FindSubmatch(content)[1])) {
		return true
	}
	const start = "ENC[AES256_GCM,"
	for {
		i := strings.Index(s, start)
		if i < 0 {
			return false
		}
		s = s[i:]
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return false
		}
		if bytes.Contains(content, []byte(s[:end])) {
			return true
		}
		s = s[end:]
	}
}
