package store_test

import (
	"testing"

	"github.com/fairlead/fairlead/store"
	"github.com/fairlead/fairlead/store/storetest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) storetest.Subject { return store.NewMemory() })
}
