package syntax

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mode is how words are read.
type mode int

const (
	argument   mode = iota // after a cmdlet's name: a bare word is a string
	expression             // elsewhere: strings are quoted, -word is an operator
)

type kind int

const (
	end kind = iota
	newline
	semicolon
	pipe
	comma
	openParen
	closeParen
	openBrace
	closeBrace
	openArray
	assign
	bang
	operator
	parameter
	text
	word
	number
	variable
)

type token struct {
	kind       kind
	start, end int
	name       string // of a parameter, an operator or a variable
	colon      bool   // parameter: its value follows
	parts      []Part // text, word
	value      any    // number: int64 or float64
}

type lexer struct {
	text  string // lines end in \n only
	lines []int  // where each line begins
}

func newLexer(text string) *lexer {
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	lx := &lexer{text: text, lines: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			lx.lines = append(lx.lines, i+1)
		}
	}
	return lx
}

func (lx *lexer) position(offset int) Position {
	line := sort.SearchInts(lx.lines, offset+1)
	return Position{line, 1 + utf8.RuneCountInString(lx.text[lx.lines[line-1]:offset])}
}

func (lx *lexer) fail(offset int, format string, args ...any) *Error {
	return &Error{Position: lx.position(offset), Message: fmt.Sprintf(format, args...)}
}

// at returns the character at offset; 0 is the end of the text.
func (lx *lexer) at(offset int) rune {
	if offset >= len(lx.text) {
		return 0
	}
	r, _ := utf8.DecodeRuneInString(lx.text[offset:])
	return r
}

func (lx *lexer) has(offset int, prefix string) bool {
	return strings.HasPrefix(lx.text[offset:], prefix)
}

// PowerShell takes the typographic forms for the plain ones, and copies of
// documents are full of them (about_Quoting_Rules, about_Parsing).
func isSingleQuote(r rune) bool { return strings.ContainsRune("'‘’‚‛", r) && r != 0 }
func isDoubleQuote(r rune) bool { return strings.ContainsRune("\"“”„", r) && r != 0 }
func isDash(r rune) bool        { return strings.ContainsRune("-–—―", r) && r != 0 }
func isSpace(r rune) bool       { return r != '\n' && unicode.IsSpace(r) }
func isName(r rune) bool        { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// isDelimiter says that r ends a bare word.
func isDelimiter(r rune) bool {
	return r == 0 || unicode.IsSpace(r) || strings.ContainsRune("(){};,|&<>", r)
}

// skip returns the offset behind white space, comments and continued lines.
func (lx *lexer) skip(offset int) (int, error) {
	for offset < len(lx.text) {
		r := lx.at(offset)
		switch {
		case isSpace(r):
			offset += utf8.RuneLen(r)
		case lx.has(offset, "`\n"):
			offset += 2
		case r == '#':
			length := strings.IndexByte(lx.text[offset:], '\n')
			if length < 0 {
				return len(lx.text), nil
			}
			offset += length
		case lx.has(offset, "<#"):
			length := strings.Index(lx.text[offset+2:], "#>")
			if length < 0 {
				err := lx.fail(offset, "the comment that begins here is not closed: expected #>")
				err.Incomplete = true
				return offset, err
			}
			offset += length + 4
		default:
			return offset, nil
		}
	}
	return offset, nil
}

var punctuation = map[rune]kind{
	'\n': newline, ';': semicolon, ',': comma, '(': openParen, ')': closeParen, '{': openBrace, '}': closeBrace,
}

// scan reads the token at offset, behind any white space.
func (lx *lexer) scan(offset int, m mode) (token, error) {
	start, err := lx.skip(offset)
	if err != nil {
		return token{}, err
	}
	r := lx.at(start)
	if start == len(lx.text) {
		return token{kind: end, start: start, end: start}, nil
	}
	if k, ok := punctuation[r]; ok {
		return token{kind: k, start: start, end: start + 1}, nil
	}
	switch {
	case isSingleQuote(r), isDoubleQuote(r):
		return lx.quoted(start)
	case lx.has(start, "||"), lx.has(start, "&&"), r == '&':
		return token{}, lx.fail(start, "%s is not part of the language: expected | or the end of the statement", operatorAt(lx.text[start:]))
	case r == '|':
		return token{kind: pipe, start: start, end: start + 1}, nil
	case r == '<':
		err := lx.fail(start, "expected an argument, found <")
		err.Hint = "replace the text in angle brackets by a value"
		return token{}, err
	case r == '>':
		return token{}, lx.fail(start, "redirection is not part of the language: expected | or the end of the statement, found >")
	case lx.has(start, "@("):
		return token{kind: openArray, start: start, end: start + 2}, nil
	case r == '@':
		return token{}, lx.fail(start, "hash tables, here-strings and splatting are not part of the language: expected ( after @")
	case r == '$':
		return lx.dollar(start)
	case m == expression:
		return lx.inExpression(start, r)
	}
	return lx.inArgument(start, r)
}

func operatorAt(s string) string {
	if len(s) > 1 && s[0] == s[1] {
		return s[:2]
	}
	return s[:1]
}

// dollar reads a variable.
func (lx *lexer) dollar(start int) (token, error) {
	name, after, err := lx.variable(start)
	if err != nil {
		return token{}, err
	}
	if name == "" {
		what := "expected the name of a variable after $"
		if lx.at(start+1) == '(' {
			what = "$( … ) is not part of the language: expected ( … ) or the name of a variable after $"
		}
		return token{}, lx.fail(start, "%s", what)
	}
	return token{kind: variable, start: start, end: after, name: name}, nil
}

// variable reads $name or ${name} at offset and returns the offset behind it;
// an empty name means that the dollar sign begins no variable.
func (lx *lexer) variable(offset int) (name string, after int, err error) {
	from := offset + 1
	braced := lx.at(from) == '{'
	if braced {
		from++
	}
	after = from
	for isName(lx.at(after)) {
		after += utf8.RuneLen(lx.at(after))
	}
	name = lx.text[from:after]
	switch {
	case braced && (name == "" || lx.at(after) != '}'):
		return "", 0, lx.fail(offset, "expected ${name} with letters, digits and underscores in the name")
	case braced:
		return name, after + 1, nil
	case name != "" && lx.at(after) == ':' && (isName(lx.at(after+1)) || lx.at(after+1) == ':'):
		err := lx.fail(after, "variables have no scope or drive: expected the end of $%s, found :", name)
		err.Hint = "write ${" + name + "} if the colon belongs to the text"
		return "", 0, err
	}
	return name, after, nil
}

// operators of expressions, without the hyphen.
var operators = []string{"and", "or", "not", "eq", "ne", "gt", "ge", "lt", "le", "like", "notlike", "contains", "in"}

// inExpression reads what only expressions have.
func (lx *lexer) inExpression(start int, r rune) (token, error) {
	after := start + utf8.RuneLen(r)
	switch {
	case r == '=':
		return token{kind: assign, start: start, end: after}, nil
	case r == '!':
		return token{kind: bang, start: start, end: after}, nil
	case unicode.IsDigit(r), isDash(r) && unicode.IsDigit(lx.at(after)):
		for after < len(lx.text) && (isName(lx.at(after)) || lx.at(after) == '.' && unicode.IsDigit(lx.at(after+1))) {
			after += utf8.RuneLen(lx.at(after))
		}
		digits := lx.text[start:after]
		if isDash(r) {
			digits = "-" + strings.TrimPrefix(digits, string(r))
		}
		value, ok := parseNumber(digits)
		if !ok {
			return token{}, lx.fail(start, "expected a number, found %q", lx.text[start:after])
		}
		return token{kind: number, start: start, end: after, value: value}, nil
	case isDash(r):
		from := after
		for isName(lx.at(after)) {
			after += utf8.RuneLen(lx.at(after))
		}
		name := strings.ToLower(lx.text[from:after])
		if slices.Contains(operators, name) {
			return token{kind: operator, start: start, end: after, name: name}, nil
		}
		return token{}, lx.fail(start, "expected one of -%s, found %q", strings.Join(operators, " -"), lx.text[start:after])
	case isName(r):
		for isName(lx.at(after)) || lx.at(after) == '-' {
			after += utf8.RuneLen(lx.at(after))
		}
		err := lx.fail(start, "expected a value, found %q", lx.text[start:after])
		err.Hint = "put a text in an expression in quotes"
		return token{}, err
	}
	return token{}, lx.fail(start, "expected a value, found %q", r)
}

// inArgument reads a parameter or a bare word.
func (lx *lexer) inArgument(start int, r rune) (token, error) {
	after := start + utf8.RuneLen(r)
	if !isDash(r) || unicode.IsDigit(lx.at(after)) {
		return lx.bare(start)
	}
	from := after
	for isName(lx.at(after)) {
		after += utf8.RuneLen(lx.at(after))
	}
	name := lx.text[from:after]
	if name == "" {
		return token{}, lx.fail(start, "expected the name of a parameter after -")
	}
	t := token{kind: parameter, start: start, end: after, name: name}
	if lx.at(after) == ':' {
		t.colon = true
		t.end++
	} else if !isDelimiter(lx.at(after)) {
		return token{}, lx.fail(after, "expected a space after -%s, found %q", name, lx.at(after))
	}
	return t, nil
}

// parseNumber reads a whole or a decimal number.
func parseNumber(s string) (any, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789.") != "" || strings.HasPrefix(digits, ".") || strings.HasSuffix(digits, ".") {
		return nil, false
	}
	if !strings.Contains(digits, ".") {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}
