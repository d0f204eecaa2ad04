package cluster

import (
	"errors"
	"fmt"
)

// Kind classifies an error by what the caller should do about it.
type Kind uint8

// Kinds of errors.
const (
	KindOther     Kind = iota // unclassified
	KindNotFound              // the object does not exist
	KindConflict              // the store moved on: take a fresh snapshot and decide again
	KindInvalid               // the request can never succeed as it is
	KindTransient             // try the same again later
	KindForbidden             // the caller may not do this
)

func (k Kind) String() string {
	switch k {
	case KindNotFound:
		return "not found"
	case KindConflict:
		return "conflict"
	case KindInvalid:
		return "invalid"
	case KindTransient:
		return "transient"
	case KindForbidden:
		return "forbidden"
	case KindOther:
	}
	return "other"
}

// Error is an error with a kind. It wraps Err when that is set.
type Error struct {
	Kind Kind
	Msg  string
	Err  error
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap lets errors.Is and errors.As see the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrRemoved is why a machine's server or agent ends and is not started again: an
// operator took it out of its cluster.
var ErrRemoved = errors.New("not of the cluster any more")

// KindOf returns the outermost set kind in err's chain.
func KindOf(err error) Kind {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			break
		}
		if e.Kind != KindOther {
			return e.Kind
		}
		err = e.Err
	}
	return KindOther
}

// Invalidf makes an error of KindInvalid. A %w verb is kept as the cause.
func Invalidf(format string, args ...any) error { return kindf(KindInvalid, format, args...) }

// NotFoundf makes an error of KindNotFound.
func NotFoundf(format string, args ...any) error { return kindf(KindNotFound, format, args...) }

// Conflictf makes an error of KindConflict.
func Conflictf(format string, args ...any) error { return kindf(KindConflict, format, args...) }

// Transientf makes an error of KindTransient.
func Transientf(format string, args ...any) error { return kindf(KindTransient, format, args...) }

func kindf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}
