package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead/fairlead/cluster"
)

// Exit codes.
const (
	codeFailed      = 1
	codeUsage       = 2
	codeUnreachable = 3
	codeNotFound    = 4
	codeTimeout     = 5
	codeRemoved     = 6
	codeChanges     = 10
)

// exitError ends the program with a code. An empty message prints nothing more.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{code: codeUsage, err: fmt.Errorf(format, args...)}
}

func failedf(format string, args ...any) error {
	return &exitError{code: codeFailed, err: fmt.Errorf(format, args...)}
}

// Code is the exit code for an error that a command returned.
func Code(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, cluster.ErrRemoved):
		return codeRemoved
	case errors.Is(err, context.DeadlineExceeded):
		return codeTimeout
	case strings.HasPrefix(err.Error(), "unknown command"): // cobra's own, which has no type
		return codeUsage
	}
	switch cluster.KindOf(err) {
	case cluster.KindInvalid:
		return codeUsage
	case cluster.KindNotFound:
		return codeNotFound
	case cluster.KindTransient, cluster.KindForbidden:
		return codeUnreachable
	case cluster.KindConflict, cluster.KindOther:
	}
	return codeFailed
}
