package chart_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/chart/charttest"
	"github.com/fairlead/fairlead/cluster"
)

const chartYAML = "apiVersion: v2\nname: shop\nversion: 1.2.3\n"

// pack makes an archive; a header without a type is a file with its content.
func pack(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b charttest.Members
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := h.PAXRecords["body"]
		h.PAXRecords = nil
		h.Mode, h.Size = 0o644, int64(len(body))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk([]byte(body), len(charttest.Zeros)) {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"body": body}}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	good := file("shop/Chart.yaml", chartYAML)
	bomb := func(size int) string { return strings.Repeat("\x00", size) }
	nested := func(n int) []byte {
		b := pack(t, good, file("shop/x", bomb(1<<20)))
		for range n {
			b = pack(t, good, file("shop/charts/a.tgz", string(b)))
		}
		return b
	}
	twins := make([]tar.Header, 0, 10)
	inner := string(pack(t, file("db/Chart.yaml", chartYAML), file("db/x", bomb(8<<20))))
	for n := range strings.FieldsSeq("a b c d e f g h i") {
		twins = append(twins, file("shop/charts/"+n+".tgz", inner))
	}
	for name, c := range map[string]struct {
		archive []byte
		says    string
	}{
		"traversal":           {pack(t, good, file("shop/../../etc/cron.d/x", "x")), "leads out of the chart"},
		"traversal windows":   {pack(t, good, file(`shop\..\..\x`, "x")), "leads out of the chart"},
		"absolute":            {pack(t, good, file("/etc/passwd", "x")), "absolute"},
		"drive":               {pack(t, good, file("c:/x", "x")), "absolute"},
		"symbolic link":       {pack(t, good, tar.Header{Name: "shop/x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "a link or a device"},
		"hard link":           {pack(t, good, tar.Header{Name: "shop/x", Typeflag: tar.TypeLink, Linkname: "shop/Chart.yaml"}), "a link or a device"},
		"device":              {pack(t, good, tar.Header{Name: "shop/x", Typeflag: tar.TypeChar}), "a link or a device"},
		"control":             {pack(t, good, file("shop/\x1b[31m", "x")), "control characters"},
		"bomb":                {pack(t, good, file("shop/x", bomb(65<<20))), "larger than 64 MiB"},
		"bomb in parts":       {pack(t, good, file("shop/x", bomb(33<<20)), file("shop/y", bomb(33<<20))), "larger than 64 MiB"},
		"bomb within bombs":   {pack(t, append(twins, good)...), "larger than 64 MiB"},
		"archives in archive": {nested(12), "more than 8 deep"},
		"truncated":           {nested(0)[:200], "unexpected EOF"},
		"no archive":          {[]byte("services: {}"), "it is not gzip"},
		"no chart":            {pack(t, file("shop/values.yaml", "a: 1")), "has no Chart.yaml"},
		"hostile subchart":    {pack(t, good, file("shop/charts/db.tgz", string(pack(t, file("db/../x", "x"))))), "leads out of the chart"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := chart.ReadArchive("x.tgz", bytes.NewReader(c.archive))
			if err == nil || !strings.Contains(err.Error(), c.says) || cluster.KindOf(err) != cluster.KindInvalid {
				t.Errorf("it says %v", err)
			}
		})
	}
	files, err := chart.ReadArchive("x.tgz", bytes.NewReader(nested(2)))
	if err != nil || len(files) != 2 {
		t.Errorf("a good one: %d files, %v", len(files), err)
	}
}

func TestReadDirectory(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "shop")
	put := func(name, content string) {
		t.Helper()
		f := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	put("secret", "s3cret")
	put("shop/Chart.yaml", "\xEF\xBB\xBF"+chartYAML)
	put("shop/files/a.conf", "a")
	put("shop/.helmignore", "*.bak\n")
	link("b.conf", "files/a.conf")
	link("gone.bak", "../nowhere") // ignored
	files, err := chart.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(chart.Get(files, "b.conf")); got != "a" {
		t.Errorf("a link within the chart reads %q", got)
	}
	if got := string(chart.Get(files, "Chart.yaml")); got != chartYAML {
		t.Errorf("Chart.yaml is %q", got)
	}
	for name, to := range map[string]string{
		"relative": "../secret", "absolute": filepath.Join(base, "secret"), "directory out": "..", "itself": ".", "directory": "files", "passwd": "/etc/passwd",
	} {
		link("x", to)
		if _, err := chart.Read(dir); err == nil || !strings.Contains(err.Error(), "x is a link to a directory, or out of the chart") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(filepath.Join(dir, "x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := chart.Read(filepath.Join(base, "none")); cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("no such chart: %v", err)
	}
	if _, err := chart.Read(base); err == nil || !strings.Contains(err.Error(), "is no chart") {
		t.Errorf("another directory: %v", err)
	}
	put("shop/charts/db.tgz", string(pack(t, file("db/../x", "x"))))
	if _, err := chart.Read(dir); err == nil || !strings.Contains(err.Error(), "leads out") {
		t.Errorf("a hostile archive in a directory: %v", err)
	}
}
