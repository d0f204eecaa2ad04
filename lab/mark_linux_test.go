package lab

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
)

// files puts files below a directory; what ends with / is a directory.
func files(t *testing.T, dir string, content map[string]string) {
	t.Helper()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// below is all that is in a directory, with what the files say; nothing when it is not there.
func below(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || path == dir {
			return err
		}
		text := e.Type().String()
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if text = string(b); err != nil {
				return err
			}
		}
		out[strings.TrimPrefix(path, dir+"/")] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// earlier is the state of a lab, as its file is.
const earlier = `{"spec": {"name": "lab", "nodes": 2, "servers": 1, "gateways": 0, "engine": "distro", "domain": "localhost", "log_level": "info"}}`

func TestWhatIsNoLabsIsLeftAlone(t *testing.T) {
	for what, c := range map[string]struct {
		content map[string]string
		says    string
	}{
		"photos":                         {map[string]string{"lab/photo.jpg": "a photo"}, "photo.jpg"},
		"much":                           {map[string]string{"lab/a": "", "lab/b": "", "lab/c/d": "", "lab/e": "", "lab/f": ""}, "a, b, c and 2 more"},
		"a file":                         {map[string]string{"lab": "a report"}, "no directory"},
		"another program's lab.json":     {map[string]string{"lab/lab.json": `{"name": "notebooks"}`}, "lab.json"},
		"a lab.json of no lab":           {map[string]string{"lab/lab.json": `{"spec": {"name": "lab", "nodes": 0}}`}, "lab.json"},
		"a lab.json that nobody reads":   {map[string]string{"lab/lab.json": "{"}, "lab.json"},
		"directories as a lab has":       {map[string]string{"lab/nodes/n1/disk": "x", "lab/bin/fairlead": "x", "lab/run/": ""}, "bin, nodes, run"},
		"the mark of one deeper":         {map[string]string{"lab/lab/" + markName: "", "lab/thesis.tex": "x"}, "thesis.tex"},
		"a directory named like passing": {map[string]string{"lab/.lab" + markName + "/x": "x"}, ".lab" + markName},
	} {
		root := t.TempDir()
		files(t, root, c.content)
		refused(t, what, root, c.says)
	}
	// A link to what is elsewhere.
	root, away := t.TempDir(), t.TempDir()
	files(t, away, map[string]string{"photo.jpg": "a photo"})
	if err := os.Symlink(away, filepath.Join(root, "lab")); err != nil {
		t.Fatal(err)
	}
	refused(t, "a link", root, "no directory")
	if got := below(t, away); got["photo.jpg"] != "a photo" {
		t.Errorf("behind the link is %v", got)
	}
}

// refused has a lab made of, and taken down from, what is no lab's.
func refused(t *testing.T, what, root, says string) {
	t.Helper()
	before, d := below(t, root), DirOf(root, "lab")
	made, err := bringUp(t.Context(), root, d, State{Spec: spec(1)}, io.Discard)
	if made || cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "--name") {
		t.Errorf("%s: made %v: %v", what, made, err)
	}
	down := []func() (bool, error){func() (bool, error) { return takeDown(t.Context(), root, d) }}
	if os.Geteuid() == 0 {
		down = append(down, func() (bool, error) { return Down(t.Context(), root, "lab") })
	}
	for _, f := range down {
		if found, err := f(); found || cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "the directory stays as it is") {
			t.Errorf("%s: taken down %v: %v", what, found, err)
		}
	}
	if labs, err := List(root); err != nil || len(labs) > 0 {
		t.Errorf("%s: labs %v, %v", what, labs, err)
	}
	if diff := cmp.Diff(before, below(t, root)); diff != "" {
		t.Errorf("%s is not as it was:\n%s", what, diff)
	}
}

// What `down --all` takes is what List says.
func TestOnlyLabsAreListed(t *testing.T) {
	root := t.TempDir()
	files(t, root, map[string]string{
		"ann/photo.jpg": "", "bob/": "", "lost+found/" + markName: "", ".new" + markName + "/" + markName: "", "file": "",
		"old/lab.json": earlier, "half/" + markName: "", "whole/" + markName: "", "whole/lab.json": earlier, "broken/" + markName: "", "broken/lab.json": "{",
	})
	labs, err := List(root)
	if diff := cmp.Diff([]string{"broken", "half", "old", "whole"}, labs); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if labs, err := List(filepath.Join(root, "absent")); err != nil || len(labs) > 0 {
		t.Errorf("%v, %v", labs, err)
	}
}

func TestAnEmptyDirectoryIsTakenAndNotRemoved(t *testing.T) {
	root := t.TempDir()
	d := DirOf(root, "lab")
	files(t, root, map[string]string{"lab/": ""})
	if found, err := takeDown(t.Context(), root, d); found || err != nil {
		t.Errorf("taken down %v: %v", found, err)
	}
	if at, err := os.Stat(string(d)); err != nil || !at.IsDir() {
		t.Errorf("%v", err)
	}
	if err := strange(d, "x"); err != nil {
		t.Error(err)
	}
	made(t, "an empty directory", root, d)
}

// Whenever its making or its removal was interrupted, a lab can be taken down, and made.
func TestALabsDirectoryInterrupted(t *testing.T) {
	const passing = ".lab" + markName
	for what, c := range map[string]struct {
		content map[string]string
		listed  bool
		whole   bool // it has a state: it is not made anew
	}{
		"before the mark":               {map[string]string{passing + "/": ""}, false, false},
		"before it has its name":        {map[string]string{passing + "/" + markName: ""}, false, false},
		"with half a mark":              {map[string]string{passing + "/" + markName: markText[:9]}, false, false},
		"with its name":                 {map[string]string{"lab/" + markName: markText}, true, false},
		"while its program is copied":   {map[string]string{"lab/" + markName: markText, "lab/bin/fairlead": "half"}, true, false},
		"while its state is written":    {map[string]string{"lab/" + markName: markText, "lab/bin/fairlead": "x", "lab/lab.json.new": "{"}, true, false},
		"when it is made":               {map[string]string{"lab/" + markName: markText, "lab/bin/fairlead": "x", "lab/lab.json": earlier}, true, true},
		"when it runs":                  {map[string]string{"lab/" + markName: markText, "lab/lab.json": earlier, "lab/nodes/n1/docker/x": "x", "lab/snapshots/a/x": "x"}, true, true},
		"while it is removed":           {map[string]string{"lab/" + markName: markText, "lab/nodes/n1/docker/x": "x"}, true, false},
		"one of an earlier version":     {map[string]string{"lab/lab.json": earlier, "lab/bin/fairlead": "x", "lab/nodes/n1/docker/x": "x"}, true, true},
		"with what was left long since": {map[string]string{"lab/" + markName: markText, passing + "/" + markName: ""}, true, false},
	} {
		root := t.TempDir()
		d := DirOf(root, "lab")
		files(t, root, c.content)
		labs, err := List(root)
		if err != nil || slices.Contains(labs, "lab") != c.listed {
			t.Errorf("%s: labs %v, %v", what, labs, err)
		}
		if _, err := Read(d); (err == nil) != c.whole {
			t.Errorf("%s: its state: %v", what, err)
		}
		if found, err := takeDown(t.Context(), root, d); err != nil || found != c.listed {
			t.Errorf("%s: taken down %v: %v", what, found, err)
		}
		if _, err := os.Stat(root); !os.IsNotExist(err) {
			t.Errorf("%s: taken down, there is %v, %v", what, below(t, root), err)
		}
		if !c.whole {
			files(t, root, c.content)
			if err := strange(d, "x"); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			made(t, what, root, d)
		}
	}
}

// made makes a lab's directory, which is then whole, and removes it.
func made(t *testing.T, what, root string, d Dir) {
	t.Helper()
	if err := makeDir(d, State{Spec: spec(1)}, io.Discard); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	var have []string
	for name := range below(t, root) {
		have = append(have, name)
	}
	slices.Sort(have)
	want := []string{"lab", "lab/" + markName, "lab/bin", "lab/bin/fairlead", "lab/lab.json"}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("%s: made anew it has\n%s", what, diff)
	}
	if found, err := takeDown(t.Context(), root, d); !found || err != nil {
		t.Errorf("%s: taken down %v: %v", what, found, err)
	}
}

// What comes into an empty directory while a lab is made there stays.
func TestNothingIsOverwritten(t *testing.T) {
	root := t.TempDir()
	d := DirOf(root, "lab")
	files(t, root, map[string]string{"lab/photo.jpg": "a photo"})
	if err := makeDir(d, State{Spec: spec(1)}, io.Discard); err == nil {
		t.Error("it was made")
	}
	files(t, root, map[string]string{".lab" + markName + "/photo.jpg": "a photo"})
	if _, err := takeDown(t.Context(), root, d); err == nil {
		t.Error("it was taken down")
	}
	got := below(t, root)
	if got["lab/photo.jpg"] != "a photo" || got[".lab"+markName+"/photo.jpg"] != "a photo" {
		t.Errorf("left are %v", got)
	}
}

// What is taken with a lab that never was, or is no more, is nothing else: `down --all`.
func TestWhatListDoesNotShowIsSwept(t *testing.T) {
	root := t.TempDir()
	stays := map[string]string{
		"whole/" + markName: markText, "whole/lab.json": earlier, "ann/photo.jpg": "a photo", ".git/x": "x",
		".photos" + markName + "/photo.jpg": "a photo", ".both" + markName + "/photo.jpg": "a photo", ".both" + markName + "/" + markName: markText,
		".file" + markName: "a report", ".deep" + markName + "/" + markName + "/x": "x", ".No Lab" + markName + "/" + markName: "x",
		markName + "/x": "x", "bare" + markName + "/" + markName: "x",
	}
	files(t, root, stays)
	if err := os.Symlink(filepath.Join(root, "ann"), filepath.Join(root, ".link"+markName)); err != nil {
		t.Fatal(err)
	}
	before := below(t, root)
	files(t, root, map[string]string{".new" + markName + "/" + markName: markText, ".half" + markName + "/" + markName: markText[:9], ".bare" + markName + "/": ""})
	if err := sweep(t.Context(), root); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, below(t, root)); diff != "" {
		t.Errorf("swept, it has\n%s", diff)
	}
	root = filepath.Join(t.TempDir(), "labs")
	if err := Sweep(t.Context(), root); err != nil {
		t.Errorf("an absent root: %v", err)
	}
	files(t, root, map[string]string{".new" + markName + "/" + markName: markText})
	if err := sweep(t.Context(), root); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("the last is swept, there is %v, %v", below(t, root), err)
	}
}

// What down refuses is no lab to others either; what it takes says so.
func TestNoLabIsSaidOfWhatIsNone(t *testing.T) {
	for content, says := range map[string]string{
		"{": "there is no lab in", `{"name": "notebooks"}`: "there is no lab in", "": "there is no lab in", `[1]`: "there is no lab in",
		`{"spec": {"name": "lab", "nodes": 0}}`: "there is no lab in", earlier: "",
	} {
		root := t.TempDir()
		d := DirOf(root, "lab")
		files(t, root, map[string]string{"lab/lab.json": content})
		_, err := Read(d)
		_, looked := Look(t.Context(), d)
		for _, err := range []error{err, looked} {
			if (err == nil) != (says == "") || err != nil && (cluster.KindOf(err) != cluster.KindNotFound || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), " down")) {
				t.Errorf("%s: %v", content, err)
			}
		}
	}
	root := t.TempDir()
	d := DirOf(root, "lab")
	files(t, root, map[string]string{"lab/lab.json": "{", "lab/" + markName: markText})
	if _, err := Read(d); cluster.KindOf(err) != cluster.KindInvalid || !strings.Contains(err.Error(), "`"+d.command("down")+"` removes it") {
		t.Errorf("a damaged lab: %v", err)
	}
	if s, err := Look(t.Context(), d); err != nil || s.HalfMade || !strings.Contains(s.Trouble, d.command("down")) {
		t.Errorf("a damaged lab: %+v, %v", s, err)
	}
}
