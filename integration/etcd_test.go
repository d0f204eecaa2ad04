package integration

import (
	"testing"

	"github.com/fairlead/fairlead/integration/etcdd"
	"github.com/fairlead/fairlead/store/storetest"
)

// The conformance suite of stores, on etcds of an operator's.
func TestOperatorsEtcd(t *testing.T) {
	for _, version := range []string{etcdd.Debian, etcdd.Current} {
		t.Run(version, func(t *testing.T) {
			e := etcdd.Start(t, version)
			storetest.Run(t, func(t *testing.T) storetest.Subject {
				t.Helper()
				st := e.Store()
				t.Cleanup(func() {
					if err := st.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				return st
			})
		})
	}
}
