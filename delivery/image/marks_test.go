package image_test

import (
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/delivery/image"
)

const sum = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var chosen = []cluster.ImageState{
	{ImageChoice: cluster.ImageChoice{Policy: "web", Repository: "r.io/shop/web", Tag: "1.10", Digest: sum}},
	{ImageChoice: cluster.ImageChoice{Policy: "api", Repository: "r.io/shop/api", Tag: "edge", Digest: sum, Pinned: true}},
	{ImageChoice: cluster.ImageChoice{Policy: "none", Repository: "r.io/shop/none"}},
}

// In these files what stands between « and » is to be written, as the text behind ⇒ says.
func TestOnlyMarkedValuesAreWritten(t *testing.T) {
	for name, file := range map[string]string{
		"plain":         "services:\n  web:\n    image: «r.io/shop/web:1.9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
		"the last line": "image: «r.io/shop/web:1.8⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}",
		"quotes":        "a: \"«r.io/shop/web:v9⇒r.io/shop/web:1.10»\" # {\"fairlead\":\"web\"}\nb:   '«r.io/shop/web⇒r.io/shop/web:1.10»'\t# {\"fairlead\":\"web\"}   \n",
		"escapes":       "a: \"«r.io\\u002fshop/web:\\x31⇒r.io/shop/web:1.10»\" # {\"fairlead\": \"web\"}\n",
		"windows":       "# top\r\na:   «r.io/shop/web:1.9⇒r.io/shop/web:1.10»   #   {\"fairlead\": \"web\"}\r\nb: |\r\n  text\r\nc: «y⇒edge» # {\"fairlead\": \"api:tag\"}\r\n",
		"parts":         "repository: «r.io/shop/old⇒r.io/shop/web» # {\"fairlead\": \"web:name\"}\ntag: «v1⇒\"1.10\"» # {\"fairlead\": \"web:tag\"}\ntag2: '«1.9⇒1.10»' # {\"fairlead\": \"web:tag\"}\ndigest: «sha256:00⇒" + sum + "» # {\"fairlead\": \"web:digest\"}\n",
		"a digest":      "a: «r.io/shop/api:edge⇒r.io/shop/api:edge@" + sum + "» # {\"fairlead\": \"api\"}\n",
		"anchors":       "a: &img «r.io/shop/web:1.9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\nb: *img\nc: !!str &t «r.io/shop/web:1.9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\nd: {<<: {e: *t}}\n",
		"lists":         "- «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n- - k: 1\n    image: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
		"flow":          "web: {x: 1, image: «r.io/shop/web:v9⇒r.io/shop/web:1.10» } # {\"fairlead\": \"web\"}\nmore: {\n  image: \"«r.io/shop/web:v9⇒r.io/shop/web:1.10»\", # {\"fairlead\": \"web\"}\n  y: [a, b]\n}\n",
		"documents":     "---\na: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n...\n---\n# alone: {\"fairlead\": \"web\"}\na: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
		"text":          "a: |\n  image: x:1 # {\"fairlead\": \"web\"}\nb: >-\n  image: x:1 # {\"fairlead\": \"web\"}\nc: \"one\n  x:1 # {\\\"fairlead\\\": \\\"web\\\"}\"\nd: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
		"not a mark":    "a: x:1 # see {\"fairlead\": \"web\"}\nb: x1#{\"fairlead\"\nc: |\n  x:1 # {\"fairlead\": \"web\"} or not\nd: 'x # {\"fairlead\": \"web\"} or not'\n# {\"fairlead\": \"web\"} alone\n",
		"one of them":   "b: {image: «r.io/shop/web:1.9⇒r.io/shop/web:1.10», environment: {Y: \"1\"}} # {\"fairlead\": \"web\"}\nc: {name: tag, newTag: «v1⇒\"1.10\"»} # {\"fairlead\": \"web:tag\"}\n",
		"flux":          "a: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"$imagepolicy\": \"flux-system:web\"}\nb: «x⇒edge» # {\"$imagepolicy\": \"apps:api:tag\"}\nc: x # {\"$imagepolicy\": \"apps:other\"}\n",
		"as it is":      "a: r.io/shop/web:1.10 # {\"fairlead\": \"web\"}\n",
		"no choice":     "a: r.io/shop/none:3 # {\"fairlead\": \"none\"}\n",
		"wide":          "\"schlüssel ✓ 木\": «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
		"line ends":     "x: \"a\u2028b\"\ny: [\"\u0085\"]\na: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
		"complex keys":  "\ufeff# bom\n\n\np%: 1\n? «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n: «r.io/shop/web:v9⇒r.io/shop/web:1.10» # {\"fairlead\": \"web\"}\n",
	} {
		before, after := sides(file)
		got, edits, err := image.Write("compose.yaml", []byte(before), chosen, map[string]int{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(got) != after {
			t.Errorf("%s:\n%q\nwant\n%q", name, got, after)
		}
		if want := strings.Count(file, "«"); len(edits) != want {
			t.Errorf("%s: %d edits, want %d: %v", name, len(edits), want, edits)
		}
		if again, edits, err := image.Write("compose.yaml", got, chosen, map[string]int{}); err != nil || string(again) != after || len(edits) > 0 {
			t.Errorf("%s: written again: %v, %v", name, edits, err)
		}
	}
}

// sides are what a file is before and after.
func sides(file string) (before, after string) {
	for {
		head, rest, ok := strings.Cut(file, "«")
		before, after = before+head, after+head
		if !ok {
			return before, after
		}
		old, rest, _ := strings.Cut(rest, "⇒")
		fresh, rest, _ := strings.Cut(rest, "»")
		before, after, file = before+old, after+fresh, rest
	}
}

func TestMarksThatCannotBeFollowed(t *testing.T) {
	for file, want := range map[string]string{
		"a: 1\nb: x # {\"fairlead\": \"wbe\"}\n":                                             `f.yaml:2: there is no image policy "wbe"`,
		"b: x # {\"fairlead\": \"web:tags\"}\n":                                              `f.yaml:1: the mark of the image policy web asks for "tags"`,
		"b: x # {\"fairlead\": web}\n":                                                       "f.yaml:1: the mark",
		"a: &x y\nb: *x # {\"fairlead\": \"web\"}\n":                                         "f.yaml:2: the mark stands behind no value",
		"b: x # {\"fairlead\": \"web\"}\na: [\n":                                             "f.yaml: it has marks of images, and is no YAML",
		"b: r.io/shop/web # {\"fairlead\": \"web\"}\nsops: {mac: \"ENC[AES256_GCM]\"}":       "encrypted with a sum",
		"a: x\nimage: r.io/shop/web:1 # {\"fairlead\": \"web:tag\"}\n":                       `f.yaml:2: the mark of the image policy web stands behind "r.io/shop/web:1", which is not a tag alone; for a whole image write {"fairlead": "web"}`,
		"image: r.io/shop/api:1 # {\"fairlead\": \"web\"}\n":                                 `f.yaml:1: the mark of the image policy web stands behind "r.io/shop/api:1", which is not an image of r.io/shop/web`,
		"image: ${REG}/shop/web:1 # {\"fairlead\": \"web\"}\n":                               "which is not an image of r.io/shop/web",
		"image: r.io/shop/web:${TAG} # {\"fairlead\": \"web\"}\n":                            "which is not an image of r.io/shop/web",
		"tag: $TAG # {\"fairlead\": \"web:tag\"}\n":                                          "which is not a tag alone",
		"d: latest # {\"fairlead\": \"web:digest\"}\n":                                       "which is not a digest, sha256:…",
		"d: r.io/shop/web:1 # {\"fairlead\": \"web:name\"}\n":                                "which is not the name of a repository",
		"a: {tag: v1, x: {environment: prod}, b: {tag: v1}} # {\"fairlead\": \"web:tag\"}\n": "f.yaml:1: the mark of the image policy web may mean several values of its line",
		"image: r.io/shop/web:1 # {\"fairlead\": \"web\"} keep me\n":                         "f.yaml:1: the mark {\"fairlead\": \"web\"} keep me is not understood",
		"image: r.io/shop/web:1 # {\"fairlead\": \"web\"\n":                                  "f.yaml:1: the mark {\"fairlead\": \"web\" is not understood",
		"b: {{ .Values.x }} # {\"fairlead\": \"web\"}\n{{end}}":                              "is no YAML",
	} {
		if _, edits, err := image.Write("f.yaml", []byte(file), chosen, map[string]int{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", file, edits, err, want)
		}
	}
}

// Whatever the file: it is refused, or what was written reads as before but for the edits.
func TestLawOtherValuesStay(t *testing.T) {
	one := func(of ...string) *rapid.Generator[string] { return rapid.SampledFrom(of) }
	starts, values := one("%s: ", "%s: &%[1]s ", "- ", "  %s: ", "é%s:\t", "{%s: ", "? ", "[", "", "---\n%s: "), one("r.io/shop/web:1", "'r.io/shop/api'", `"y"`, "1.9", "*k0", "|", ">-", "{k: r.io/shop/web:1, l: x}", "r.io/shop/web}", "'x',", `"`, "é x", "")
	ends := one("\n", " # {\"fairlead\": \"web\"}\n", " # {\"fairlead\": \"web:tag\"}\r\n", "\t# {\"fairlead\": \"api\"} \n", "# {\"fairlead\": \"web\"}\n", ", # {\"fairlead\": \"web\"}\n]}\n")
	wrote := 0
	rapid.Check(t, func(t *rapid.T) {
		file, lines := "", rapid.IntRange(0, 5).Draw(t, "lines")
		if lines == 0 || rapid.Bool().Draw(t, "one that is written") { // else most files are refused
			file = "image: r.io/shop/web:1 # {\"fairlead\": \"web\"}\n"
		}
		for i := range lines {
			start := starts.Draw(t, "start")
			if strings.Contains(start, "%") {
				start = fmt.Sprintf(start, fmt.Sprintf("k%d", i))
			}
			file += start + values.Draw(t, "value") + ends.Draw(t, "end")
		}
		got, edits, err := image.Write("f.yaml", []byte(file), chosen, map[string]int{})
		if err != nil || len(edits) == 0 {
			if err == nil && string(got) != file {
				t.Fatalf("%q became %q without an edit", file, got)
			}
			return
		}
		wrote++
		before, after := strings.Split(file, "\n"), strings.Split(string(got), "\n")
		if len(before) != len(after) {
			t.Fatalf("%q became %q", file, got)
		}
		differ := 0
		for i := range before {
			if before[i] != after[i] {
				differ++
			}
		}
		if differ > len(edits) {
			t.Fatalf("%q became %q with %v", file, got, edits)
		}
		var v any
		if err := yaml.Unmarshal(got, &v); err != nil {
			var w any
			if yaml.Unmarshal([]byte(file), &w) == nil {
				t.Fatalf("%q became %q, which is no YAML: %v", file, got, err)
			}
		}
	})
	if wrote == 0 {
		t.Error("nothing was ever written")
	}
	t.Logf("%d were written", wrote)
}
