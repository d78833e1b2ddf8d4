package cmdlet

import (
	"context"
	"errors"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// located is an error with the name of the cmdlet that failed and its position in the text.
type located struct {
	what string
	pos  syntax.Position
	err  error
}

func (l *located) Error() string { return fmt.Sprintf("%s: %s: %v", l.what, l.pos, l.err) }
func (l *located) Unwrap() error { return l.err }

// pipelineStop is the error that ends the preceding commands of a pipeline once a
// later one needs no more input. Each pipeline has its own, identified by its address.
type pipelineStop struct{ _ byte }

func (*pipelineStop) Error() string { return "the pipeline needs no more input" }

// withPosition adds the position to an error that has none.
func withPosition(what string, pos syntax.Position, err error) error {
	var l *located
	var e *pipelineStop
	if err == nil || errors.As(err, &l) || errors.As(err, &e) {
		return err
	}
	return &located{what, pos, err}
}

// public converts an error of a run into keyroll's error type. An error without a
// code is returned as it is, for the caller to log.
func public(err error) error {
	var problem *api.Problem
	var f *fail.Error
	var s *syntax.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &s):
		return fail.New(api.SyntaxError, "ParserError: %v", s).WithHint("%s", s.Hint)
	case errors.As(err, &problem):
		e := &fail.Error{Code: problem.Code, Detail: err.Error(), Hint: problem.Hint, Err: err}
		if e.Code == api.Internal && e.Hint == "" && problem.Request != "" {
			e.Hint = "request " + problem.Request
		}
		return e
	case errors.As(err, &f):
		return &fail.Error{Code: f.Code, Detail: err.Error(), Hint: f.Hint, Err: f.Err}
	}
	return err
}

// PrintError writes an error of Run as the shell does: what failed, where, why,
// and a hint when there is one.
func PrintError(w io.Writer, err error) {
	fmt.Fprintln(w, escaped(err.Error()))
	if f := (*fail.Error)(nil); errors.As(err, &f) && f.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", escaped(f.Hint))
	}
}
