package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	v1 "github.com/fairlead/fairlead/api/v1"
)

// errInterrupted is why a question has no answer: nothing was changed yet.
var errInterrupted = errors.New("interrupted")

// interruptible waits for what f reads, and no longer once ctx has ended: a read
// from a terminal cannot be cancelled.
func interruptible[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, errInterrupted
	}
}

// ask puts a question to the person at the terminal; without one it refuses.
func (a *app) ask(ctx context.Context, question string) error {
	if f, ok := a.in.(*os.File); !ok || !isTerminal(f) {
		return usagef("%s Nobody is there to confirm: add --yes", question)
	}
	_, _ = fmt.Fprintf(a.errw, "%s Type yes to go on: ", question)
	answer, err := interruptible(ctx, func() (string, error) {
		var answer string
		_, _ = fmt.Fscanln(a.in, &answer)
		return answer, nil
	})
	if err != nil {
		a.note("")
	}
	if answer != "yes" {
		return usagef("not confirmed: nothing was changed")
	}
	return nil
}

// readSecret reads a value that is never shown.
func (a *app) readSecret(ctx context.Context, what string) ([]byte, error) {
	if f, ok := a.in.(*os.File); ok && isTerminal(f) {
		return a.promptSecret(ctx, int(f.Fd()), "Value of "+what, what+" is unchanged")
	}
	b, err := io.ReadAll(io.LimitReader(a.in, v1.MaxSecret+1))
	if err != nil {
		return nil, err
	}
	b = []byte(strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"))
	switch {
	case len(b) == 0:
		return nil, usagef("standard input is empty: %s is unchanged", what)
	case len(b) > v1.MaxSecret:
		return nil, usagef("%s: a secret has at most %d bytes", what, v1.MaxSecret)
	}
	return b, nil
}

// promptSecret asks for what is not shown; without an answer, the error says what follows.
func (a *app) promptSecret(ctx context.Context, fd int, question, without string) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(a.errw, "%s: ", question)
	b, err := interruptible(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	a.note("")
	if errors.Is(err, errInterrupted) {
		_ = term.Restore(fd, before) // or the shell would not show what is typed
	}
	if errors.Is(err, errInterrupted) || errors.Is(err, io.EOF) || err == nil && len(b) == 0 {
		err = usagef("nothing was given: %s", without)
	}
	return b, err
}

// readLine reads one line of at most 64 KiB, without its end.
func readLine(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return "", err
	}
	s := string(b)
	for len(s) > 0 && (s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	if s == "" {
		return "", fmt.Errorf("nothing was given")
	}
	return s, nil
}
