package work

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/fairlead/fairlead/chart"
	"github.com/fairlead/fairlead/cluster"
)

// input is the hash of what a package is rendered from. The number of the release is none of it,
// nor is the commit: those change for packages that nobody touched. There is none where secrets
// are decrypted, which it would be a hash of; nothing random is rendered there.
func input(t Task, files []chart.File, values chart.Values) string {
	if t.decrypts() {
		return ""
	}
	return sum(struct {
		App    cluster.AppName
		Domain string
		Files  []chart.File
		Values chart.Values
	}{t.Delivery.App, t.Domain, files, values})
}

// withImages takes into the input what was chosen beside it. What a tag means now is no part
// of it, unless it was chosen too: it changes nothing that is rendered.
func withImages(r *Result) {
	if p := r.Bundle.Package; p != nil && p.Input != "" && len(r.Origin.Images) > 0 {
		type all struct {
			Input  string
			Images []cluster.ImageChoice
		}
		images := slices.Clone(r.Origin.Images)
		r.InputBefore = sum(all{p.Input, images})
		for i := range images {
			if !images[i].Pinned {
				images[i].Digest = ""
			}
		}
		p.Input = sum(all{p.Input, images})
	}
}

func sum(v any) string {
	b, _ := json.Marshal(v) // of plain fields
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}
