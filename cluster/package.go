package cluster

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
)

// Package is the chart that a release was rendered from.
type Package struct {
	Chart      string `json:"chart"`
	Version    string `json:"version"`
	AppVersion string `json:"app_version,omitempty"`
	From       string `json:"from,omitempty"` // as whoever installed it named it
	// Text is the hash of its PackageText, which is kept in so many Parts.
	Text  string `json:"text"`
	Parts int    `json:"parts"`
	// Input is the hash of what a delivery rendered it from; "": nobody noted it.
	Input string `json:"input,omitempty"`
}

// String is the usual name of a chart's archive, without its ending.
func (p Package) String() string { return p.Chart + "-" + p.Version }

// PackageText is what is kept of a package as text, of any size: releases with the
// same text share it.
type PackageText struct {
	Values   string `json:"values,omitempty"`   // that the user gave, YAML
	Notes    string `json:"notes,omitempty"`    // that the package has for the user
	Manifest string `json:"manifest,omitempty"` // the merged Compose document
}

// PackagePart is a piece of a PackageText, as large as the store takes. Writer: API.
type PackagePart struct {
	App    AppName `json:"app"`
	Text   string  `json:"text"`
	Number int     `json:"number"` // from 0
	Data   []byte  `json:"data"`
}

const (
	partBytes  = 700 << 10 // of a part: in base64, one fits into a transaction
	partSlack  = 1 << 10   // that what does not compress grows by
	maxPackage = 64 << 20  // of a text; what compresses well may be large
)

// Split returns the text's hash, and the text in pieces. Each is compressed for itself: what
// is stored under a hash and a number says the same whatever program compressed it, and one
// that compresses otherwise may add what is missing.
func (t PackageText) Split() (hash string, parts [][]byte, err error) {
	size := len(t.Values) + len(t.Notes) + len(t.Manifest)
	if size > maxPackage {
		return "", nil, Invalidf("values, notes and documents of %d bytes are too large", size)
	}
	plain, err := json.Marshal(t)
	if err != nil {
		return "", nil, Invalidf("encode a package's text: %w", err)
	}
	for part := range slices.Chunk(plain, partBytes-partSlack) {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(part); err != nil {
			return "", nil, err
		}
		if err := w.Close(); err != nil {
			return "", nil, err
		}
		parts = append(parts, b.Bytes())
	}
	sum := sha256.Sum256(append([]byte("parts\n"), plain...)) // another hash than that of a text compressed as a whole
	return hex.EncodeToString(sum[:16]), parts, nil
}

// JoinPackage reads what Split made.
func JoinPackage(parts [][]byte) (PackageText, error) {
	var out PackageText
	z, err := gzip.NewReader(bytes.NewReader(bytes.Join(parts, nil)))
	if err != nil {
		return out, Invalidf("a package's text cannot be read: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, 7*maxPackage)) // a byte is up to six in JSON
	if err != nil || len(plain) == 7*maxPackage {
		return out, Invalidf("a package's text cannot be read, or is too large")
	}
	if err := json.Unmarshal(plain, &out); err != nil {
		return PackageText{}, Invalidf("a package's text cannot be read: %w", err)
	}
	return out, nil
}
