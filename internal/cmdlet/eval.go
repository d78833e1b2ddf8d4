package cmdlet

import (
	"context"
	"strings"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// session is the state that statements share: options, variables and bindings.
type session struct {
	Options
	table     []*Cmdlet
	variables map[string]any // by name in lower case
	bindings  map[*syntax.Command]*binding

	subscription string    // selected by Set-AzContext; empty means the default one
	requests     []*Object // onboarding requests made in this shell
}

// scope is the context of an expression: item is the value of $_.
type scope struct{ item any }

func (s *session) statements(ctx context.Context, in scope, statements []syntax.Statement, emit func(any) error) error {
	for _, st := range statements {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch st := st.(type) {
		case *syntax.Assignment:
			v, err := s.collect(ctx, in, st.Value)
			if err != nil {
				return err
			}
			s.variables[strings.ToLower(st.Name)] = v
		case *syntax.Pipeline:
			if err := s.pipeline(ctx, in, st, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect runs a pipeline and returns what it emitted.
func (s *session) collect(ctx context.Context, in scope, pl *syntax.Pipeline) (any, error) {
	var all []any
	err := s.pipeline(ctx, in, pl, func(v any) error { all = append(all, v); return nil })
	return collected(all), err
}

// stage is one command of a running pipeline.
type stage struct {
	each func(any) error
	end  func() error
}

// pipeline runs the elements as a stream: each value passes through all of them
// before the next one is produced.
func (s *session) pipeline(ctx context.Context, in scope, pl *syntax.Pipeline, emit func(any) error) error {
	stop := new(pipelineStop)
	ignoreStop := func(err error) error {
		if err == error(stop) {
			return nil
		}
		return err
	}
	var stages []stage
	sink := emit
	for i := len(pl.Elements) - 1; i > 0; i-- {
		st, err := s.stage(ctx, in, pl.Elements[i].(*syntax.Command), sink, stop)
		if err != nil {
			return err
		}
		stages = append(stages, st)
		sink = st.each
	}
	if err := ignoreStop(s.runFirst(ctx, in, pl.Elements[0], sink, stop)); err != nil {
		return err
	}
	for i := len(stages) - 1; i >= 0; i-- {
		if err := ignoreStop(stages[i].end()); err != nil {
			return err
		}
	}
	return nil
}

// runFirst runs the first element of a pipeline.
func (s *session) runFirst(ctx context.Context, in scope, e syntax.Element, emit func(any) error, stop error) error {
	if evaluation, ok := e.(*syntax.Evaluation); ok {
		v, err := s.eval(ctx, in, evaluation.Expression)
		if err != nil {
			return err
		}
		return each(plainValue(v), emit)
	}
	command := e.(*syntax.Command)
	call, err := s.call(ctx, in, command, emit, stop)
	if err != nil {
		return err
	}
	if call.cmdlet.Pipe == nil {
		return withPosition(call.cmdlet.Name, command.Pos(), call.act(ctx))
	}
	_, end, err := call.cmdlet.Pipe(ctx, call)
	if err == nil {
		err = end()
	}
	return withPosition(call.cmdlet.Name, command.Pos(), err)
}

// stage prepares a command that gets input from the pipeline.
func (s *session) stage(ctx context.Context, in scope, command *syntax.Command, emit func(any) error, stop error) (stage, error) {
	call, err := s.call(ctx, in, command, emit, stop)
	if err != nil {
		return stage{}, err
	}
	locate := func(err error) error { return withPosition(call.cmdlet.Name, command.Pos(), err) }
	if call.cmdlet.Pipe != nil {
		each, end, err := call.cmdlet.Pipe(ctx, call)
		if err != nil {
			return stage{}, locate(err)
		}
		return stage{
			each: func(v any) error { return locate(each(v)) },
			end:  func() error { return locate(end()) },
		}, nil
	}
	return stage{
		each: func(v any) error {
			one := *call
			var err error
			if one.args, err = call.argsFrom(v); err == nil {
				err = one.act(ctx)
			}
			return locate(err)
		},
		end: func() error { return nil },
	}, nil
}

// call evaluates and converts the arguments of a command.
func (s *session) call(ctx context.Context, in scope, command *syntax.Command, emit func(any) error, stop error) (*Call, error) {
	b := s.bindings[command]
	c := &Call{session: s, cmdlet: b.cmdlet, scope: in, args: map[string]any{}, emit: emit, stop: stop}
	for _, a := range b.args {
		if a.value == nil {
			c.args[a.param.Name] = true
			continue
		}
		v, err := s.eval(ctx, in, a.value)
		if err != nil {
			return nil, err
		}
		converted, err := a.param.convert(v)
		if err != nil {
			return nil, withPosition(b.cmdlet.Name, a.value.Pos(), err)
		}
		c.args[a.param.Name] = converted
	}
	return c, nil
}

// argsFrom returns the arguments, completed from a value of the pipeline.
func (c *Call) argsFrom(v any) (map[string]any, error) {
	args := map[string]any{}
	for name, value := range c.args {
		args[name] = value
	}
	o, isObject := v.(*Object)
	var wanted []string
	for i := range c.cmdlet.Params {
		p := &c.cmdlet.Params[i]
		if c.has(p.Name) || !p.Piped && !p.PipedText {
			continue
		}
		wanted = append(wanted, p.Name)
		value, ok := v, !isObject && p.PipedText
		if isObject && p.Piped {
			for _, name := range append([]string{p.Name}, p.Aliases...) {
				if value, ok = o.Get(name); ok {
					break
				}
			}
		}
		if !ok || value == nil {
			if p.Mandatory {
				return nil, fail.New(api.InvalidArgument, "the input from the pipeline has no value for -%s", p.Name)
			}
			continue
		}
		converted, err := p.convert(value)
		if err != nil {
			return nil, err
		}
		args[p.Name] = converted
	}
	if len(args) == len(c.args) && len(wanted) > 0 {
		return nil, fail.New(api.InvalidArgument, "the input from the pipeline has no value for -%s", strings.Join(wanted, " or -"))
	}
	return args, nil
}

// eval returns the value of an expression.
func (s *session) eval(ctx context.Context, in scope, e syntax.Expression) (any, error) {
	switch e := e.(type) {
	case *syntax.Text:
		var b strings.Builder
		for _, part := range e.Parts {
			if part.Variable == "" {
				b.WriteString(part.Literal)
				continue
			}
			v, err := s.variable(in, part.Pos(), part.Variable)
			if err != nil {
				return nil, err
			}
			b.WriteString(inText(v))
		}
		return b.String(), nil
	case *syntax.Number:
		return numeral{e.Value, e.Written}, nil
	case *syntax.Variable:
		return s.variable(in, e.Pos(), e.Name)
	case *syntax.Member:
		of, err := s.eval(ctx, in, e.Of)
		if err != nil {
			return nil, err
		}
		return member(of, e.Name), nil
	case *syntax.List:
		return s.list(ctx, in, e.Items)
	case *syntax.Array:
		all := []any{}
		err := s.statements(ctx, in, e.Statements, func(v any) error { all = append(all, v); return nil })
		return all, err
	case *syntax.Group:
		return s.collect(ctx, in, e.Pipeline)
	case *syntax.Block:
		return e, nil
	case *syntax.Not:
		v, err := s.eval(ctx, in, e.Operand)
		return !truth(plainValue(v)), err
	case *syntax.Binary:
		return s.binary(ctx, in, e)
	}
	panic("cmdlet: no such expression")
}

func (s *session) list(ctx context.Context, in scope, items []syntax.Expression) (any, error) {
	all := []any{}
	for _, item := range items {
		v, err := s.eval(ctx, in, item)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func (s *session) binary(ctx context.Context, in scope, e *syntax.Binary) (any, error) {
	left, err := s.eval(ctx, in, e.Left)
	if err != nil {
		return nil, err
	}
	left = plainValue(left)
	if e.Operator == "and" && !truth(left) || e.Operator == "or" && truth(left) {
		return e.Operator == "or", nil
	}
	right, err := s.eval(ctx, in, e.Right)
	if err != nil {
		return nil, err
	}
	right = plainValue(right)
	if e.Operator == "and" || e.Operator == "or" {
		return truth(right), nil
	}
	v, err := compare(e.Operator, left, right)
	return v, withPosition("-"+e.Operator, e.Pos(), err)
}

func (s *session) variable(in scope, pos syntax.Position, name string) (any, error) {
	switch lower := strings.ToLower(name); lower {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	case "_":
		return in.item, nil
	default:
		v, ok := s.variables[lower]
		if !ok { // set only in a block that did not run
			return nil, withPosition("$"+name, pos, fail.New(api.InvalidArgument, "has not been set"))
		}
		return v, nil
	}
}

// member returns a property of a value: for an array the property of each of its
// items, for a value without such a property $null.
func member(v any, name string) any {
	switch v := v.(type) {
	case *Object:
		value, ok := v.Get(name)
		if ok {
			return value
		}
	case []any:
		if strings.EqualFold(name, "Count") || strings.EqualFold(name, "Length") {
			return int64(len(v))
		}
		var all []any
		for _, item := range v {
			if value := member(item, name); value != nil {
				all = append(all, value)
			}
		}
		return collected(all)
	case string:
		if strings.EqualFold(name, "Length") {
			return int64(len([]rune(v)))
		}
	}
	if strings.EqualFold(name, "Count") {
		if v == nil {
			return int64(0)
		}
		return int64(1)
	}
	return nil
}
