package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/fairlead/fairlead/cluster"
)

// Edit is one value that was written.
type Edit struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Policy string `json:"policy"`
	Old    string `json:"old"`
	New    string `json:"new"`
}

// mark is a comment that names the policy whose choice stands before it.
type mark struct {
	policy, part string
	foreign      bool // Flux's: policies that are not there are another's
}

// A mark is a comment of its line's own: # {"fairlead": "web:tag"}. What begins like one of
// these and goes on is meant as one.
var (
	markRE   = regexp.MustCompile(`#[ \t]*(\{[ \t]*"(?:fairlead|\$imagepolicy)"[^{}\r\n]*\})[ \t]*$`)
	almostRE = regexp.MustCompile(`[ \t]#[ \t]*(\{[ \t]*"fairlead".*)$`)
)

// markIn is where a line's mark is, and what it says.
func markIn(line []byte) []int {
	if at := markRE.FindSubmatchIndex(line); at != nil {
		return at
	}
	at := almostRE.FindSubmatchIndex(line)
	if at != nil {
		at[0]++ // the space
	}
	return at
}

// Marked reports whether there may be a mark in a file.
func Marked(content []byte) bool {
	return bytes.Contains(content, []byte(`"fairlead"`)) || bytes.Contains(content, []byte(`"$imagepolicy"`))
}

// Write puts choices where a YAML file's marks say. Only the marked values differ then:
// comments, quotes, line ends and anchors stay. Choices without a tag leave their values.
// uses counts the marks of each policy.
func Write(name string, content []byte, policies []cluster.ImageState, uses map[string]int) ([]byte, []Edit, error) {
	if !Marked(content) {
		return content, nil, nil
	}
	lines := split(content)
	var marks []int
	for i, l := range lines {
		if markIn(text(l)) != nil {
			marks = append(marks, i)
		}
	}
	if marks == nil {
		return content, nil, nil
	}
	values, err := scalars(content)
	if err != nil {
		return nil, nil, cluster.Invalidf("%s: it has marks of images, and is no YAML: %w", name, err)
	}
	var edits []Edit
	keys := keysOf(values)
	changed := map[int]string{} // by the value's place among all
	out := make([][]byte, len(lines))
	copy(out, lines)
	for _, i := range marks {
		before, err := before(lines[i], i+1, values)
		if err != nil {
			return nil, nil, cluster.Invalidf("%s:%d: %w", name, i+1, err)
		}
		if before == nil {
			continue // it is text within a value, or a comment alone
		}
		policy, found, err := before.chosen(policies, keys)
		if err != nil {
			return nil, nil, cluster.Invalidf("%s:%d: %w", name, i+1, err)
		}
		if policy == nil {
			continue
		}
		uses[policy.Policy]++
		fresh := before.mark.fresh(*policy)
		if fresh == "" || fresh == found.node.Value {
			continue
		}
		edits = append(edits, Edit{name, i + 1, policy.Policy, found.node.Value, fresh})
		changed[found.place] = fresh
		out[i] = bytes.Join([][]byte{lines[i][:found.begin], []byte(quoted(fresh, found.node.Style)), lines[i][found.end:]}, nil)
	}
	if edits == nil {
		return content, nil, nil
	}
	if summed(values) {
		return nil, nil, cluster.Invalidf("%s: it is encrypted with a sum over all of it, which a new image would make wrong: keep images in another file", name)
	}
	written := bytes.Join(out, nil)
	return written, edits, check(name, values, written, changed)
}

// summed reports whether SOPS signed the file, the values that it left in clear too.
func summed(values []*yaml.Node) bool {
	for _, doc := range values {
		if doc.Kind != yaml.DocumentNode {
			continue
		}
		var signed struct {
			Sops struct {
				MAC string `yaml:"mac"`
			} `yaml:"sops"`
		}
		if doc.Decode(&signed) == nil && signed.Sops.MAC != "" {
			return true
		}
	}
	return false
}

// check reads what was written again: nothing but the values may differ.
func check(name string, before []*yaml.Node, written []byte, changed map[int]string) error {
	after, err := scalars(written)
	if err == nil && len(after) != len(before) {
		err = errors.New("there are more values than before, or fewer")
	}
	for i := 0; err == nil && i < len(before); i++ {
		want, is := changed[i]
		a, b := before[i], after[i]
		if !is {
			want = a.Value
		}
		if b.Value != want || a.Kind != b.Kind || a.Anchor != b.Anchor || !is && a.Tag != b.Tag || is && b.ShortTag() != "!!str" || a.LineComment != b.LineComment || a.HeadComment != b.HeadComment {
			err = errors.New("another value would change too")
		}
	}
	if err != nil {
		return cluster.Invalidf("%s: its marked values cannot be written: %w", name, err)
	}
	return nil
}

// Parts of an image that a mark may ask for.
const (
	partWhole  = ""
	partName   = "name"
	partTag    = "tag"
	partDigest = "digest"
)

// of is the policy that a mark names; nil where the mark is another's.
func (m mark) of(policies []cluster.ImageState) (*cluster.ImageState, error) {
	for _, p := range policies {
		switch {
		case p.Policy != m.policy:
		case m.part != partWhole && m.part != partName && m.part != partTag && m.part != partDigest:
			return nil, cluster.Invalidf("the mark of the image policy %s asks for %q: tag, digest, name, or nothing for all of it", m.policy, m.part)
		default:
			return &p, nil
		}
	}
	if m.foreign {
		return nil, nil //nolint:nilnil // none of ours
	}
	return nil, cluster.Invalidf("there is no image policy %q, which a mark names", m.policy)
}

// fresh is what is to stand before the mark, "" for what is there.
func (m mark) fresh(p cluster.ImageState) string {
	switch {
	case p.Tag == "":
		return ""
	case m.part == partName:
		return p.Repository
	case m.part == partTag:
		return p.Tag
	case m.part == partDigest:
		return p.Digest
	}
	return p.Ref()
}

var (
	nameRE   = regexp.MustCompile(`^([a-z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*$`)
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]*$`)
)

// fits reports whether a value is what the mark asks for: anything else is not its to write.
func (m mark) fits(value string, p cluster.ImageState) bool {
	switch m.part {
	case partName:
		return nameRE.MatchString(value)
	case partTag:
		return cluster.ValidTag(value)
	case partDigest:
		return digestRE.MatchString(value)
	}
	return !strings.Contains(value, "$") && cluster.ImageRepository(value) == cluster.ImageRepository(p.Repository)
}

// says reports whether a key is of what the mark asks for: newTag, image.
func (m mark) says(key string) bool {
	key = strings.ToLower(key)
	switch m.part {
	case partWhole:
		return strings.HasSuffix(key, "image")
	case partName:
		return strings.HasSuffix(key, "name") || strings.HasSuffix(key, "repository")
	}
	return strings.HasSuffix(key, m.part)
}

// wants says what fits.
func (m mark) wants(p cluster.ImageState) string {
	switch m.part {
	case partName:
		return "the name of a repository"
	case partTag:
		return "a tag alone"
	case partDigest:
		return "a digest, sha256:…"
	}
	return "an image of " + p.Repository
}

// place is a value before a mark, and where it stands in its line.
type place struct {
	node       *yaml.Node
	place      int
	begin, end int
}

// marked is a mark, and the values before it on its line.
type marked struct {
	mark   mark
	places []place // the last stands right before the mark
}

// behind is what may stand between a value and its mark, besides space.
var behind = regexp.MustCompile(`^[ \t]*[,\]} \t]*[ \t]$`)

// before finds what stands before a line's mark; nil: it is no mark.
func before(line []byte, number int, values []*yaml.Node) (*marked, error) {
	at := markIn(text(line))
	var found marked
	anything, right := false, false
	for i, n := range values {
		if n.Line != number {
			continue
		}
		anything = true
		begin, end, ok := extent(line, n)
		if !ok || end > at[0] {
			continue
		}
		right = behind.Match(line[end:at[0]])
		found.places = append(found.places, place{node: n, place: i, begin: begin, end: end})
	}
	if !right {
		if anything && comment(values, line[at[2]:at[3]]) {
			return nil, cluster.Invalidf("the mark stands behind no value that can be written: it belongs behind one on the same line, and behind the anchor rather than an alias")
		}
		return nil, nil //nolint:nilnil // it is no mark
	}
	m, err := readMark(line[at[2]:at[3]])
	found.mark = m
	return &found, err
}

// chosen finds the one value that the mark means: of several on a line that which fits, and
// of several of these that whose key says so.
func (m marked) chosen(policies []cluster.ImageState, keys map[*yaml.Node]*yaml.Node) (*cluster.ImageState, place, error) {
	p, err := m.mark.of(policies)
	if p == nil || err != nil {
		return nil, place{}, err
	}
	last := m.places[len(m.places)-1]
	var fit, said []place
	for _, c := range m.places {
		key, isKey := keys[c.node]
		if isKey && key == nil && c != last || !m.mark.fits(c.node.Value, *p) {
			continue
		}
		fit = append(fit, c)
		if key != nil && m.mark.says(key.Value) {
			said = append(said, c)
		}
	}
	switch {
	case len(fit) == 1:
		return p, fit[0], nil
	case len(said) == 1:
		return p, said[0], nil
	case len(fit) > 1:
		return nil, place{}, cluster.Invalidf("the mark of the image policy %s may mean several values of its line: write the one that it is for on a line of its own", p.Policy)
	}
	advice := ""
	if m.mark.part == partTag {
		advice = fmt.Sprintf("; for a whole image write {\"fairlead\": %q}", p.Policy)
	}
	return nil, place{}, cluster.Invalidf("the mark of the image policy %s stands behind %.100q, which is not %s%s", p.Policy, last.node.Value, m.mark.wants(*p), advice)
}

// keysOf are the values of mappings with their keys, and the keys with nil.
func keysOf(values []*yaml.Node) map[*yaml.Node]*yaml.Node {
	out := map[*yaml.Node]*yaml.Node{}
	for _, n := range values {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			out[n.Content[i]], out[n.Content[i+1]] = nil, n.Content[i]
		}
	}
	return out
}

// comment reports whether YAML takes the text for a comment.
func comment(values []*yaml.Node, text []byte) bool {
	for _, n := range values {
		if strings.Contains(n.LineComment, string(text)) {
			return true
		}
	}
	return false
}

func readMark(b []byte) (mark, error) {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil || len(m) != 1 {
		return mark{}, cluster.Invalidf("the mark %s is not understood: {\"fairlead\": \"POLICY\"}, or POLICY:tag, POLICY:digest, POLICY:name, and nothing behind it", b)
	}
	if own, ok := m["fairlead"]; ok {
		policy, part, _ := strings.Cut(own, ":")
		return mark{policy: policy, part: part}, nil
	}
	_, flux, _ := strings.Cut(m["$imagepolicy"], ":") // its namespace
	policy, part, _ := strings.Cut(flux, ":")
	return mark{policy: policy, part: part, foreign: true}, nil
}

var properties = regexp.MustCompile(`^([&!][^ \t]*[ \t]+)+`)

// extent is where a value of one line stands in it, with its quotes.
func extent(line []byte, n *yaml.Node) (begin, end int, ok bool) {
	if n.Kind != yaml.ScalarNode {
		return 0, 0, false
	}
	for column := 1; column < n.Column; column++ {
		if begin >= len(line) {
			return 0, 0, false
		}
		_, size := utf8.DecodeRune(line[begin:])
		begin += size
	}
	begin += len(properties.Find(line[begin:]))
	rest := line[begin:]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		end = closing(rest, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		end = closing(rest, '\'')
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || n.Value == "" || !bytes.HasPrefix(rest, []byte(n.Value)):
		return 0, 0, false
	default:
		end = len(n.Value)
	}
	return begin, begin + end, end > 0
}

// closing is the end of the quoted text that b begins with, 0 where it goes on.
func closing(b []byte, quote byte) int {
	if len(b) == 0 || b[0] != quote {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch {
		case quote == '"' && b[i] == '\\':
			i++
		case b[i] == quote && quote == '\'' && i+1 < len(b) && b[i+1] == quote:
			i++
		case b[i] == quote:
			return i + 1
		}
	}
	return 0
}

// quoted is a value as it is written. What would be a number without quotes gets some.
func quoted(v string, style yaml.Style) string {
	switch {
	case style&yaml.SingleQuotedStyle != 0:
		return "'" + v + "'"
	case style&yaml.DoubleQuotedStyle != 0:
		return `"` + v + `"`
	}
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(v), &n); err == nil && len(n.Content) == 1 && n.Content[0].ShortTag() == "!!str" {
		return v
	}
	return `"` + v + `"`
}

// scalars are the nodes of all documents in a file, in their order.
func scalars(content []byte) ([]*yaml.Node, error) {
	var out []*yaml.Node
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		out = append(out, n)
		for _, c := range n.Content { // an alias has none
			walk(c)
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		walk(&doc)
	}
}

// split cuts a file into lines, with their ends, as YAML counts them.
func split(content []byte) [][]byte {
	var out [][]byte
	begin := 0
	for i := 0; i < len(content); {
		r, size := utf8.DecodeRune(content[i:])
		i += size
		switch {
		case r == '\r' && i < len(content) && content[i] == '\n':
			i++
		case r == '\n', r == '\r', r == '\u0085', r == '\u2028', r == '\u2029':
		default:
			continue
		}
		out = append(out, content[begin:i])
		begin = i
	}
	if begin < len(content) {
		out = append(out, content[begin:])
	}
	return out
}

// text is a line without its end.
func text(line []byte) []byte { return bytes.TrimRight(line, "\r\n\u0085\u2028\u2029") }
