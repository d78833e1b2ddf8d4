// Package fail is keyroll's one error type and its one table of codes.
//
// A room chooses the code where the cause is known and gives a detail that a
// user can act on; callers above wrap with %w and add context. An error that
// carries no *Error is Internal: the edge logs it and shows only its code.
// Nothing secret ever stands in Detail or Hint. What is lost on the way out is
// Err: it stays in the log.
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
	Err    error // the cause, for the log alone
	// RetryAfter is how long who failed asked to be left alone, 0 if it did not.
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

// Abandoned says whether err means that the caller of the request in ctx went away
// before its answer: nothing of keyroll has failed then.
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

// RetryAfter returns the longest time for which anybody in err's tree asked to
// be left alone.
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

// Public returns what of err may leave the process: its code, its text with
// the context that callers added, and its hint. The text of an internal error
// is replaced by a fixed sentence.
func Public(err error) (code api.Code, detail, hint string) {
	var e *Error
	if !errors.As(err, &e) || e.Code == api.Internal {
		return api.Internal, "keyroll failed; its log names the cause under this request's id", ""
	}
	return e.Code, err.Error(), e.Hint
}
