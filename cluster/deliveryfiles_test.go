package cluster

import "testing"

// Files are in the source, above the path too, and nowhere else.
func TestFilesAreInTheSource(t *testing.T) {
	for _, tc := range []struct {
		path, file string
		ok         bool
	}{
		{"", "a.env", true},
		{"app", "../a.env", true},
		{"apps/web", "../../a.env", true},
		{"app/", "./../b/a.env", true},
		{"", "b/../a.env", true},
		{"", "../a.env", false},
		{"app", "../../a.env", false},
		{"app", "x/../../../a.env", false},
		{"app", "/a.env", false},
		{"app", "..", true},
		{"", "..", false},
		{"..", "a.env", false},
	} {
		d := Delivery{Name: "x", App: "x", Source: SourceSpec{Kind: SourceGit, URL: "https://git.example.com/x.git"}, Path: tc.path, EnvFiles: []string{tc.file}}
		if err := d.Validate(); (err == nil) != tc.ok {
			t.Errorf("%q below %q: %v", tc.file, tc.path, err)
		}
	}
}
