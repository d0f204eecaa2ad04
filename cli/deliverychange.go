package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/cluster"
)

// setDelivery makes a delivery, or changes the one that is there, and says how.
func (a *app) setDelivery(ctx context.Context, cl *client.Client, set v1.DeliverySet) (v1.DeliveryStatus, error) {
	var old *v1.DeliveryStatus
	if set.Replace {
		d, err := cl.Delivery(ctx, set.Name)
		switch {
		case err == nil:
			old = &d
		case cluster.KindOf(err) != cluster.KindNotFound:
			return d, err
		}
	}
	got, err := cl.SetDelivery(ctx, set.Name, set)
	if err != nil || old == nil {
		return got, err
	}
	for _, line := range deliveryChanges(old.Delivery, got.Delivery) {
		a.note("%s", line)
	}
	if got.Suspend && !set.Suspend {
		a.note("%s is suspended still: `fairlead delivery resume %s`, or --suspend=false, lets it go on", got.Name, got.Name)
	}
	return got, nil
}

// deliveryChanges are the settings of a delivery that are others than before, as a diff has them.
func deliveryChanges(old, now cluster.Delivery) (out []string) {
	was, is := settings(old), settings(now)
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if was[k] == is[k] {
			continue
		}
		if was[k] != "" {
			out = append(out, fmt.Sprintf("- %s: %s", k, shortValue(was[k])))
		}
		if is[k] != "" {
			out = append(out, fmt.Sprintf("+ %s: %s", k, shortValue(is[k])))
		}
	}
	return out
}

// settings are what a person said of a delivery, and the defaults, by the names that
// `delivery get -o json` has.
func settings(d cluster.Delivery) map[string]string {
	d = d.Filled()
	d.By = ""
	b, _ := json.Marshal(d) // of plain fields
	var m map[string]any
	_ = json.Unmarshal(b, &m)
	delete(m, "created")
	out := map[string]string{}
	flatten("", m, out)
	return out
}

func flatten(below string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			flatten(strings.TrimPrefix(below+"."+k, "."), x, out)
		}
	case string:
		out[below] = v
	default:
		b, _ := json.Marshal(v)
		out[below] = string(b)
	}
}

// shortValue is a value in a line: certificates and values are long.
func shortValue(s string) string {
	const most = 100
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%s… (%d bytes)", oneLine(string(r[:most])), len(s))
	}
	return oneLine(s)
}
