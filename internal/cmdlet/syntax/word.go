package syntax

import (
	"strings"
	"unicode/utf8"
)

// collector puts the parts of a text together.
type collector struct {
	lx      *lexer
	parts   []Part
	literal strings.Builder
	start   int // of the literal
}

func (c *collector) add(offset int, s string) {
	if c.literal.Len() == 0 {
		c.start = offset
	}
	c.literal.WriteString(s)
}

func (c *collector) flush() []Part {
	if c.literal.Len() > 0 {
		c.parts = append(c.parts, Part{Position: c.lx.position(c.start), Literal: c.literal.String()})
		c.literal.Reset()
	}
	return c.parts
}

// variable takes $name at offset if there is one and returns the offset behind.
func (c *collector) variable(offset int) (int, error) {
	if c.lx.at(offset+1) == '(' {
		err := c.lx.fail(offset, "$( … ) is not part of the language: expected the name of a variable after $")
		err.Hint = "assign the value to a variable first, or write `$ for a dollar sign"
		return 0, err
	}
	name, after, err := c.lx.variable(offset)
	if err != nil {
		return 0, err
	}
	if name == "" {
		c.add(offset, "$")
		return offset + 1, nil
	}
	c.flush()
	c.parts = append(c.parts, Part{Position: c.lx.position(offset), Variable: name})
	return after, nil
}

// escape takes the character behind a backtick (about_Special_Characters).
func (c *collector) escape(offset int) (int, error) {
	r := c.lx.at(offset + 1)
	switch {
	case offset+1 == len(c.lx.text):
		err := c.lx.fail(offset, "expected a character after the backtick, found the end of the text")
		err.Incomplete = true
		return 0, err
	case r == 'n':
		c.add(offset, "\n")
	case r == 'r':
		c.add(offset, "\r")
	case r == 't':
		c.add(offset, "\t")
	case isName(r):
		return 0, c.lx.fail(offset, "expected `n, `r, `t or a sign after the backtick, found %q", r)
	default:
		c.add(offset, string(r))
	}
	return offset + 1 + utf8.RuneLen(r), nil
}

// quoted reads a string at its opening quote. A doubled quote stands for itself.
func (lx *lexer) quoted(start int) (token, error) {
	opening := lx.at(start)
	closes, expands := isSingleQuote, false
	if isDoubleQuote(opening) {
		closes, expands = isDoubleQuote, true
	}
	c := collector{lx: lx}
	offset := start + utf8.RuneLen(opening)
	for offset < len(lx.text) {
		r := lx.at(offset)
		after := offset + utf8.RuneLen(r)
		var err error
		switch {
		case closes(r) && closes(lx.at(after)):
			c.add(offset, string(r))
			after += utf8.RuneLen(lx.at(after))
		case closes(r):
			return token{kind: text, start: start, end: after, parts: c.flush()}, nil
		case expands && r == '$':
			after, err = c.variable(offset)
		case expands && r == '`':
			after, err = c.escape(offset)
		default:
			c.add(offset, string(r))
		}
		if err != nil {
			return token{}, err
		}
		offset = after
	}
	err := lx.fail(start, "the string that begins here is not closed: expected %c", opening)
	err.Incomplete = true
	return token{}, err
}

// bare reads an argument without quotes; one that looks like a number is one.
func (lx *lexer) bare(start int) (token, error) {
	c := collector{lx: lx}
	offset := start
	for !isDelimiter(lx.at(offset)) {
		r := lx.at(offset)
		after := offset + utf8.RuneLen(r)
		var err error
		switch {
		case isSingleQuote(r), isDoubleQuote(r):
			err := lx.fail(offset, "expected a space before the string that begins with %c", r)
			err.Hint = "put the whole argument in quotes"
			return token{}, err
		case r == '$':
			after, err = c.variable(offset)
		case lx.has(offset, "`\n"):
			err = lx.fail(offset, "expected a space before the backtick that continues the line")
		case r == '`':
			after, err = c.escape(offset)
		default:
			c.add(offset, string(r))
		}
		if err != nil {
			return token{}, err
		}
		offset = after
	}
	if offset == start {
		return token{}, lx.fail(start, "expected an argument, found %q", lx.at(start))
	}
	t := token{kind: word, start: start, end: offset, parts: c.flush()}
	if value, ok := parseNumber(lx.text[start:offset]); ok {
		t.kind, t.value = number, value
	}
	return t, nil
}
