package cluster

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
)

// A release of hundreds of services, which are much alike, is written compressed: the
// store takes no value of more than 1.5 MiB.
const (
	packFrom    = 256 << 10 // bytes of JSON
	maxUnpacked = 256 << 20
)

// MarshalJSON writes a release, a large one compressed.
func (r Release) MarshalJSON() ([]byte, error) {
	type plain Release
	text, err := json.Marshal(plain(r))
	if err != nil || len(text) < packFrom {
		return text, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	// What tells it from others stays legible.
	return json.Marshal(struct {
		App    AppName `json:"app"`
		Number int     `json:"number"`
		Packed []byte  `json:"packed"`
	}{r.App, r.Number, b.Bytes()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Release) UnmarshalJSON(text []byte) error {
	type plain Release
	var in struct {
		plain
		Packed []byte `json:"packed"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	if in.Packed != nil {
		z, err := gzip.NewReader(bytes.NewReader(in.Packed))
		if err != nil {
			return err
		}
		unpacked, err := io.ReadAll(io.LimitReader(z, maxUnpacked))
		if err != nil {
			return err
		}
		in.plain = plain{}
		if err := json.Unmarshal(unpacked, &in.plain); err != nil {
			return err
		}
	}
	*r = Release(in.plain)
	return nil
}
