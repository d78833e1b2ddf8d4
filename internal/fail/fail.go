// Package fail is keyroll's one error type and its one table of codes.
//
// A package chooses the code where the cause is known and gives a detail that a user
// can act on; callers wrap it with %w and add context. An error without an *Error in its
// chain is Internal: the server logs it and shows only its code. Detail and Hint never
// contain a secret. Err is never shown; it is only logged.
package fail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyroll/api"
)

// Error is a failure with a code, a detail that says what happened, and a hint
// that says what to do about it.
type Error struct {
	Code   api.Code
	Detail string
	Hint   string
	Err    error // the cause, only for the log
	// RetryAfter is the wait that the failed server asked for, 0 if it did not.
	RetryAfter time.Duration
}

// Error returns the detail; the hint and the cause are not part of it.
func (e *Error) Error() string { return e.Detail }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error with a code and a formatted detail. A %w verb keeps the
// wrapped error as the cause and shows its text.
func New(code api.Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Because sets the cause, which is logged and never shown, and returns e.
func (e *Error) Because(err error) *Error {
	e.Err = err
	return e
}

// Abandoned reports whether err means that the caller of the request in ctx disconnected
// before its answer, which is not a failure of keyroll.
func Abandoned(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) && ctx.Err() != nil
}

// CodeOf returns the code of the outermost *Error in err's chain, and Internal
// for any other error.
func CodeOf(err error) api.Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return api.Internal
}

// Is reports whether err carries code.
func Is(err error, code api.Code) bool { return err != nil && CodeOf(err) == code }

// RetryAfter returns the longest wait that an error in err's tree asks for.
func RetryAfter(err error) (longest time.Duration) {
	if e, ok := err.(*Error); ok {
		longest = e.RetryAfter
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return max(longest, RetryAfter(e.Unwrap()))
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			longest = max(longest, RetryAfter(cause))
		}
	}
	return longest
}

// Public returns the parts of err that callers of the server may see: its code, its text
// with the context that was added, and its hint. The text of an internal error is
// replaced by a fixed sentence.
func Public(err error) (code api.Code, detail, hint string) {
	var e *Error
	if !errors.As(err, &e) || e.Code == api.Internal {
		return api.Internal, "keyroll failed; its log names the cause under this request's id", ""
	}
	return e.Code, err.Error(), e.Hint
}
