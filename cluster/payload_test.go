package cluster

import (
	"bytes"
	"compress/gzip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPayloadsAreCompressedAndBounded(t *testing.T) {
	want := Payload{Secrets: map[string][]byte{"a": []byte("x\x00\xff")}, Configs: map[string][]byte{"b": bytes.Repeat([]byte("line\n"), 100_000)}}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 50_000 {
		t.Errorf("%d bytes: not compressed", len(b))
	}
	got, err := DecodePayload(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(want.Secrets, got.Secrets) || !cmp.Equal(want.Configs, got.Configs) {
		t.Error("another payload came back")
	}
	if _, err := (Payload{Configs: map[string][]byte{"b": make([]byte, maxEncoded)}}).Encode(); KindOf(err) != KindInvalid {
		t.Errorf("what cannot be read out again was written: %v", err)
	}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	_, _ = w.Write(append([]byte("{}"), bytes.Repeat([]byte(" "), maxEncoded)...))
	_ = w.Close()
	for name, in := range map[string][]byte{"a bomb": bomb.Bytes(), "no gzip": []byte("{}"), "nothing": nil, "half": b[:len(b)/2]} {
		if _, err := DecodePayload(bytes.NewReader(in)); KindOf(err) != KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
