package chart

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

// Validator is what a server said of a file, for it to answer with the file again only where
// that is another one.
type Validator struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"` // Last-Modified
}

// Seen is what is known of a package of a repository: with it, what is the same as before is
// not fetched again.
type Seen struct {
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest,omitempty"` // of the archive: sha256:…
	// Index is what was said of the index. Where that has no digests, Archive is what was
	// said of the archive.
	Index   Validator `json:"index,omitzero"`
	Archive Validator `json:"archive,omitzero"`
}

// Newer fetches the package that a repository, which need not be among those that are kept,
// has of that name in a range of versions, unless it is what was seen: files is nil then.
func (r Repositories) Newer(ctx context.Context, x Repository, name, version string, seen Seen) (files []File, now Seen, err error) {
	i, index, err := r.refreshed(ctx, x, seen.Index)
	if err != nil || i == nil {
		return nil, seen, err
	}
	o, err := x.offer(i, name, version)
	if err != nil {
		return nil, seen, err
	}
	now = Seen{Version: o.version, Digest: o.digest, Index: index}
	t := x.transfer()
	if o.digest == "" { // another archive may be there, and the index the same
		now.Index = Validator{}
		if seen.Version == o.version {
			t.have = seen.Archive
		}
	}
	if o.digest != "" && seen.Version == o.version && seen.Digest == o.digest {
		return nil, now, nil
	}
	a, err := r.bring(ctx, x, o, t)
	if err != nil {
		return nil, seen, err
	}
	if a.data == nil {
		now.Digest, now.Archive = seen.Digest, seen.Archive
		return nil, now, nil
	}
	if o.digest == "" {
		now.Digest, now.Archive = digestOf(a.data), a.said
		if seen.Version == now.Version && seen.Digest == now.Digest {
			return nil, now, nil
		}
	}
	files, err = ReadArchive(a.name, bytes.NewReader(a.data))
	return files, now, err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ask makes a request for a file conditional on what is known of it.
func (v Validator) ask(req *http.Request) {
	if v.ETag != "" {
		req.Header.Set("If-None-Match", v.ETag)
	}
	if v.Modified != "" {
		req.Header.Set("If-Modified-Since", v.Modified)
	}
}

// validator is what an answer says of its file. A time counts once it is a while ago: within
// the same second the file may have become another one.
func validator(h http.Header) Validator {
	const while = time.Minute
	v := Validator{ETag: h.Get("ETag")}
	changed, err := http.ParseTime(h.Get("Last-Modified"))
	now, err2 := http.ParseTime(h.Get("Date"))
	if err == nil && err2 == nil && now.Sub(changed) >= while {
		v.Modified = h.Get("Last-Modified")
	}
	return v
}
