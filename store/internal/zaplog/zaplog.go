// Package zaplog passes what etcd logs with zap on to hclog.
//
// etcd calls much "info" that interests nobody but etcd's own developers: info
// becomes debug and debug becomes trace; warnings and errors keep their level, but
// warnings that come again and again, as they do each half second while there is no
// leader, are passed on more and more rarely.
package zaplog

import (
	"errors"
	"net"
	"net/http"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// New returns a zap logger that writes to log.
func New(log hclog.Logger, opts ...zap.Option) *zap.Logger {
	return NewServer(log, func() bool { return false }, opts...)
}

// NewServer is New for a server that says when it is stopping: etcd then calls
// it an error that the listeners which it closes itself are closed.
func NewServer(log hclog.Logger, stopping func() bool, opts ...zap.Option) *zap.Logger {
	return zap.New(core{log: log, stopping: stopping, said: &said{}}, opts...)
}

type core struct {
	log      hclog.Logger
	stopping func() bool
	said     *said
}

func level(l zapcore.Level) hclog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return hclog.Error
	case l == zapcore.WarnLevel:
		return hclog.Warn
	case l == zapcore.InfoLevel:
		return hclog.Debug
	}
	return hclog.Trace
}

// Enabled implements zapcore.LevelEnabler.
func (c core) Enabled(l zapcore.Level) bool { return level(l) >= c.log.GetLevel() }

// With implements zapcore.Core.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{log: c.log.With(pairs(fields)...), stopping: c.stopping, said: c.said}
}

// Check implements zapcore.Core.
func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	l := level(e.Level)
	if l > hclog.Debug && c.stopping() && aboutClosed(fields) {
		l = hclog.Debug
	}
	args := pairs(fields)
	if l == hclog.Warn {
		withheld, now := c.said.again(subject(e, fields), e.Time)
		if !now {
			return nil
		}
		if withheld > 0 {
			args = append(args, "withheld", withheld)
		}
	}
	c.log.Log(l, e.Message, args...)
	return nil
}

// aboutClosed reports whether the error told is that a listener was closed.
func aboutClosed(fields []zapcore.Field) bool {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			return errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)
		}
	}
	return false
}

// Sync implements zapcore.Core.
func (core) Sync() error { return nil }

func pairs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, 2*len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, f.Key, v)
		}
	}
	return out
}
