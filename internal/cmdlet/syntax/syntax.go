// Package syntax reads the cmdlet language: a named subset of PowerShell.
//
// Parse takes a whole text and gives its tree, or the first *Error with line,
// column and what was expected there. It runs nothing, knows no cmdlet and
// guesses nothing: what is outside the subset is refused, so a text that parses
// can be run from its first statement to its last. The two ways in which
// PowerShell reads words, as arguments and as expressions, are the two modes of
// the lexer. Start reading at Parse.
package syntax

import "fmt"

const (
	// MaxText is the longest text that Parse reads, in bytes.
	MaxText = 4 << 20
	// maxDepth bounds how deep brackets nest, maxChain how many members or
	// operators follow each other; the tree is no deeper than their product.
	maxDepth = 64
	maxChain = 256
)

// Position is a place in a text. Both members count from 1, Column in characters.
type Position struct{ Line, Column int }

// Pos returns the position itself; a node that embeds one has its place.
func (p Position) Pos() Position { return p }

func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }

// Error is a text that is not part of the language.
type Error struct {
	Position
	Message string // what was expected and what was found
	Hint    string
	// Incomplete says that the text is the beginning of one that may parse:
	// a bracket, a string or a pipeline is still open.
	Incomplete bool
}

func (e *Error) Error() string { return e.Position.String() + ": " + e.Message }

// Script is a whole text.
type Script struct{ Statements []Statement }

// Statement is an *Assignment or a *Pipeline.
type Statement interface {
	Pos() Position
	statement()
}

// Assignment is $Name = Value.
type Assignment struct {
	Position
	Name  string
	Value *Pipeline
}

// Pipeline is one element or several joined by |.
type Pipeline struct {
	Position
	Elements []Element
}

// Element is a *Command, or, as the first of a pipeline, an *Evaluation.
type Element interface {
	Pos() Position
	element()
}

// Evaluation is an expression whose values go down the pipeline.
type Evaluation struct {
	Position
	Expression Expression
}

// Command is the call of a cmdlet.
type Command struct {
	Position
	Name      string
	Arguments []Argument
}

// Argument is a value by position (no Parameter), a parameter whose value, if it
// takes one, is the next argument (no Value), or -Parameter:Value (both).
type Argument struct {
	Position
	Parameter string
	Value     Expression
}

// Expression is one of the types below.
type Expression interface {
	Pos() Position
	expression()
}

type (
	// Text is a string, quoted or not.
	Text struct {
		Position
		Parts []Part
	}

	// Number is an int64 or a float64, and how it was written.
	Number struct {
		Position
		Value   any
		Written string
	}

	// Variable is $Name; $true, $false, $null and $_ are such names too.
	Variable struct {
		Position
		Name string
	}

	// Member is Of.Name.
	Member struct {
		Position
		Of   Expression
		Name string
	}

	// List is Items joined by commas; it has two at least.
	List struct {
		Position
		Items []Expression
	}

	// Array is @( … ).
	Array struct {
		Position
		Statements []Statement
	}

	// Group is ( … ).
	Group struct {
		Position
		Pipeline *Pipeline
	}

	// Block is { … }.
	Block struct {
		Position
		Statements []Statement
	}

	// Binary is Left -Operator Right; the operator is in lower case and has no hyphen.
	Binary struct {
		Position
		Operator    string
		Left, Right Expression
	}

	// Not is -not Operand or !Operand.
	Not struct {
		Position
		Operand Expression
	}
)

// Part is a piece of a Text: a literal, or the value of a variable.
type Part struct {
	Position
	Literal  string
	Variable string // not empty: Literal does not count
}

// Literal returns the text if it contains no variable.
func (t *Text) Literal() (string, bool) {
	switch {
	case len(t.Parts) == 0:
		return "", true
	case len(t.Parts) == 1 && t.Parts[0].Variable == "":
		return t.Parts[0].Literal, true
	}
	return "", false
}

func (*Assignment) statement() {}
func (*Pipeline) statement()   {}
func (*Evaluation) element()   {}
func (*Command) element()      {}
func (*Text) expression()      {}
func (*Number) expression()    {}
func (*Variable) expression()  {}
func (*Member) expression()    {}
func (*List) expression()      {}
func (*Array) expression()     {}
func (*Group) expression()     {}
func (*Block) expression()     {}
func (*Binary) expression()    {}
func (*Not) expression()       {}
