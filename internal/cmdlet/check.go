package cmdlet

import (
	"strings"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// checker checks a parsed text before it runs: cmdlets and parameters exist and fit
// together, literal values convert, variables have been set.
type checker struct {
	table    []*Cmdlet
	set      map[string]bool // variables, in lower case
	bindings map[*syntax.Command]*binding
	inBlock  bool
}

// check returns the binding of every command of the script.
func (s *session) check(script *syntax.Script) (map[*syntax.Command]*binding, error) {
	c := &checker{table: s.table, set: map[string]bool{}, bindings: map[*syntax.Command]*binding{}}
	for name := range s.variables {
		c.set[name] = true
	}
	return c.bindings, c.statements(script.Statements)
}

func (c *checker) statements(statements []syntax.Statement) error {
	for _, s := range statements {
		switch s := s.(type) {
		case *syntax.Assignment:
			if err := c.pipeline(s.Value); err != nil {
				return err
			}
			c.set[strings.ToLower(s.Name)] = true
		case *syntax.Pipeline:
			if err := c.pipeline(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) pipeline(pl *syntax.Pipeline) error {
	for i, e := range pl.Elements {
		switch e := e.(type) {
		case *syntax.Evaluation:
			if err := c.expression(e.Expression); err != nil {
				return err
			}
		case *syntax.Command:
			if err := c.command(e, i > 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) command(command *syntax.Command, piped bool) error {
	b, err := bind(c.table, command, piped)
	if err != nil {
		return err
	}
	c.bindings[command] = b
	for _, a := range b.args {
		if a.value == nil {
			continue
		}
		if err := c.expression(a.value); err != nil {
			return err
		}
		if v, ok := constant(a.value); ok {
			if _, err := a.param.convert(v); err != nil {
				return withPosition(b.cmdlet.Name, a.value.Pos(), err)
			}
		}
	}
	return nil
}

func (c *checker) expression(e syntax.Expression) error {
	switch e := e.(type) {
	case *syntax.Text:
		for _, part := range e.Parts {
			if part.Variable != "" {
				if err := c.variable(part.Pos(), part.Variable); err != nil {
					return err
				}
			}
		}
	case *syntax.Variable:
		return c.variable(e.Pos(), e.Name)
	case *syntax.Member:
		return c.expression(e.Of)
	case *syntax.List:
		for _, item := range e.Items {
			if err := c.expression(item); err != nil {
				return err
			}
		}
	case *syntax.Array:
		return c.statements(e.Statements)
	case *syntax.Group:
		return c.pipeline(e.Pipeline)
	case *syntax.Block:
		outer := c.inBlock
		c.inBlock = true
		err := c.statements(e.Statements)
		c.inBlock = outer
		return err
	case *syntax.Binary:
		if err := c.expression(e.Left); err != nil {
			return err
		}
		return c.expression(e.Right)
	case *syntax.Not:
		return c.expression(e.Operand)
	}
	return nil
}

func (c *checker) variable(pos syntax.Position, name string) error {
	lower := strings.ToLower(name)
	switch {
	case lower == "true", lower == "false", lower == "null", c.set[lower], lower == "_" && c.inBlock:
		return nil
	case lower == "_":
		return withPosition("$_", pos, fail.New(api.SyntaxError, "has a value only in the script block of a pipeline"))
	}
	var known []string
	for n := range c.set {
		known = append(known, n)
	}
	return withPosition("$"+name, pos, suggest(fail.New(api.SyntaxError, "has not been set"), "$", name, known))
}

// constant returns the value of an expression that is a literal.
func constant(e syntax.Expression) (any, bool) {
	switch e := e.(type) {
	case *syntax.Text:
		return e.Literal()
	case *syntax.Number:
		return numeral{e.Value, e.Written}, true
	case *syntax.Block:
		return e, true
	case *syntax.Variable:
		switch strings.ToLower(e.Name) {
		case "true":
			return true, true
		case "false":
			return false, true
		case "null":
			return nil, true
		}
	case *syntax.List:
		var items []any
		for _, item := range e.Items {
			v, ok := constant(item)
			if !ok {
				return nil, false
			}
			items = append(items, v)
		}
		return items, true
	}
	return nil, false
}
