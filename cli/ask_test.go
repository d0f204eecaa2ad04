package cli

import (
	"context"
	"errors"
	"testing"
)

func TestAQuestionEndsWithTheCommand(t *testing.T) {
	typed := make(chan struct{})
	defer close(typed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := interruptible(ctx, func() (string, error) { <-typed; return "yes", nil }); !errors.Is(err, errInterrupted) {
		t.Errorf("%v", err)
	}
	if v, err := interruptible(t.Context(), func() (string, error) { return "yes", nil }); v != "yes" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}
