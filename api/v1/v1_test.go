package v1_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
)

func TestPlainRedactsItself(t *testing.T) {
	p := v1.Plain("hunter2")
	d := v1.SecretDecl{Value: p}
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%d"} {
		for _, s := range []string{fmt.Sprintf(verb, p), fmt.Sprintf(verb, d)} {
			if strings.Contains(s, "hunter2") || strings.Contains(s, "68756e") || strings.Contains(s, "104 117") {
				t.Errorf("%s prints %s", verb, s)
			}
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back v1.SecretDecl
	if err := json.Unmarshal(b, &back); err != nil || string(back.Value) != "hunter2" {
		t.Errorf("%s: %v", b, err)
	}
}

func TestInvalid(t *testing.T) {
	err := fmt.Errorf("plan: %w", v1.Invalid{{Message: "no", File: "f", Line: 3}, {Message: "bad", Field: "x"}})
	if cluster.KindOf(err) != cluster.KindInvalid || err.Error() != "plan: f:3: no\nx: bad" {
		t.Errorf("%s %q", cluster.KindOf(err), err)
	}
	for word, k := range v1.Kinds() {
		if k.String() != word {
			t.Errorf("%s is %s", word, k)
		}
	}
}

func TestBuildTag(t *testing.T) {
	for want, in := range map[string][2]string{
		"fairlead/shop-web:0123456789ab": {"web", "sha256:0123456789abcdef"},
		"fairlead/shop-we-b:ab":          {"We_b", "ab"},
		"fairlead/shop-w:":               {"w__", ""},
	} {
		if got := v1.BuildTag("shop", cluster.ServiceName(in[0]), in[1]); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
}

func TestFrameWriterSplits(t *testing.T) {
	var buf bytes.Buffer
	w := v1.FrameWriter{W: &buf, Type: v1.FrameStdout, Mu: &sync.Mutex{}}
	data := bytes.Repeat([]byte("ab"), v1.MaxFrame)
	if n, err := w.Write(data); n != len(data) || err != nil {
		t.Fatal(n, err)
	}
	var back []byte
	for {
		ft, p, err := v1.ReadFrame(&buf, nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || ft != v1.FrameStdout {
			t.Fatal(ft, err)
		}
		back = append(back, p...)
	}
	if !bytes.Equal(back, data) {
		t.Errorf("%d bytes of %d", len(back), len(data))
	}
	if err := v1.WriteFrame(&buf, v1.FrameStdout, data); err == nil {
		t.Error("a frame that is too large is written")
	}
}

// FuzzReadFrame: whatever arrives, a frame is what was written or an error, and
// no more memory is taken than one frame has.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x02hi"))
	f.Add([]byte("\x04\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		ft, p, err := v1.ReadFrame(bytes.NewReader(in), nil)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := v1.WriteFrame(&out, ft, p); err != nil || !bytes.HasPrefix(in, out.Bytes()) {
			t.Errorf("%x became %x, %v", in, out.Bytes(), err)
		}
	})
}
