package charttest

import (
	"bytes"
	"compress/gzip"
	"sync"
)

// Zeros are a MiB of what bombs are made of.
var Zeros = make([]byte, 1<<20)

// zipped are the Zeros: with the race detector it takes a while to compress them.
var zipped = sync.OnceValue(func() []byte { return zip(Zeros) })

// Members compresses as gzip does, each write for itself: a stream may have many members,
// and a bomb has the same one again and again.
type Members struct{ bytes.Buffer }

func (m *Members) Write(p []byte) (int, error) {
	z := zipped()
	if !bytes.Equal(p, Zeros) {
		z = zip(p)
	}
	_, err := m.Buffer.Write(z)
	return len(p), err
}

func zip(p []byte) []byte {
	var b bytes.Buffer // which refuses nothing
	z := gzip.NewWriter(&b)
	_, _ = z.Write(p)
	_ = z.Close()
	return b.Bytes()
}
