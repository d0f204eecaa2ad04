package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in      string
		current cluster.AppName
		want    cluster.Address
		err     string
	}{
		{in: "shop/web", want: cluster.Address{App: "shop", Service: "web"}},
		{in: "shop/web.2", want: cluster.Address{App: "shop", Service: "web", Slot: 2}},
		{in: "shop_web.2", want: cluster.Address{App: "shop", Service: "web", Slot: 2}},
		{in: "shop_web", want: cluster.Address{App: "shop", Service: "web"}},
		{in: "web", current: "shop", want: cluster.Address{App: "shop", Service: "web"}},
		{in: "web.3", current: "shop", want: cluster.Address{App: "shop", Service: "web", Slot: 3}},
		{in: "shop_web", current: "shop", want: cluster.Address{App: "shop", Service: "web"}},
		{in: "other_web", current: "shop", want: cluster.Address{App: "other", Service: "web"}},
		{in: "web", err: "names no app"},
		{in: "shop/web.0", err: "slots count from 1"},
		{in: "Shop/web", err: "app name"},
		{in: "shop/../etc", err: "service name"},
		{in: "shop/", err: "service name"},
		{in: "shop_web.2.v2xinbr6tc", err: "is a task's ID, and the next task there has another: write shop/web.2"},
		{in: "web.2.v2xinbr6tc", current: "shop", err: "write shop/web.2"},
		{in: "shop/web.v2xinbr6tc", err: "service name"},
		{in: "", err: "names no app"},
	} {
		got, err := cluster.ParseAddress(tc.in, tc.current)
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("ParseAddress(%q, %q) error = %v, want %q", tc.in, tc.current, err, tc.err)
		case tc.err != "" && cluster.KindOf(err) != cluster.KindInvalid:
			t.Errorf("ParseAddress(%q) kind = %v, want invalid", tc.in, cluster.KindOf(err))
		case tc.err == "" && (err != nil || got != tc.want):
			t.Errorf("ParseAddress(%q, %q) = %+v, %v, want %+v", tc.in, tc.current, got, err, tc.want)
		}
	}
}

func TestAddressesRoundTrip(t *testing.T) {
	for _, a := range []cluster.Address{{App: "shop", Service: "web"}, {App: "a-b", Service: "x_y", Slot: 7}} {
		if got, err := cluster.ParseAddress(a.String(), ""); err != nil || got != a {
			t.Errorf("ParseAddress(%q) = %+v, %v", a, got, err)
		}
	}
}

func TestKindOf(t *testing.T) {
	base := errors.New("boom")
	in := cluster.Conflictf("lost the race: %w", base)
	out := fmt.Errorf("apply plan at revision 7: %w", in)
	if got := cluster.KindOf(out); got != cluster.KindConflict {
		t.Errorf("KindOf(%v) = %v, want conflict", out, got)
	}
	if !errors.Is(out, base) {
		t.Error("the cause is lost")
	}
	if cluster.KindOf(base) != cluster.KindOther || cluster.KindOf(nil) != cluster.KindOther {
		t.Error("a plain error and none must be of kind other")
	}
}

// A secret must not leave through any way of printing it.
func TestSecretNeverPrints(t *testing.T) {
	s := cluster.NewSecret([]byte("hunter2"))
	holder := struct{ S cluster.Secret }{s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{s, &s, holder, []cluster.Secret{s}} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, "hunter2") || strings.Contains(out, "68756e74657232") || strings.Contains(out, "104") {
				t.Errorf("%s of %T prints %q", verb, v, out)
			}
		}
	}
	if b, err := json.Marshal(holder); err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("JSON = %s, %v", b, err)
	}
	if string(s.Reveal()) != "hunter2" {
		t.Error("Reveal lost the value")
	}
}

func TestDurationIsText(t *testing.T) {
	in := cluster.RestartPolicy{Delay: cluster.Duration(90 * time.Second)}
	b, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(b), `"1m30s"`) {
		t.Fatalf("JSON = %s, %v, want 1m30s in it", b, err)
	}
	var out cluster.RestartPolicy
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("read back %+v, %v", out, err)
	}
}

// An upgrade that adds a field must not change the hash of specs that do not use it.
func TestTaskSpecOmitsZeroFields(t *testing.T) {
	b, err := json.Marshal(cluster.TaskSpec{Image: "x"})
	if err != nil || string(b) != `{"image":"x"}` {
		t.Errorf("JSON = %s, %v: every field but image must be omitted when zero", b, err)
	}
	if h := (cluster.TaskSpec{Image: "x"}).Hash(); len(h) != 12 {
		t.Errorf("hash = %q, want 12 hex digits", h)
	}
}

func TestHashSeesEveryField(t *testing.T) {
	zero := cluster.TaskSpec{}.Hash()
	v := reflect.ValueOf(&cluster.TaskSpec{}).Elem()
	for i := range v.NumField() {
		var spec cluster.TaskSpec
		f := reflect.ValueOf(&spec).Elem().Field(i)
		set(f)
		if spec.Hash() == zero {
			t.Errorf("the hash does not see %s", v.Type().Field(i).Name)
		}
	}
}

// set makes f something other than its zero value.
func set(f reflect.Value) {
	switch f.Kind() {
	case reflect.String:
		f.SetString("x")
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Int, reflect.Int64:
		f.SetInt(1)
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 1, 1))
	case reflect.Map:
		f.Set(reflect.MakeMap(f.Type()))
		f.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.Pointer:
		f.Set(reflect.New(f.Type().Elem()))
	case reflect.Struct:
		set(f.Field(0))
	}
}

func TestTaskIDs(t *testing.T) {
	web := cluster.ServiceID{App: "shop", Name: "web"}
	seen := map[cluster.TaskID]bool{}
	for slot := 1; slot <= 20; slot++ {
		for n := range int64(20) {
			id := cluster.NewTaskID(web, slot, 5, n, "")
			if seen[id] {
				t.Fatalf("%s was given twice", id)
			}
			seen[id] = true
			if !strings.HasPrefix(string(id), fmt.Sprintf("shop_web.%d.", slot)) {
				t.Fatalf("%s does not name its slot", id)
			}
		}
	}
	if cluster.NewTaskID(web, 1, 5, 0, "") == cluster.NewTaskID(web, 1, 6, 0, "") {
		t.Error("a service made again must not use its earlier names")
	}
	if cluster.NewTaskID(web, 1, 5, 0, "") == cluster.NewTaskID(web, 1, 5, 0, "salt") {
		t.Error("who knows a service can tell the names of its tasks")
	}
}
