package cluster

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
)

// MaxPayload is the most bytes of secrets and configs, with their names, that
// are sure to reach one task, however little they compress: twice in base64
// they would not pass through the store, so they are compressed in between.
const MaxPayload = 1_000_000

// maxEncoded bounds a payload once it is read out: what compresses well may be large.
const maxEncoded = 8 << 20

// Encode returns what is encrypted of a payload.
func (p Payload) Encode() ([]byte, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, Invalidf("encode payload: %w", err)
	}
	if len(plain) > maxEncoded {
		return nil, Invalidf("secrets and configs of %d bytes together are too large", len(plain))
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed) // a third of the time, for a tenth more of text
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// DecodePayload reads what Encode wrote. Its errors quote nothing of it.
func DecodePayload(r io.Reader) (Payload, error) {
	var out Payload
	z, err := gzip.NewReader(r)
	if err != nil {
		return out, Invalidf("a payload cannot be read")
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxEncoded+1))
	if err != nil || len(plain) > maxEncoded {
		return out, Invalidf("a payload cannot be read, or is too large")
	}
	if err := json.Unmarshal(plain, &out); err != nil {
		return Payload{}, Invalidf("a payload cannot be read")
	}
	return out, nil
}
