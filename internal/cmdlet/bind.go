package cmdlet

import (
	"slices"
	"sort"
	"strings"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// binding maps arguments to parameters. It depends only on the text, so every
// command is bound before the first one runs.
type binding struct {
	cmdlet *Cmdlet
	pos    syntax.Position
	args   []boundArgument
}

// boundArgument is a parameter with its value; a switch without a value has none.
type boundArgument struct {
	param *Param
	value syntax.Expression
	pos   syntax.Position
}

func (b *binding) find(p *Param) *boundArgument {
	for i := range b.args {
		if b.args[i].param == p {
			return &b.args[i]
		}
	}
	return nil
}

// bind finds the cmdlet and assigns each argument to a parameter. piped says that
// the command gets input from a pipeline.
func bind(table []*Cmdlet, command *syntax.Command, piped bool) (*binding, error) {
	c := find(table, command.Name)
	if c == nil {
		var names []string
		for _, known := range table {
			names = append(names, known.names()...)
		}
		err := fail.New(api.SyntaxError, "is not a cmdlet")
		err = suggest(err, "", command.Name, names)
		if err.Hint == "" {
			err = err.WithHint("Get-Command lists the cmdlets")
		}
		return nil, withPosition(command.Name, command.Pos(), err)
	}
	b := &binding{cmdlet: c, pos: command.Pos()}
	if piped && !c.takesPipeline() {
		return nil, withPosition(c.Name, command.Pos(), fail.New(api.SyntaxError, "does not accept input from a pipeline"))
	}
	positional, err := b.bindNamed(command.Arguments)
	if err != nil {
		return nil, err
	}
	if err := b.bindPositional(positional); err != nil {
		return nil, err
	}
	return b, b.checkMandatory(piped)
}

// bindNamed binds the arguments that name a parameter and returns the others.
func (b *binding) bindNamed(arguments []syntax.Argument) (rest []syntax.Argument, err error) {
	for i := 0; i < len(arguments); i++ {
		a := arguments[i]
		if a.Parameter == "" {
			rest = append(rest, a)
			continue
		}
		p, err := b.cmdlet.parameter(a.Parameter)
		if err != nil {
			return nil, withPosition(b.cmdlet.Name, a.Pos(), err)
		}
		if b.find(p) != nil {
			return nil, withPosition(b.cmdlet.Name, a.Pos(), fail.New(api.SyntaxError, "-%s is given twice", p.Name))
		}
		bound := boundArgument{param: p, value: a.Value, pos: a.Pos()}
		if bound.value == nil && p.Type != Switch {
			if i+1 == len(arguments) || arguments[i+1].Parameter != "" {
				return nil, withPosition(b.cmdlet.Name, a.Pos(), fail.New(api.SyntaxError, "-%s needs a value", p.Name))
			}
			i++
			bound.value = arguments[i].Value
		}
		b.args = append(b.args, bound)
	}
	return rest, nil
}

// parameter finds a parameter by its name, an alias or an unambiguous beginning.
func (c *Cmdlet) parameter(name string) (*Param, error) {
	var fit, all []string
	var found *Param
	for i := range c.Params {
		p := &c.Params[i]
		all = append(all, p.Name)
		begins := false
		for _, n := range append([]string{p.Name}, p.Aliases...) {
			if strings.EqualFold(n, name) {
				return p, nil
			}
			begins = begins || len(n) > len(name) && strings.EqualFold(n[:len(name)], name)
		}
		if begins {
			fit, found = append(fit, "-"+p.Name), p
		}
	}
	switch len(fit) {
	case 1:
		return found, nil
	case 0:
		err := suggest(fail.New(api.SyntaxError, "has no parameter -%s", name), "-", name, all)
		if err.Hint == "" {
			err = err.WithHint("Get-Help %s shows its parameters", c.Name)
		}
		return nil, err
	}
	return nil, fail.New(api.SyntaxError, "-%s is ambiguous: it may be any of %s", name, strings.Join(fit, ", ")).WithHint("write more of the name")
}

// candidates returns the parameter sets that have all the parameters bound so far.
func (b *binding) candidates() []string {
	var sets []string
	for _, set := range b.cmdlet.parameterSets() {
		if !slices.ContainsFunc(b.args, func(a boundArgument) bool { return !a.param.in(set) }) {
			sets = append(sets, set)
		}
	}
	return sets
}

// bindPositional binds the arguments without a name in the order of the positions.
func (b *binding) bindPositional(arguments []syntax.Argument) error {
	sets := b.candidates()
	var free []*Param
	for i := range b.cmdlet.Params {
		p := &b.cmdlet.Params[i]
		if p.Position > 0 && b.find(p) == nil && slices.ContainsFunc(sets, p.in) {
			free = append(free, p)
		}
	}
	sort.SliceStable(free, func(i, j int) bool { return free[i].Position < free[j].Position })
	for i, a := range arguments {
		if i >= len(free) {
			return withPosition(b.cmdlet.Name, a.Pos(), fail.New(api.SyntaxError, "has no parameter for a further argument by position").
				WithHint("Get-Help %s shows its parameters", b.cmdlet.Name))
		}
		b.args = append(b.args, boundArgument{param: free[i], value: a.Value, pos: a.Pos()})
	}
	if len(b.candidates()) > 0 {
		return nil
	}
	// The error names two that exclude each other.
	last := b.args[len(b.args)-1]
	for _, a := range b.args {
		for _, other := range b.args {
			if !slices.ContainsFunc(b.cmdlet.parameterSets(), func(set string) bool { return a.param.in(set) && other.param.in(set) }) {
				return withPosition(b.cmdlet.Name, other.pos, fail.New(api.SyntaxError, "-%s and -%s cannot be used together", a.param.Name, other.param.Name))
			}
		}
	}
	return withPosition(b.cmdlet.Name, last.pos, fail.New(api.SyntaxError, "these parameters cannot be used together"))
}

// checkMandatory checks that one parameter set has all its mandatory parameters.
func (b *binding) checkMandatory(piped bool) error {
	var least []string
	for i, set := range b.candidates() {
		var missing []string
		for j := range b.cmdlet.Params {
			p := &b.cmdlet.Params[j]
			if p.Mandatory && p.in(set) && b.find(p) == nil && !(piped && (p.Piped || p.PipedText)) {
				missing = append(missing, "-"+p.Name)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		if i == 0 || len(missing) < len(least) {
			least = missing
		}
	}
	return withPosition(b.cmdlet.Name, b.pos, fail.New(api.SyntaxError, "needs %s", strings.Join(least, ", ")).
		WithHint("Get-Help %s shows its parameters", b.cmdlet.Name))
}
