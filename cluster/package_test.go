package cluster

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPackageTextComesBack(t *testing.T) {
	// What hardly compresses, of sizes around the pieces'.
	noise := make([]byte, 2*partBytes)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte('!' + r.IntN(90))
	}
	for _, size := range []int{0, 1, 1000, partBytes, partBytes * 3 / 2, 2 * partBytes} {
		want := PackageText{Values: string(noise[:size]), Notes: "n\x00ö", Manifest: strings.Repeat("a", size)}
		hash, parts, err := want.Split()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if len(p) == 0 || len(p) > partBytes {
				t.Errorf("a part of %d bytes", len(p))
			}
		}
		got, err := JoinPackage(parts)
		if err != nil || got != want {
			t.Errorf("%d: another text comes back (%v)", size, err)
		}
		if size <= 1000 {
			if again, _, _ := want.Split(); again != hash {
				t.Error("the same text has two hashes")
			}
		}
	}
	want := PackageText{Values: string(noise)}
	_, parts, err := want.Split()
	if err != nil || len(parts) < 3 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	parts[1] = otherwise(t, parts[1])
	if got, err := JoinPackage(parts); err != nil || got != want {
		t.Errorf("with a part that another program compressed another text comes back (%v)", err)
	}
	if _, err := JoinPackage([][]byte{{1, 2}}); KindOf(err) != KindInvalid {
		t.Errorf("what is none is read: %v", err)
	}
	if _, _, err := (PackageText{Values: string(make([]byte, maxPackage+1))}).Split(); KindOf(err) != KindInvalid {
		t.Errorf("too large: %v", err)
	}
}

// otherwise compresses a part in another way.
func otherwise(t *testing.T, part []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(part))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, z); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
