package cmdlet

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// filterWords matches the words of a filter: a quoted text, an operator, a variable,
// a number, or the name of a property.
var filterWords = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`'(?:[^']|'')*'|"[^"]*"|-[A-Za-z]+|\$\w+|\d[\w.]*|[A-Za-z_]\w*`)
})

// filter parses Exchange's filter language: conditions of the shell in which a
// property has no $_. before it. An empty text accepts everything.
func (s *session) filter(text string, properties []string) (fits func(context.Context, *Object) (bool, error), err error) {
	if text == "" {
		return func(context.Context, *Object) (bool, error) { return true, nil }, nil
	}
	wrong := func(format string, args ...any) error {
		return invalid("-Filter %.200q is not a valid condition: %s", text, fmt.Sprintf(format, args...)).
			WithHint(`write it as "DataEncryptionPolicy -eq 'CN=NAME%s'"`, under)
	}
	var unknown *fail.Error
	condition := filterWords().ReplaceAllStringFunc(text, func(word string) string {
		if strings.ContainsAny(word[:1], `'"-$0123456789`) {
			return word
		}
		if _, ok := (&Object{Properties: emptyProperties(properties)}).Get(word); !ok && unknown == nil {
			unknown = suggest(invalid("-Filter uses %q, which is not a property that it supports", word), "", word, properties)
		}
		return "$_." + word
	})
	if unknown != nil {
		return nil, unknown
	}
	script, err := syntax.Parse(condition)
	if refused := (*syntax.Error)(nil); errors.As(err, &refused) {
		return nil, wrong("%s", refused.Message)
	}
	if len(script.Statements) != 1 {
		return nil, wrong("it has %d statements", len(script.Statements))
	}
	pipeline, ok := script.Statements[0].(*syntax.Pipeline)
	if !ok || len(pipeline.Elements) != 1 {
		return nil, wrong("it is a pipeline")
	}
	evaluation, ok := pipeline.Elements[0].(*syntax.Evaluation)
	if !ok || hasCommand(evaluation.Expression) {
		return nil, wrong("it is a command")
	}
	return func(ctx context.Context, o *Object) (bool, error) {
		v, err := s.eval(ctx, scope{o}, evaluation.Expression)
		return truth(plainValue(v)), err
	}, nil
}

// emptyProperties returns properties with these names and without values.
func emptyProperties(names []string) (all []Property) {
	for _, n := range names {
		all = append(all, Property{Name: n})
	}
	return all
}

// hasCommand reports whether e runs a command or has a form that a condition may not
// have. A group, ( … ), is allowed.
func hasCommand(e syntax.Expression) bool {
	switch e := e.(type) {
	case *syntax.Binary:
		return hasCommand(e.Left) || hasCommand(e.Right)
	case *syntax.Not:
		return hasCommand(e.Operand)
	case *syntax.Group:
		if len(e.Pipeline.Elements) != 1 {
			return true
		}
		inner, ok := e.Pipeline.Elements[0].(*syntax.Evaluation)
		return !ok || hasCommand(inner.Expression)
	case *syntax.Member:
		return hasCommand(e.Of)
	case *syntax.Text, *syntax.Number, *syntax.Variable:
		return false
	}
	return true
}
