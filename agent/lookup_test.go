package agent

import (
	"slices"
	"testing"

	"github.com/fairlead/fairlead/cluster"
)

func TestServicesAreFoundWithNdots(t *testing.T) {
	node := func() []string { return []string{"lan"} }
	for name, c := range map[string]struct {
		search, options, want []string
	}{
		"nothing set":            {nil, nil, nil},
		"other options":          {[]string{"corp"}, []string{"timeout:1"}, []string{"corp"}},
		"ndots as Docker has it": {nil, []string{"ndots:0"}, nil},
		"ndots":                  {nil, []string{"rotate", "ndots:2"}, []string{"lan", "shop"}},
		"ndots and domains":      {[]string{"corp"}, []string{"ndots:1"}, []string{"corp", "shop"}},
		"ndots and no domains":   {[]string{"."}, []string{"ndots:1"}, []string{"shop"}},
		"it is there":            {[]string{"shop", "corp"}, []string{"ndots:1"}, []string{"shop", "corp"}},
	} {
		s := &cluster.TaskSpec{DNSSearch: c.search, DNSOptions: c.options}
		if got := searchDomains(s, "shop", node); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
