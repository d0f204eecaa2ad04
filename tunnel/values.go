package tunnel

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/fairlead/fairlead/cluster"
)

// The most bytes that a node's answers may have, as JSON: a server keeps them in memory.
const (
	maxLogLine = 8 << 20 // an agent's line is of 1 MiB, of which a byte may be written as six
	maxImages  = 4 << 20 // of more than ten thousand
	maxSamples = 1 << 20 // of more than five thousand containers
)

// values reads an answer of JSON values.
type values struct {
	r    io.Reader
	node cluster.NodeID
	most int // bytes of one value
	left int
	dec  *json.Decoder
}

func (r *reply) values(most int) *values {
	v := &values{r: r, node: r.node, most: most}
	v.dec = json.NewDecoder((*allowance)(v))
	return v
}

// next reads a value; io.EOF after the last.
func (v *values) next(to any) error {
	v.left = v.most
	return v.dec.Decode(to)
}

// allowance is what may be read for one value. What a decoder has read of the next one is at
// most a frame.
type allowance values

// Read implements io.Reader.
func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, fmt.Errorf("node %s answers too much: more than %d MiB at once", a.node, a.most>>20)
	}
	n, err := a.r.Read(p[:min(len(p), a.left)])
	a.left -= n
	return n, err
}

// mostUse is more than any container uses, of thousandths of a core or bytes: 32 TiB. The
// sum of a service's must be a number.
const mostUse = 1 << 45

// said are the samples of one node. Those that cannot be true say nothing.
func said(node cluster.NodeID, samples []cluster.Sample) []cluster.Sample {
	out := make([]cluster.Sample, 0, len(samples))
	for _, s := range samples {
		if s.Task == "" || s.CPU < 0 || s.CPU > mostUse || s.Memory < 0 || s.Memory > mostUse {
			continue
		}
		s.Node = node
		out = append(out, s)
	}
	return out
}
