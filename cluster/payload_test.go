package cluster

import (
	"bytes"
	"compress/gzip"
	"maps"
	"testing"
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
	if !maps.EqualFunc(want.Secrets, got.Secrets, bytes.Equal) || !maps.EqualFunc(want.Configs, got.Configs, bytes.Equal) {
		t.Error("another payload came back")
	}
	if _, err := (Payload{Configs: map[string][]byte{"b": make([]byte, maxEncoded)}}).Encode(); KindOf(err) != KindInvalid {
		t.Errorf("what cannot be read out again was written: %v", err)
	}
	var bomb bytes.Buffer
	w, err := gzip.NewWriterLevel(&bomb, gzip.HuffmanOnly) // it is what comes out that counts
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(append([]byte("{}"), bytes.Repeat([]byte(" "), maxEncoded)...))
	_ = w.Close()
	for name, in := range map[string][]byte{"a bomb": bomb.Bytes(), "no gzip": []byte("{}"), "nothing": nil, "half": b[:len(b)/2]} {
		if _, err := DecodePayload(bytes.NewReader(in)); KindOf(err) != KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
