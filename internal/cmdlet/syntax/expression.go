package syntax

import (
	"slices"
	"unicode/utf8"
)

// expression reads comparisons joined by -and and -or, which bind equally
// (about_Operator_Precedence), from left to right.
func (p *parser) expression() (Expression, error) {
	return p.binary(p.comparison, "and", "or")
}

func (p *parser) comparison() (Expression, error) {
	return p.binary(p.unary, "eq", "ne", "gt", "ge", "lt", "le", "like", "notlike", "contains", "in")
}

// binary reads operands joined by any of the operators.
func (p *parser) binary(operand func() (Expression, error), operators ...string) (Expression, error) {
	left, err := operand()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		if r, err := p.next(); err != nil || !isDash(r) {
			return left, err
		}
		t, err := p.peek(expression)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(operators, t.name) {
			return left, nil
		}
		if n == maxChain {
			return nil, p.fail(t.start, "expected at most %d operators in a row", maxChain)
		}
		p.take(t)
		if err := p.skipLines(); err != nil {
			return nil, err
		}
		right, err := operand()
		if err != nil {
			return nil, err
		}
		left = &Binary{Position: p.position(t.start), Operator: t.name, Left: left, Right: right}
	}
}

func (p *parser) unary() (Expression, error) {
	t, err := p.peek(expression)
	if err != nil {
		return nil, err
	}
	if t.kind != bang && !(t.kind == operator && t.name == "not") {
		return p.list(expression)
	}
	p.take(t)
	not := &Not{Position: p.position(t.start)}
	err = p.nest(t.start, func() (err error) {
		not.Operand, err = p.unary()
		return err
	})
	return not, err
}

// list reads values joined by commas. A line may end after a comma.
func (p *parser) list(m mode) (Expression, error) {
	first, err := p.value(m)
	if err != nil {
		return nil, err
	}
	list := &List{Position: first.Pos(), Items: []Expression{first}}
	for {
		if r, err := p.next(); err != nil {
			return nil, err
		} else if r != ',' {
			break
		}
		p.offset++
		if err := p.skipLines(); err != nil {
			return nil, err
		}
		item, err := p.value(m)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, item)
	}
	if len(list.Items) == 1 {
		return first, nil
	}
	return list, nil
}

// value reads one value and the members after it.
func (p *parser) value(m mode) (Expression, error) {
	t, err := p.peek(m)
	if err != nil {
		return nil, err
	}
	p.take(t)
	at := p.position(t.start)
	var e Expression
	switch t.kind {
	case text, word:
		e = &Text{Position: at, Parts: t.parts}
	case number:
		return &Number{Position: at, Value: t.value, Written: p.text[t.start:t.end]}, nil
	case variable:
		e = &Variable{Position: at, Name: t.name}
	case openParen:
		group := &Group{Position: at}
		err = p.nest(t.start, func() error { return p.group(group, t.start) })
		e = group
	case openArray:
		array := &Array{Position: at}
		err = p.nest(t.start, func() (err error) {
			array.Statements, err = p.statements(closeParen, t.start)
			return err
		})
		e = array
	case openBrace:
		if m == expression {
			return nil, p.expected("a value", t)
		}
		block := &Block{Position: at}
		err = p.nest(t.start, func() (err error) {
			block.Statements, err = p.statements(closeBrace, t.start)
			return err
		})
		return block, err
	default:
		return nil, p.expected("a value", t)
	}
	if err != nil {
		return nil, err
	}
	if t.kind != word {
		e, err = p.members(e)
	}
	if err == nil && m == argument {
		err = p.separated(t)
	}
	return e, err
}

func (p *parser) group(g *Group, opened int) (err error) {
	if err := p.skipLines(); err != nil {
		return err
	}
	if g.Pipeline, err = p.pipeline(); err != nil {
		return err
	}
	if err := p.skipLines(); err != nil {
		return err
	}
	return p.close(closeParen, opened)
}

// members reads .Name as often as it follows without a space.
func (p *parser) members(e Expression) (Expression, error) {
	for n := 0; p.at(p.offset) == '.'; n++ {
		if n == maxChain {
			return nil, p.fail(p.offset, "expected at most %d properties in a row", maxChain)
		}
		at, from := p.offset, p.offset+1
		after := from
		for isName(p.at(after)) {
			after += utf8.RuneLen(p.at(after))
		}
		if after == from {
			return nil, p.fail(at, "expected the name of a property after the dot")
		}
		p.offset = after
		e = &Member{Position: e.Pos(), Of: e, Name: p.text[from:after]}
		if p.at(after) == '(' {
			return nil, p.fail(after, "methods are not part of the language: expected the end of the property %s", p.text[from:after])
		}
	}
	switch {
	case p.at(p.offset) == '[':
		err := p.fail(p.offset, "indexes are not part of the language: expected a property or the end of the value")
		err.Hint = "Select-Object -First 1 takes the first of several"
		return nil, err
	case p.has(p.offset, "::"):
		return nil, p.fail(p.offset, "types are not part of the language: expected a property or the end of the value")
	}
	return e, nil
}

// separated refuses an argument that goes on where its value has ended.
func (p *parser) separated(value token) error {
	if r := p.at(p.offset); !isDelimiter(r) || r == '(' || r == '{' {
		err := p.fail(p.offset, "expected a space after %s, found %q", p.found(token{kind: word, start: value.start, end: p.offset}), r)
		err.Hint = "put a text that consists of several pieces in double quotes"
		return err
	}
	return nil
}
