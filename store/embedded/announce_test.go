package embedded

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A member whose address changed while most of the others were away tells them once they
// are back: until then they look for it where it was.
func TestAnAddressIsAnnouncedUntilItIsKnown(t *testing.T) {
	s := &Server{log: hclog.NewNullLogger()}
	synctest.Test(t, func(t *testing.T) {
		began, tries := time.Now(), 0
		s.untilAnnounced(t.Context(), func(context.Context) error {
			if tries++; tries < 20 {
				return errors.New("no leader")
			}
			return nil
		})
		if took := time.Since(began); tries != 20 || took != 20*announceEvery {
			t.Errorf("announced %d times in %s", tries, took)
		}

		s.untilAnnounced(t.Context(), nil) // there was nothing to announce, or it is known

		ctx, cancel := context.WithCancel(t.Context())
		tries = 0
		s.untilAnnounced(ctx, func(context.Context) error {
			tries++
			cancel()
			return errors.New("no leader")
		})
		if tries != 1 {
			t.Errorf("tried %d times after its end", tries)
		}
	})
}
