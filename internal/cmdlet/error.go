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

// located is an error with the cmdlet that met it and its place in the text.
type located struct {
	what string
	pos  syntax.Position
	err  error
}

func (l *located) Error() string { return fmt.Sprintf("%s: %s: %v", l.what, l.pos, l.err) }
func (l *located) Unwrap() error { return l.err }

// enough ends the commands of one pipeline that come before the one that has
// all it needs. Each pipeline has its own, known by its address.
type enough struct{ _ byte }

func (*enough) Error() string { return "the pipeline has enough" }

// at gives an error its place, unless it has one.
func at(what string, pos syntax.Position, err error) error {
	var l *located
	var e *enough
	if err == nil || errors.As(err, &l) || errors.As(err, &e) {
		return err
	}
	return &located{what, pos, err}
}

// public turns what a run met into the one error type of keyroll. An error
// without a code stays as it is, for the edge to log.
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
	fmt.Fprintln(w, shown(err.Error()))
	if f := (*fail.Error)(nil); errors.As(err, &f) && f.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", shown(f.Hint))
	}
}
