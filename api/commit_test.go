package api

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead/fairlead/store"
)

// TestChunks: every write is there once and in order, no step is torn apart,
// each transaction is one that the store takes, and each compares the guard.
func TestChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var steps []step
		n := 0
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			var st step
			for range rapid.IntRange(1, 2).Draw(t, "ops") {
				key := fmt.Sprintf("k%d", n)
				n++
				st.conds = append(st.conds, store.Cond{Key: key, Rev: int64(n)})
				st.ops = append(st.ops, store.Op{Key: key, Value: make([]byte, rapid.SampledFrom([]int{1, 1000, 400_000}).Draw(t, "size"))})
			}
			steps = append(steps, st)
		}
		guard := []store.Cond{{Key: "guard", Rev: 7}}
		if n > 0 {
			guard = append(guard, store.Cond{Key: fmt.Sprintf("k%d", n-1), Rev: int64(n)}) // as the app's key, written last
		}
		next := 0
		at := map[string]int{}
		txns := chunks(guard, steps)
		for i, txn := range txns {
			if err := txn.Check(); err != nil {
				t.Fatal(err)
			}
			compared := map[string]int{}
			for _, c := range txn.If {
				compared[c.Key]++
			}
			for _, g := range guard {
				if compared[g.Key] != 1 {
					t.Fatalf("transaction %d compares %s %d times", i, g.Key, compared[g.Key])
				}
			}
			for _, o := range txn.Then {
				if o.Key != fmt.Sprintf("k%d", next) || compared[o.Key] != 1 {
					t.Fatalf("write %d is %s, compared %d times", next, o.Key, compared[o.Key])
				}
				at[o.Key] = i
				next++
			}
		}
		if next != n {
			t.Fatalf("%d writes of %d", next, n)
		}
		for _, st := range steps {
			if len(st.ops) == 2 && at[st.ops[0].Key] != at[st.ops[1].Key] {
				t.Fatal("a step was torn apart")
			}
		}
	})
}
