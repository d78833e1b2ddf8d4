package syntax

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Parse reads a whole text. Its error is always an *Error.
func Parse(text string) (*Script, error) {
	if len(text) > MaxText {
		return nil, &Error{Position: Position{1, 1}, Message: fmt.Sprintf("expected a text of at most %d bytes, found %d", MaxText, len(text))}
	}
	p := &parser{lexer: newLexer(text)}
	for i, r := range p.text {
		if r == utf8.RuneError && !strings.HasPrefix(p.text[i:], "\ufffd") {
			return nil, p.fail(i, "expected text in UTF-8, found the byte 0x%02x", p.text[i])
		}
		if r == 0 {
			return nil, p.fail(i, "expected text, found a NUL character")
		}
	}
	statements, err := p.statements(end, 0)
	if err != nil {
		return nil, err
	}
	return &Script{statements}, nil
}

type parser struct {
	*lexer
	offset int // behind the last token taken
	depth  int
}

func (p *parser) peek(m mode) (token, error) { return p.scan(p.offset, m) }

func (p *parser) take(t token) { p.offset = t.end }

// skipLines skips line ends too.
func (p *parser) skipLines() error {
	for {
		offset, err := p.skip(p.offset)
		if err != nil {
			return err
		}
		p.offset = offset
		if p.at(offset) != '\n' {
			return nil
		}
		p.offset++
	}
}

// next skips to the next token and returns its first character.
func (p *parser) next() (rune, error) {
	offset, err := p.skip(p.offset)
	if err != nil {
		return 0, err
	}
	p.offset = offset
	return p.at(offset), nil
}

// found describes a token in an error.
func (p *parser) found(t token) string {
	switch t.kind {
	case end:
		return "the end of the text"
	case newline:
		return "the end of the line"
	}
	s, _, cut := strings.Cut(p.text[t.start:t.end], "\n")
	if runes := []rune(s); len(runes) > 40 {
		s, cut = string(runes[:40]), true
	}
	if cut {
		s += "…"
	}
	return s
}

// expected is the error of a token that does not fit. At the end of the text
// more may follow.
func (p *parser) expected(what string, t token) error {
	err := p.fail(t.start, "expected %s, found %s", what, p.found(t))
	err.Incomplete = t.kind == end
	return err
}

// here is the next token, or the one character where there is none.
func (p *parser) here() token {
	if t, err := p.peek(expression); err == nil {
		return t
	}
	return token{kind: word, start: p.offset, end: p.offset + utf8.RuneLen(p.at(p.offset))}
}

// nest runs f one bracket deeper.
func (p *parser) nest(opened int, f func() error) error {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return p.fail(opened, "expected at most %d brackets inside each other", maxDepth)
	}
	return f()
}

// closing describes the bracket that closes the one at opened.
func (p *parser) closing(k kind, opened int) string {
	sign, opening := ")", p.text[opened:opened+1]
	if k == closeBrace {
		sign = "}"
	}
	if opening == "@" {
		opening = "@("
	}
	return fmt.Sprintf("%s to close the %s at %s", sign, opening, p.position(opened))
}

// close takes the bracket that closes the one at opened.
func (p *parser) close(k kind, opened int) error {
	if _, err := p.next(); err != nil {
		return err
	}
	t := p.here()
	if t.kind != k {
		return p.expected(p.closing(k, opened), t)
	}
	p.take(t)
	return nil
}

// statements reads statements up to the closing token, which it takes.
func (p *parser) statements(closing kind, opened int) ([]Statement, error) {
	var all []Statement
	for {
		r, err := p.next()
		switch {
		case err != nil:
			return nil, err
		case r == '\n', r == ';':
			p.offset++
			continue
		case p.offset == len(p.text) && closing == end:
			return all, nil
		case p.offset == len(p.text), closing != end && (r == ')' || r == '}'):
			return all, p.close(closing, opened)
		}
		s, err := p.statement()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		if err := p.endOfStatement(closing, opened); err != nil {
			return nil, err
		}
	}
}

func (p *parser) endOfStatement(closing kind, opened int) error {
	r, err := p.next()
	if err != nil {
		return err
	}
	if p.offset == len(p.text) || r == '\n' || r == ';' || closing != end && (r == ')' || r == '}') {
		return nil
	}
	t, err := p.peek(expression)
	if err != nil {
		return err
	}
	what := "| or the end of the statement"
	if closing != end {
		what += " or " + p.closing(closing, opened)
	}
	return p.expected(what, t)
}

// statement reads an assignment or a pipeline.
func (p *parser) statement() (Statement, error) {
	if p.at(p.offset) != '$' {
		return p.pipeline()
	}
	target, err := p.peek(expression)
	if err != nil {
		return nil, err
	}
	after, err := p.skip(target.end)
	if err != nil {
		return nil, err
	}
	if p.at(after) != '=' {
		return p.pipeline()
	}
	if slices.Contains([]string{"true", "false", "null", "_"}, strings.ToLower(target.name)) {
		return nil, p.fail(target.start, "expected a variable that can be set, found $%s", target.name)
	}
	p.offset = after + 1
	if err := p.skipLines(); err != nil {
		return nil, err
	}
	value, err := p.pipeline()
	if err != nil {
		return nil, err
	}
	return &Assignment{Position: p.position(target.start), Name: target.name, Value: value}, nil
}

// pipeline reads elements joined by |. A line may end after a |, and one that
// begins with a | goes on with the pipeline of the lines before it, whatever empty
// lines and comments are between (about_Pipelines of PowerShell 7).
func (p *parser) pipeline() (*Pipeline, error) {
	if _, err := p.next(); err != nil {
		return nil, err
	}
	pl := &Pipeline{Position: p.position(p.offset)}
	for {
		e, err := p.element(len(pl.Elements) == 0)
		if err != nil {
			return nil, err
		}
		pl.Elements = append(pl.Elements, e)
		more, err := p.pipeFollows()
		if err != nil || !more {
			return pl, err
		}
		t, err := p.peek(expression)
		if err != nil {
			return nil, err
		}
		p.take(t)
		if err := p.skipLines(); err != nil {
			return nil, err
		}
	}
}

// pipeFollows goes to the | that comes next, maybe on a later line. If there is
// none it stays on the line.
func (p *parser) pipeFollows() (bool, error) {
	if r, err := p.next(); err != nil || r != '\n' {
		return r == '|', err
	}
	line := p.offset
	if err := p.skipLines(); err != nil {
		return false, err
	}
	if p.at(p.offset) == '|' {
		return true, nil
	}
	p.offset = line
	return false, nil
}

// keywords of PowerShell that would begin a statement which is not in the subset.
var keywords = strings.Fields("begin break catch class continue data do dynamicparam else elseif end enum exit filter finally " +
	"for foreach from function if in param process return switch throw trap try until using var while workflow")

// element reads a command, or, as the first of a pipeline, an expression.
func (p *parser) element(first bool) (Element, error) {
	r, err := p.next()
	if err != nil {
		return nil, err
	}
	startsValue := r != 0 && strings.ContainsRune("$(@!", r) || isSingleQuote(r) || isDoubleQuote(r) || isDash(r) || unicode.IsDigit(r)
	switch {
	case unicode.IsLetter(r), r == '%', r == '?':
		return p.command(first)
	case first && startsValue:
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		return &Evaluation{Position: e.Pos(), Expression: e}, nil
	case first:
		return nil, p.expected("the name of a cmdlet or a value", p.here())
	}
	return nil, p.expected("the name of a cmdlet", p.here())
}

func (p *parser) command(first bool) (Element, error) {
	t, err := p.scan(p.offset, argument)
	if err != nil {
		return nil, err
	}
	name, literal := (&Text{Parts: t.parts}).Literal()
	name = strings.Map(func(r rune) rune {
		if isDash(r) {
			return '-'
		}
		return r
	}, name)
	valid := literal && strings.IndexFunc(name, func(r rune) bool { return !isName(r) && r != '-' }) < 0
	if !valid && name != "%" && name != "?" {
		return nil, p.expected("the name of a cmdlet", t)
	}
	if first && slices.Contains(keywords, strings.ToLower(name)) {
		err := p.fail(t.start, "%s is not part of the language: expected the name of a cmdlet or an assignment", name)
		err.Hint = "the statements are cmdlet calls, pipelines and assignments; Where-Object and ForEach-Object select and repeat"
		return nil, err
	}
	p.take(t)
	c := &Command{Position: p.position(t.start), Name: name}
	for {
		t, err := p.peek(argument)
		if err != nil {
			return nil, err
		}
		arg := Argument{Position: p.position(t.start)}
		switch t.kind {
		case newline:
			if !p.goesOn(t.end) {
				return c, nil
			}
			p.take(t)
			continue
		case end, semicolon, pipe, closeParen, closeBrace:
			return c, nil
		case comma:
			return nil, p.expected("an argument before the comma", t)
		case parameter:
			p.take(t)
			arg.Parameter = t.name
			if t.colon {
				if arg.Value, err = p.list(argument); err != nil {
					return nil, err
				}
			}
		default:
			if arg.Value, err = p.list(argument); err != nil {
				return nil, err
			}
		}
		c.Arguments = append(c.Arguments, arg)
	}
}

// goesOn reports whether the line that begins at offset continues the command before
// it: its first word is a parameter. The documentation breaks lines like this, without
// a backtick, and no statement begins with a parameter.
func (p *parser) goesOn(offset int) bool {
	for isSpace(p.at(offset)) {
		offset += utf8.RuneLen(p.at(offset))
	}
	r := p.at(offset)
	if !isDash(r) {
		return false
	}
	offset += utf8.RuneLen(r)
	from := offset
	for isName(p.at(offset)) {
		offset += utf8.RuneLen(p.at(offset))
	}
	return unicode.IsLetter(p.at(from)) && !strings.EqualFold(p.text[from:offset], "not")
}
