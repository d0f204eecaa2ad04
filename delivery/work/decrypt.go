package work

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/compose"
	"github.com/fairlead/fairlead/delivery/sops"
)

// maxEncrypted bounds a file that is looked at: what a secret may hold, encrypted.
const maxEncrypted = 2 << 20

// opened are the source's encrypted files.
type opened struct {
	files  []clear
	locked []locked
	// Each value that was encrypted has a stand-in: mark, digits, and the number of the
	// place that it is at.
	mark   string
	places []string // "db.env: PASSWORD"
	// dirs are what files are named relative to.
	dirs []string
}

// clear is a file that was decrypted.
type clear struct {
	name  string
	real  []byte
	stand []byte // with stand-ins for what was encrypted
}

// open decrypts what is encrypted below dir, to memory.
func open(dir string, t Task) (*opened, error) {
	var salt [8]byte
	_, _ = rand.Read(salt[:]) // it never fails
	d := t.Delivery
	o := &opened{mark: "fl" + hex.EncodeToString(salt[:]), dirs: []string{root(), root(d.Path), root(d.Path, d.Package)}}
	var ids []age.Identity
	if t.decrypts() {
		var err error
		if ids, err = age.ParseIdentities(bytes.NewReader(t.Keys)); err != nil { // the cause may hold the key
			return nil, cluster.Invalidf("the secret %s holds no age identities: lines AGE-SECRET-KEY-…, as age-keygen makes them", t.Delivery.Decrypt)
		}
	}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil || info.Size() > maxEncrypted {
			return err
		}
		content, err := os.ReadFile(name) //nolint:gosec // the process sees nothing but the source
		if err != nil {
			return err
		}
		return o.take(t, name, content, ids)
	})
	return o, err
}

// take looks at one file.
func (o *opened) take(t Task, name string, content []byte, ids []age.Identity) error {
	if isPointer(content) {
		o.locked = append(o.locked, locked{name, name, content, "it is a large file of Git (LFS), whose content is not in the repository and is not fetched: keep it there itself, or elsewhere"})
		return nil
	}
	plain, ageName := strings.CutSuffix(name, ".age")
	isAge := sops.IsAge(content)
	f, err := sops.Open(name, content)
	switch {
	case f == nil && err == nil && !isAge:
		return nil
	case !t.decrypts():
		err = errors.New("it is encrypted, and the delivery has no key: `fairlead delivery create --replace … --decrypt SECRET`")
	case err != nil:
	case isAge && !ageName:
		err = errors.New("it is encrypted with age: call it " + filepath.Base(name) + ".age")
	case isAge:
		if _, lerr := os.Lstat(plain); lerr == nil {
			return cluster.Invalidf("%s would be decrypted to %s, which is in the source too: remove one of them", name, plain)
		}
		var real []byte
		if real, err = sops.Age(content, ids); err == nil {
			return o.whole(plain, real)
		}
	default:
		if err = f.Decrypt(ids); err == nil {
			return o.sops(name, f)
		}
	}
	o.locked = append(o.locked, locked{name, name, content, err.Error()})
	if isAge && ageName { // so that who uses it meets it
		if _, lerr := os.Lstat(plain); lerr != nil {
			o.locked = append(o.locked, locked{plain, name, content, err.Error()})
			return os.WriteFile(plain, content, 0o600) //nolint:gosec // as above
		}
	}
	return nil
}

func (t Task) packaged() bool { return packagedBy(t.Delivery) }

func packagedBy(d cluster.Delivery) bool {
	return d.Package != "" || d.Source.Kind == cluster.SourceChart
}

// maxPlaces is what a stand-in's digits have room for.
const maxPlaces, digits = 1_000_000, 6

func (o *opened) token(name, key string) (string, error) {
	if len(o.places) >= maxPlaces {
		return "", cluster.Invalidf("more than %d values of the source are encrypted", maxPlaces)
	}
	place := strings.TrimPrefix(name, root()+"/")
	if key != "" {
		place += ": " + key
	}
	o.places = append(o.places, place)
	return fmt.Sprintf("%s%0*d", o.mark, digits, len(o.places)-1), nil
}

func (o *opened) sops(name string, f *sops.File) error {
	real, err := f.Plain(nil)
	if err != nil {
		return cluster.Invalidf("%s cannot be written in clear", name)
	}
	var terr error
	stand, err := f.Plain(func(l *sops.Leaf) any {
		tok, err := o.token(name, l.Key())
		terr = errors.Join(terr, err)
		return standIn(l.Value, tok)
	})
	if err = errors.Join(err, terr); err != nil {
		return cluster.Invalidf("%s cannot be written in clear", name)
	}
	o.files = append(o.files, clear{name, real, stand})
	return nil
}

// whole is a file of age's, whose values are all secret.
func (o *opened) whole(name string, real []byte) error {
	if f := sops.Guess(real); f != nil {
		if err := o.sops(name, f); err != nil {
			return err
		}
		o.files[len(o.files)-1].real = real
		return nil
	}
	tok, err := o.token(name, "")
	if err != nil {
		return err
	}
	if fill := len(real) - len(tok); fill > 0 { // as large as it is
		tok += strings.Repeat("x", fill)
	}
	o.files = append(o.files, clear{name, real, []byte(tok)})
	return nil
}

// standIn is another value of the type of v.
func standIn(v any, token string) any {
	switch v := v.(type) {
	case int:
		return v/2 + 1_000_003
	case float64:
		return v/2 + 1_000_003.5
	case bool:
		return !v
	case time.Time:
		return v.AddDate(1, 1, 1)
	}
	return token
}

// load reads the source twice: with what stands in for the encrypted values, and with
// them. All that is deployed is of the first reading, but for the values of secrets.
func (o *opened) load(read func() (*compose.Result, error)) (*compose.Result, error) {
	if err := o.write(func(f clear) []byte { return f.stand }); err != nil {
		return nil, err
	}
	blind, err := read()
	if err != nil || len(o.files) == 0 {
		return blind, o.named(err)
	}
	if err := o.write(func(f clear) []byte { return f.real }); err != nil {
		return nil, err
	}
	seeing, err := read()
	if err != nil { // it may hold values
		return nil, cluster.Invalidf("the app cannot be read with the values of its encrypted files, but could with others: they may be nothing but secrets")
	}
	if place, what := o.leak(blind, seeing); place != "" {
		return nil, cluster.Invalidf("%s: it holds %s, which is encrypted, and a release would keep it in clear. Declare a secret for it (secrets: {NAME: {environment: VARIABLE}} with --env-file, or {file: …}), and give it to the service with secrets:, or x-fairlead: {secret_env: {VARIABLE: NAME}}", place, what)
	}
	for i, s := range seeing.Secrets {
		blind.Secrets[i].Value, blind.Secrets[i].HasValue = s.Value, s.HasValue
	}
	for i := range blind.Warnings {
		w := &blind.Warnings[i]
		w.Message, w.Advice = o.unmarked(w.Message), o.unmarked(w.Advice)
	}
	blind.Warnings = append(blind.Warnings, o.unsaid(blind, seeing)...)
	return blind, nil
}

// loadPackage is load for a package. Its values and notes are kept with its releases, so
// they may hold nothing of the values either.
func (o *opened) loadPackage(read func() (*compose.Result, *v1.Package, error)) (*compose.Result, *v1.Package, error) {
	var blind, seeing *v1.Package
	project, err := o.load(func() (*compose.Result, error) {
		r, p, err := read()
		if seeing = p; blind == nil {
			blind = p
		}
		return r, err
	})
	if err != nil {
		return nil, nil, err
	}
	text := func(p *v1.Package) map[string]any {
		return map[string]any{"values": p.Values, "notes": p.Notes, "Chart.yaml": strings.Join([]string{p.Chart, p.Version, p.AppVersion}, " ")}
	}
	place, what := "", ""
	visit(text(blind), "", func(at, s string) bool {
		place = at
		what, _, _ = o.find(s)
		return what == ""
	})
	if what == "" {
		if place = differs(text(blind), text(seeing), ""); place != "" {
			what = "something that depends on an encrypted value of the source"
		}
	}
	if what != "" {
		return nil, nil, cluster.Invalidf("%s: it holds %s, which is encrypted, and a release would keep it in clear. A package uses encrypted files as secrets alone: secrets: {NAME: {file: FILE OF THE PACKAGE}}", place, what)
	}
	return project, blind, nil
}

// unsaid are the warnings of the second reading alone, without their words: those may
// hold values.
func (o *opened) unsaid(blind, seeing *compose.Result) (out []compose.Problem) {
	for _, w := range seeing.Warnings {
		at := compose.Problem{File: w.File, Line: w.Line}
		if !slices.ContainsFunc(blind.Warnings, func(b compose.Problem) bool { return b.File == w.File && b.Line == w.Line }) {
			at.Message, at.Advice = "an encrypted value is not read as it stands", "in an env file $ begins a variable: put the value into '…'"
			out = append(out, at)
		}
	}
	return slices.Compact(out)
}

func (o *opened) write(what func(clear) []byte) error {
	for _, f := range o.files {
		if err := os.WriteFile(f.name, what(f), 0o600); err != nil {
			return fmt.Errorf("decrypt %s: %w", f.name, err)
		}
	}
	return nil
}

// named is an error with places in place of stand-ins, and with why a file that it is
// about could not be decrypted.
func (o *opened) named(err error) error {
	if err == nil {
		return nil
	}
	words := strings.FieldsFunc(cleaned(err.Error()), func(r rune) bool { return strings.ContainsRune(" \t\n\"'`:,;()[]", r) })
	linked := strings.Contains(err.Error(), " symbolic link") || strings.Contains(err.Error(), " is a link ")
	for _, l := range o.locked {
		if l.content == nil && !linked { // it is about something else
			continue
		}
		for _, w := range words {
			if slices.ContainsFunc(o.dirs, func(dir string) bool { return l.is(path.Join(dir, w)) }) {
				return l.refusal("")
			}
		}
	}
	return &cluster.Error{Kind: cluster.KindOf(err), Msg: o.unmarked(err.Error())}
}

// unmarked has places in place of stand-ins.
func (o *opened) unmarked(s string) string {
	for {
		place, at, end := o.find(s)
		if place == "" {
			return s
		}
		s = s[:at] + "[" + place + "]" + s[end:]
	}
}

// find finds a stand-in.
func (o *opened) find(s string) (place string, at, end int) {
	for from := 0; ; from = end {
		i := strings.Index(s[from:], o.mark)
		if i < 0 {
			return "", 0, 0
		}
		at = from + i
		if end = at + len(o.mark) + digits; end > len(s) {
			return "", 0, 0
		}
		n, err := strconv.Atoi(s[at+len(o.mark) : end])
		if err == nil && n >= 0 && n < len(o.places) {
			return o.places[n], at, end
		}
	}
}

// leak finds what depends on an encrypted value and is none of a secret's.
func (o *opened) leak(blind, seeing *compose.Result) (place, what string) {
	a, b := public(blind), public(seeing)
	visit(a, "", func(at, s string) bool {
		if p, _, _ := o.find(s); p != "" {
			place, what = at, p
		}
		return place == ""
	})
	if place == "" {
		if p, _, _ := o.find(string(blind.Rendered)); p != "" {
			return "the Compose file", p
		}
		if place = differs(a, b, ""); place != "" {
			what = "something that depends on an encrypted value of the source"
		}
	}
	return place, what
}

// public is all of an app that is kept in clear, as JSON has it; what secrets hold is not.
func public(r *compose.Result) any {
	v := Bundle(r)
	v.Rendered = ""
	configs := map[string]string{}
	for n, c := range v.Configs {
		configs[n] = string(c)
	}
	secrets := map[string]v1.SecretDecl{}
	for n, s := range v.Secrets {
		s.Value = nil
		secrets[n] = s
	}
	b, _ := json.Marshal(map[string]any{"services": v.Services, "configs": configs, "hooks": v.Hooks, "secrets": secrets}) // plain data
	var out any
	_ = json.Unmarshal(b, &out) // as it was just made
	return out
}

// visit calls do with every text below v, and the keys, until it says no.
func visit(v any, at string, do func(at, s string) bool) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if !do(below(at, k), k) || !visit(v[k], below(at, k), do) {
				return false
			}
		}
	case []any:
		for _, e := range v {
			if !visit(e, at, do) {
				return false
			}
		}
	case string:
		return do(at, v)
	}
	return true
}

// below names a place as a Compose file does.
func below(at, key string) string {
	switch {
	case at == "":
		return key
	case strings.Count(at, ".") == 1 && key == "task":
		return at
	case strings.Count(at, ".") == 1 && key == "env":
		return at + ".environment"
	}
	return at + "." + key
}

// differs is the first place where a and b are not the same.
func differs(a, b any, at string) string {
	if reflect.DeepEqual(a, b) {
		return ""
	}
	if x, ok := a.(map[string]any); ok {
		if y, ok := b.(map[string]any); ok {
			all := maps.Clone(x)
			maps.Copy(all, y)
			for _, k := range slices.Sorted(maps.Keys(all)) {
				if d := differs(x[k], y[k], below(at, k)); d != "" {
					return d
				}
			}
		}
	}
	return at
}
